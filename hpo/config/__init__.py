"""A training run as plain, frozen data.

A config is what a space draws, what the store keeps on each trial, what an exported file holds and the only
thing that training knows. Kinds of optimizer, schedule and network are told apart by `name` or `family`.
"""

from hpo.config.augment import Augment
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
from hpo.config.trial import FORMAT, ClassWeight, Precision, TrialConfig, own_fields

__all__ = [
    "CNN",
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
    "ClassWeight",
    "Constant",
    "Cosine",
    "DataSource",
    "Exponential",
    "Head",
    "Init",
    "Metric",
    "Network",
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
    "metric_label",
    "own_fields",
]
