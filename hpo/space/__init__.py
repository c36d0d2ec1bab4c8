"""Search spaces: which configurations a study searches. Nothing here imports torch."""

from hpo.constraints import Constraints
from hpo.space.networks import CNNSpace, MLPSpace, ModelSpace
from hpo.space.search_space import Baseline, SearchSpace, load_space, read_space
from hpo.space.training import AugmentSpace, AverageSpace, Hyperparameters, OptimizerSpace, ScheduleSpace

__all__ = [
    "AugmentSpace",
    "AverageSpace",
    "Baseline",
    "CNNSpace",
    "Constraints",
    "Hyperparameters",
    "MLPSpace",
    "ModelSpace",
    "OptimizerSpace",
    "ScheduleSpace",
    "SearchSpace",
    "load_space",
    "read_space",
]
