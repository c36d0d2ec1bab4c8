"""Search spaces: where to look. Nothing here needs torch."""

from hpo.constraints import Constraints
from hpo.space.networks import CNNSpace, MLPSpace, ModelSpace, stretched
from hpo.space.space import Baseline, SearchSpace, load
from hpo.space.training import AugmentSpace, Hyperparameters, OptimizerSpace, ScheduleSpace

__all__ = [
    "AugmentSpace",
    "Baseline",
    "CNNSpace",
    "Constraints",
    "Hyperparameters",
    "MLPSpace",
    "ModelSpace",
    "OptimizerSpace",
    "ScheduleSpace",
    "SearchSpace",
    "load",
    "stretched",
]
