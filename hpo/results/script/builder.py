"""From a config to the script: the template, filled in from the config."""

import inspect
from string import Template
from typing import Any

import torch

from hpo import data
from hpo.config import CNN, EMA, MLP, PythonNetwork, TrialConfig
from hpo.data.registry import DataInfo
from hpo.errors import UsageError
from hpo.models import INITS, Residual, build_model
from hpo.results.provenance import check_provenance
from hpo.results.script.network import layers
from hpo.results.script.template import AVERAGE, SCRIPT, SKLEARN, TORCHVISION
from hpo.results.script.training import learning_rate, optimizer, schedule_functions
from hpo.text import in_docstring
from hpo.training import augmentation, averages, metrics


def to_script(config: TrialConfig, provenance: dict[str, Any]) -> str:
    """Return a script that builds, trains and tests the network of a config as hpo does, without hpo.

    No text of a store is placed in the code, but for the docstring, where it cannot end it; numbers are checked.
    Raises: UsageError for data or a network of the user's, DocumentError for a provenance that is none.
    """
    info = data.info(config.data)
    if info.user_data is not None:
        raise UsageError(
            "--as script: is for the data sets of `hpo data list`, got your own data. Use hpo train and hpo.load."
        )
    if isinstance(config.model, PythonNetwork):
        raise UsageError("--as script: is for MLPs and CNNs, got your own network. Use hpo train and hpo.load.")
    with torch.device("meta"):
        model = build_model(config.model, config.input_shape(info.input_shape), len(info.classes))
    loading, imports, needs = _loading(info)
    definitions = _definitions(config, config.model)
    return SCRIPT.substitute(
        title=in_docstring(f"Trains and tests a network on {info.title}."),
        summary=in_docstring(config.summary()),
        origin=_origin(provenance),
        needs=needs,
        imports=imports,
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=repr(config.optimizer.lr),
        validation=config.split.rows_of(info.rows[0]),
        seed=config.seed,
        shape=f"[N, {', '.join(map(str, config.input_shape(info.input_shape)))}]",
        classes=len(info.classes),
        layers="\n".join(f"            {line}" for line in layers(model, flatten=config.model.family == "mlp")),
        loading=loading,
        learning_rate=learning_rate(config),
        axes="(0, 2, 3)" if info.kind == "images" else "0",
        optimizer=optimizer(config),
        bf16=provenance.get("precision") == "bf16",
        clip=_CLIP.substitute(norm=repr(config.clip_norm)) if config.clip_norm is not None else "",
        definitions=definitions,
        dataclass="from dataclasses import dataclass\n" if "@dataclass" in definitions else "",
        sequence="from collections.abc import Sequence\n" if "Sequence" in definitions else "",
        tensor="Tensor, " if "Tensor" in definitions else "",
        init=_init(config.model),
        prepare=_prepare(config),
        augment=_augment(config),
        rows="epoch_x" if config.augment else "train_x",
        **_averages(config),
        **_loss(config),
        **_stopping(config),
    )


def _origin(provenance: dict[str, Any]) -> str:
    """Return the line of the docstring that says where the config is from. Raises: DocumentError."""
    known = check_provenance(provenance, "provenance")
    if known.study is None:
        return ""
    trial = "" if known.trial is None else f"Trial {known.trial:d} of the"
    text = f"{trial or 'The'} hpo study {known.study}"
    if known.promise is not None:
        promised = known.promise.one
        text += f"; its test score should lie in {promised.low:.4f} to {promised.high:.4f}"
    return in_docstring(text + ".") + "\n"


_CLIP = Template("            torch.nn.utils.clip_grad_norm_(net.parameters(), $norm)\n")


def _definitions(config: TrialConfig, network: MLP | CNN) -> str:
    """Return the source of those functions and classes of hpo that the script of a config needs."""
    parts: list[Any] = []
    text = ""
    if network.residual:
        parts.append(Residual)
    if _metric(config) not in _OF_EVALUATE:
        parts += [metrics.Metrics, metrics.compute_metrics]
    parts += schedule_functions(config)
    if config.augment:
        low, high = augmentation.ERASE_AREA, augmentation.ERASE_ASPECT
        text += f"\nERASE_AREA, ERASE_ASPECT = {low}, {high}\n\n" if config.augment.erase else ""
        used = {"jitter": "_jittered", "rotate": "_rotated", "shift": "_moved", "flip": "_moved", "erase": "_erased"}
        names = dict.fromkeys(name for kind, name in used.items() if getattr(config.augment, kind))
        parts += [getattr(augmentation, name) for name in names]
    if isinstance(config.average, EMA):
        parts.append(averages.ema_weight)
    text += "".join(f"\n{inspect.getsource(part)}\n" for part in parts)
    return text + AVERAGE.substitute(horizon=repr(config.average.horizon)) if isinstance(config.average, EMA) else text


def _init(network: MLP | CNN) -> str:
    if network.init == "default":
        return ""
    return f"""\
        for layer in self.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                nn.init.{INITS[network.init].__name__}(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
"""


def _prepare(config: TrialConfig) -> str:
    """Return the lines that scale images, take a fraction of the rows, and prepare augmentation."""
    text = ""
    if config.image_size is not None:
        text += (
            f'    scale = dict(size=({config.image_size}, {config.image_size}), mode="bilinear", antialias=True)\n'
            "    x, test_x = (F.interpolate(part, **scale) for part in (x, test_x))\n"
        )
    if config.data_fraction < 1:
        text += f"    training = training[: round({config.data_fraction!r} * len(training))]\n"
    if config.augment:
        text += "    black = (-mean / std).to(device)\n"
    return text


def _augment(config: TrialConfig) -> str:
    """Return the lines that augment an epoch's images as `hpo.training.augmentation` does, by torch's generator."""
    augment, steps = config.augment, []
    if augment.jitter:
        steps.append(f"part = _jittered(part, {augment.jitter!r}, black, chance[:, 0:3])")
    if augment.rotate:
        steps.append(f"part = _rotated(part, {augment.rotate!r}, black, chance[:, 3])")
    if augment.shift or augment.flip:
        steps.append(f"part = _moved(part, {augment.shift!r}, {augment.flip!r}, black, chance[:, 4:7])")
    if augment.erase:
        steps.append(f"part = torch.where(_erased(part, {augment.erase!r}, chance[:, 7:11]), black, part)")
    if not steps:
        return ""
    inside = "".join(f"            {step}\n" for step in steps)
    return f"""\
        epoch_x = []
        for part in train_x.split(1000):
            chance = torch.rand(len(part), 11, device=device)
{inside}            epoch_x.append(part)
        epoch_x = torch.cat(epoch_x)
"""


def _evaluated(config: TrialConfig) -> str:
    """Return the name of the network that is validated and kept."""
    return "averaged" if isinstance(config.average, EMA) else "net"


def _averages(config: TrialConfig) -> dict[str, str]:
    """Return the lines for averaged weights before the loop over epochs and in each step."""
    if not isinstance(config.average, EMA):
        return {"averaged": "", "average": "", "evaluated": "net"}
    return {
        "averaged": "    averaged = copy.deepcopy(net)\n",
        "average": "            update_average(averaged, net, epoch * steps + step, steps)\n",
        "evaluated": _evaluated(config),
    }


def _loss(config: TrialConfig) -> dict[str, str]:
    options = f", label_smoothing={config.label_smoothing!r}" if config.label_smoothing else ""
    if config.class_weight == "none":
        return {"weights": "", "options": options}
    return {
        "weights": "    counts = torch.bincount(train_y)\n    weights = len(train_y) / (len(counts) * counts)\n",
        "options": f", weight=weights{options}",
    }


_OF_EVALUATE = ("accuracy", "-validation_loss")
"""Expressions of metrics that the script's `evaluate` returns; the others need `compute_metrics`."""


def _metric(config: TrialConfig) -> str:
    """Return the expression of the metric that early stopping and best weights use."""
    if config.patience is None and not config.best_weights:
        return "accuracy"
    of_evaluate = {"accuracy": "accuracy", "neg_log_loss": "-validation_loss"}
    return of_evaluate.get(
        config.metric, f"compute_metrics(predict({_evaluated(config)}, validation_x), validation_y).{config.metric}"
    )


def _stopping(config: TrialConfig) -> dict[str, str]:
    """Return the lines for early stopping and best weights before, in and after the loop over epochs."""
    if config.patience is None and not config.best_weights:
        return {"before": "", "each": "", "after": ""}
    keep = (
        f", best_weights = value, epoch, copy.deepcopy({_evaluated(config)}.state_dict())"
        if config.best_weights
        else " = value, epoch"
    )
    each = f"        value = {_metric(config)}\n        if value > best:\n            best, best_epoch{keep}\n"
    if config.patience is not None:
        each += f"        if epoch - best_epoch >= {config.patience}:\n            break\n"
    after = f"    {_evaluated(config)}.load_state_dict(best_weights)\n" if config.best_weights else ""
    return {"before": "    best, best_epoch = -math.inf, 0\n", "each": each, "after": after}


def _loading(info: DataInfo) -> tuple[str, str, str]:
    """Return the function that loads the data, its imports, and the packages it needs."""
    if info.torchvision:
        text = TORCHVISION.substitute(name=info.torchvision)
        return text, "from torchvision import datasets", "torch and torchvision"
    text = SKLEARN.substitute(name=info.name, shape=", ".join(map(str, info.input_shape)))
    imports = f"from sklearn.datasets import load_{info.name}\nfrom sklearn.model_selection import train_test_split"
    return text, imports, "torch and scikit-learn"
