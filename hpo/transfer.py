"""The inverse of a space's walk: the draws with which it gives a known config, or the reason why there are none."""

import contextlib
from typing import Any

from hpo import documents
from hpo.config import TrialConfig
from hpo.ranges import allows, extremes
from hpo.space import SearchSpace
from hpo.suggesters import FixedSuggester

SIZES = ("data_fraction", "image_size", "accumulation", "precision")
"""Fields of a config that say how much is computed and how precisely, not what is learned."""
NOT_COMPARED = ("data", "split", "epochs", *SIZES, "metric", "seed", "format")
"""Fields of a config that the new space decides."""
SAME_STUDY = ("data", "split", "seed", "accumulation", "format")
"""Fields that need not be compared if the new space is for the same study, which has the same data."""


def draws_for(
    space: SearchSpace,
    config: TrialConfig,
    ignored: tuple[str, ...] = NOT_COMPARED,
    drawn: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the draws with which a space gives a config, apart from the config's ignored fields.

    `drawn` are the draws that gave the config before: they are kept where they fit, because some draws cannot be
    derived from a config. Raises: ValueError that names the first field that does not fit.
    """
    if space.python is not None:
        if drawn is None:
            raise ValueError(f"the space is {space.python}, in which nothing can be looked up by its config")
        return _checked(space, config, drawn, ignored)
    draws = space.draws_of(config)
    if "epochs" in ignored:  # then the sizes are those of the new space, as near as possible to the config's
        for name in ("epochs", *SIZES):
            field, value = getattr(space, name), getattr(config, name)
            draws[name] = value if allows(field, value) else extremes(field)[-1]
    if drawn is not None:
        with contextlib.suppress(ValueError):
            return _checked(space, config, draws | drawn, ignored)
    return _checked(space, config, draws, ignored)


def _checked(
    space: SearchSpace, config: TrialConfig, draws: dict[str, Any], ignored: tuple[str, ...]
) -> dict[str, Any]:
    """Return those draws that the walk asks for, if it gives the config. Raises: ValueError if it does not."""
    fixed = FixedSuggester(draws)
    expected, got = documents.dump(config), documents.dump(space.draw(fixed, seed=0))
    for name in expected:
        if name not in ignored and expected[name] != got[name]:
            raise ValueError(_difference(name, expected[name], got[name]))
    return {name: fixed.values[name] for name in fixed.used}


def _difference(name: str, expected: Any, got: Any) -> str:
    """Return the first difference between two values of a field in words; name and family are compared first."""
    if isinstance(expected, dict) and isinstance(got, dict):
        for key in sorted(expected | got, key=lambda k: k not in ("name", "family")):
            if expected.get(key) != got.get(key):
                return _difference(f"{name}.{key}", expected.get(key), got.get(key))
    return f"{name}: is {expected}, the space gives {got}"
