"""Search spaces: where to look. Nothing here needs torch."""

from hpo.space.networks import CNNSpace, MLPSpace, stretched
from hpo.space.space import Baseline, SearchSpace, load
from hpo.space.training import AugmentSpace, OptimizerSpace, ScheduleSpace

__all__ = [
    "AugmentSpace",
    "Baseline",
    "CNNSpace",
    "MLPSpace",
    "OptimizerSpace",
    "ScheduleSpace",
    "SearchSpace",
    "load",
    "stretched",
]
