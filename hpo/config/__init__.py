"""A training run as plain, frozen data.

A config is drawn from a space, stored with each trial, and written by an export; training knows nothing else. The field
`name` of an optimizer or schedule, and `family` of a network, says which kind it is.
"""

from hpo.config.augment import Augment
from hpo.config.averages import EMA, Average, NoAverage
from hpo.config.metrics import LABELS, WORST, Metric, format_difference, metric_label
from hpo.config.networks import CNN, MLP, Activation, Head, Init, Network, Norm, Pool, PythonNetwork, check_fits
from hpo.config.optimizers import OPTIMIZERS, SGD, Adam, AdamW, Optimizer, RMSprop, SGDMomentum
from hpo.config.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    Exponential,
    OneCycle,
    Plateau,
    Schedule,
    StepDecay,
    WarmupCosine,
)
from hpo.config.source import DataSource, OwnData, Split
from hpo.config.trial import FORMAT, ClassWeight, Precision, TrialConfig, hyperparameters_of

__all__ = [
    "CNN",
    "EMA",
    "FORMAT",
    "LABELS",
    "MLP",
    "OPTIMIZERS",
    "SCHEDULES",
    "SGD",
    "WORST",
    "Activation",
    "Adam",
    "AdamW",
    "Augment",
    "Average",
    "ClassWeight",
    "Constant",
    "Cosine",
    "DataSource",
    "Exponential",
    "Head",
    "Init",
    "Metric",
    "Network",
    "NoAverage",
    "Norm",
    "OneCycle",
    "Optimizer",
    "OwnData",
    "Plateau",
    "Pool",
    "Precision",
    "PythonNetwork",
    "RMSprop",
    "SGDMomentum",
    "Schedule",
    "Split",
    "StepDecay",
    "TrialConfig",
    "WarmupCosine",
    "check_fits",
    "format_difference",
    "hyperparameters_of",
    "metric_label",
]
