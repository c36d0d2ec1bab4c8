"""Checks of a space that build its networks, before any trial is spent. They need torch."""

from hpo import data
from hpo.errors import DocumentError
from hpo.models import build_model
from hpo.space import SearchSpace
from hpo.suggesters import FixedSuggester, RandomSuggester, Suggester
from hpo.training.devices import choose_device, use_one_thread
from hpo.training.model_cost import measure

RANDOM_DRAWS = 5
"""Random configurations that code of the user's own must be able to draw and build."""


def try_networks(space: SearchSpace) -> None:
    """Draw and build the baselines and some random networks of a space, to try code of the user's own.

    Raises: ModelError for a network that cannot be built, DocumentError for a baseline that cannot be drawn.
    """
    info = data.info(space.data)
    suggesters: list[Suggester] = [FixedSuggester(baseline.values()) for baseline in space.baselines]
    try:
        for suggester in [*suggesters, *(RandomSuggester(i) for i in range(RANDOM_DRAWS))]:
            config = space.draw(suggester, seed=0)
            build_model(config.model, config.input_shape(info.input_shape), len(info.classes))
    except ValueError as error:
        raise DocumentError(f"baselines: {error}") from error


def check_baselines(space: SearchSpace, where: str) -> None:
    """Refuse a space whose baselines break its own constraints on this machine. Raises: DocumentError."""
    limits = space.constraints.limits
    if not limits or not space.baselines:
        return
    use_one_thread()
    info, device = data.info(space.data), choose_device("auto")
    for i, baseline in enumerate(space.baselines):
        config = space.draw(FixedSuggester(baseline.values()), seed=0)
        costs = measure(config, config.input_shape(info.input_shape), len(info.classes), device, limits)
        broken = space.constraints.broken(costs)
        if broken:
            raise DocumentError(
                f'{where}: baselines.{i}, "{baseline.name}": must keep the constraints, got {broken}. '
                "Loosen [constraints] or remove the baseline."
            )
