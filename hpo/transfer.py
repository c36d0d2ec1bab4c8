"""A config seen from another space: the draws that would give it there, or why nothing would."""

import contextlib
import dataclasses
from typing import Any

from hpo.config import CNN, MLP, PythonNetwork, TrialConfig
from hpo.ranges import FixedSuggester, FloatRange, allows, extremes, values_of
from hpo.space import MLPSpace, SearchSpace, stretched

SIZES = ("data_fraction", "image_size", "accumulation", "precision")
"""How much is computed, and how exactly: not what is learned."""
NOT_COMPARED = ("data", "split", "epochs", *SIZES, "metric", "seed", "format")
"""Of a config: what the new space decides."""


SAME_STUDY = ("data", "split", "seed", "accumulation", "format")
"""Not compared where the space is another of the same study: its data are known to be the same."""


def draws_for(
    space: SearchSpace, config: TrialConfig, but: tuple[str, ...] = NOT_COMPARED, drawn: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the draws with which a space gives a config, but for the parts that are not compared.

    `drawn` is what gave the config before: where that fits, it stays (not every draw can be told from a config).
    Raises: ValueError that names the first thing that does not fit.
    """
    if space.python is not None:
        if drawn is None:
            raise ValueError(f"the space is {space.python}, in which nothing can be looked up by its config")
        return _walked(space, config, drawn, but)
    told = _network(space, config) | _rest(space, config, exactly="epochs" not in but)
    if drawn is not None:
        with contextlib.suppress(ValueError):
            return _walked(space, config, told | drawn, but)
    return _walked(space, config, told, but)


def _walked(space: SearchSpace, config: TrialConfig, draws: dict[str, Any], but: tuple[str, ...]) -> dict[str, Any]:
    """Return the draws that the walk asks for, if it leads to the config. Raises: ValueError if it does not."""
    fixed = FixedSuggester(draws)
    found = space.draw(fixed, seed=0)
    expected, got = config.to_dict(), found.to_dict()
    for part in expected:
        if part not in but and expected[part] != got[part]:
            raise ValueError(_difference(part, expected[part], got[part]))
    return {name: fixed.values[name] for name in fixed.used}


def _difference(part: str, expected: Any, got: Any) -> str:
    if isinstance(expected, dict) and isinstance(got, dict):
        keys = expected | got
        for key in sorted(keys, key=lambda k: k not in ("name", "family")):  # what the others follow from, first
            if expected.get(key) != got.get(key):
                return _difference(f"{part}.{key}", expected.get(key), got.get(key))
    return f"{part}: is {expected}, the space gives {got}"


def _network(space: SearchSpace, config: TrialConfig) -> dict[str, Any]:
    model = config.model
    families = {"mlp": space.mlp, "cnn": space.cnn, "python": space.model}
    if families[model.family] is None:
        [other] = [name for name, section in families.items() if section is not None]
        raise ValueError(f"its family is {model.family}, the space's is {other}")
    if isinstance(model, PythonNetwork):
        return {f"model.{name}": value for name, value in model.params.items()}
    own = space.mlp if isinstance(model, MLP) else space.cnn
    assert own is not None
    family, width_name = model.family, "width" if isinstance(model, MLP) else "channels"
    sizes = model.widths if isinstance(model, MLP) else model.channels
    draws: dict[str, Any] = {f"{family}.depth": len(sizes)}
    for i, (size, rate) in enumerate(zip(sizes, model.dropout, strict=True)):
        draws |= {f"{family}.{i}.{width_name}": size, f"{family}.{i}.dropout": rate}
    draws |= {f"{family}.{width_name}": sizes[0], f"{family}.dropout": model.dropout[0]}
    if isinstance(model, CNN):
        for name, values in (("convs", model.convs), ("pool", model.pool)):
            draws |= {f"cnn.{i}.{name}": value for i, value in enumerate(values)} | {f"cnn.{name}": values[0]}
    layered = {"widths", "channels", "dropout", "convs", "pool", "family"}
    single = {f.name for f in dataclasses.fields(model)} - layered
    draws |= {f"{family}.{name}": getattr(model, name) for name in single}
    name, ratio = ("taper", own.taper) if isinstance(own, MLPSpace) else ("growth", own.growth)
    if ratio is not None:
        width = own.width if isinstance(own, MLPSpace) else own.channels
        options = values_of(ratio)
        if isinstance(ratio, FloatRange):
            options = [sizes[1] / sizes[0] if len(sizes) > 1 else ratio.low]
        fitting = [r for r in options if all(stretched(width, sizes[0], r, i) == s for i, s in enumerate(sizes))]
        draws[f"{family}.{name}"] = fitting[0] if fitting else options[0]
    return draws


def _rest(space: SearchSpace, config: TrialConfig, exactly: bool) -> dict[str, Any]:
    optimizer, schedule = dataclasses.asdict(config.optimizer), dataclasses.asdict(config.schedule)
    single = ("batch_size", "class_weight", "label_smoothing", "clip_norm", "patience", "best_weights")
    draws: dict[str, Any] = {name: getattr(config, name) for name in single}
    for key, value in optimizer.items():
        draws |= {f"optimizer.{key}": value, f"optimizer.{optimizer['name']}.{key}": value}
    draws |= {f"schedule.{key}": value for key, value in schedule.items()}
    draws |= {f"augment.{key}": value for key, value in dataclasses.asdict(config.augment).items()}
    for name in ("epochs", *SIZES):
        value, field = getattr(config, name), getattr(space, name)
        draws[name] = value if exactly or allows(field, value) else extremes(field)[-1]
    return draws
