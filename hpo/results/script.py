"""A config as one PyTorch script, for reading and pasting: torch, torchvision and nothing of hpo's."""

import re
from string import Template
from typing import Any

import torch
from torch import nn

from hpo import data
from hpo.config import (
    SGD,
    Adam,
    AdamW,
    Cosine,
    Exponential,
    OneCycle,
    Plateau,
    RMSprop,
    SGDMomentum,
    Step,
    TrialConfig,
    WarmupCosine,
)
from hpo.data.registry import DataInfo
from hpo.errors import UsageError
from hpo.models import build_model

_SCRIPT = Template('''\
"""$title

$summary
$origin
    python THIS_FILE [--data FOLDER] [--device cuda]

Written by `hpo export --as script`; it needs $needs.
"""

import argparse
import copy
import math

import torch
import torch.nn.functional as F
from torch import nn
$imports

EPOCHS = $epochs
BATCH_SIZE = $batch_size
LEARNING_RATE = $lr
VALIDATION_ROWS = $validation
SEED = $seed


class Net(nn.Module):
    """$shape -> [N, $classes] logits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
$layers
        )

    def forward(self, x):
        return self.layers(x)


$loading


def learning_rate(step, steps, losses):
    """The learning rate at a step (from 0) of all steps, given the validation losses so far."""
$schedule


def evaluate(net, x, y):
    """Accuracy and loss, without dropout and on the running statistics."""
    net.eval()
    with torch.inference_mode():
        logits = torch.cat([net(part) for part in x.split(1000)])
    return (logits.argmax(1) == y).float().mean().item(), F.cross_entropy(logits, y).item()


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--data", default="data", help="folder of the data set")
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = arguments.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(SEED)

    x, y, test_x, test_y = load(options.data)
    rows = torch.randperm(len(y))
    validation, training = rows[:VALIDATION_ROWS], rows[VALIDATION_ROWS:]
    axes = $axes
    mean, std = x[training].mean(axes, keepdim=True), x[training].std(axes, keepdim=True)
    std = torch.where(std > 0, std, torch.ones_like(std))
    x, test_x = ((part - mean) / std for part in (x, test_x))
    train_x, train_y = x[training].to(device), y[training].to(device)
    validation_x, validation_y = x[validation].to(device), y[validation].to(device)
    test_x, test_y = test_x.to(device), test_y.to(device)

    net = Net().to(device)
    optimizer = $optimizer
    batch_size = min(BATCH_SIZE, len(train_y))
    steps = len(train_y) // batch_size
    losses = []
$before    for epoch in range(EPOCHS):
        net.train()
        order = torch.randperm(len(train_y), device=device)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = learning_rate(epoch * steps + step, EPOCHS * steps, losses)
            batch = order[step * batch_size : (step + 1) * batch_size]
            with torch.autocast(device.type, torch.bfloat16, enabled=$bf16):
                logits = net(train_x[batch])
            loss = F.cross_entropy(logits.float(), train_y[batch]$smoothing)
            optimizer.zero_grad()
            loss.backward()
$clip            optimizer.step()
        accuracy, validation_loss = evaluate(net, validation_x, validation_y)
        losses.append(validation_loss)
        print(f"epoch {epoch + 1:3d} of {EPOCHS}: loss {loss.item():.4f}, validation accuracy {accuracy:.4f}")
$each$after    print(f"test accuracy {evaluate(net, test_x, test_y)[0]:.4f}")


if __name__ == "__main__":
    main()
''')

_TORCHVISION = Template('''\
def load(folder):
    """Training and test images as floats in 0..1 [N, C, H, W], and their labels."""
    parts = []
    for train in (True, False):
        found = datasets.$name(folder, train=train, download=True)
        images, labels = torch.as_tensor(found.data), torch.as_tensor(found.targets)
        images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2)
        parts += [images.float() / 255, labels]
    return parts''')

_SKLEARN = Template('''\
def load(folder):
    """Training and test rows and their labels, cut as hpo cuts them."""
    x, y = load_$name(return_X_y=True)
    parts = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    train_x, test_x = (torch.tensor(part, dtype=torch.float32).reshape(-1, $shape) for part in parts[:2])
    return train_x, torch.tensor(parts[2]), test_x, torch.tensor(parts[3])''')


def to_script(config: TrialConfig, provenance: dict[str, Any]) -> str:
    """Return a script that builds, trains and evaluates the network of a config, in the same way."""
    info = data.info(config.data)
    if info.own is not None:
        raise UsageError("--as script: is for the known data sets, got data of your own. Use hpo train and hpo.load.")
    with torch.device("meta"):
        model = build_model(config.model, info.input_shape, len(info.classes))
    loading, imports, needs = _loading(info)
    return _SCRIPT.substitute(
        title=f"Trains and tests a network on {info.title}.",
        summary=config.summary(),
        origin=_origin(provenance),
        needs=needs,
        imports=imports,
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=repr(config.optimizer.lr),
        validation=config.split.rows_of(info.rows[0]),
        seed=config.seed,
        shape=f"[N, {', '.join(map(str, info.input_shape))}]",
        classes=len(info.classes),
        layers="\n".join(f"            {layer}," for layer in _layers(model, flatten=config.model.family == "mlp")),
        loading=loading,
        schedule="\n".join(f"    {line}" for line in _schedule(config)),
        axes="(0, 2, 3)" if info.kind == "images" else "0",
        optimizer=_optimizer(config),
        bf16=provenance.get("precision") == "bf16",
        smoothing=f", label_smoothing={config.label_smoothing!r}" if config.label_smoothing else "",
        clip=_CLIP.substitute(norm=repr(config.clip_norm)) if config.clip_norm is not None else "",
        **_stopping(config),
    )


def _origin(provenance: dict[str, Any]) -> str:
    if "study" not in provenance:
        return ""
    text = f"Trial {provenance.get('trial')} of the hpo study {provenance['study']}"
    promise = provenance.get("promised_test_accuracy")
    if promise:
        text += f"; its test accuracy should lie in {promise[0]:.4f} to {promise[1]:.4f}"
    return text + ".\n"


_CLIP = Template("            torch.nn.utils.clip_grad_norm_(net.parameters(), $norm)\n")


def _stopping(config: TrialConfig) -> dict[str, str]:
    """Return what early stopping and best weights add before, in and after the epochs."""
    if config.patience is None and not config.best_weights:
        return {"before": "", "each": "", "after": ""}
    keep = (
        ", best_weights = accuracy, epoch, copy.deepcopy(net.state_dict())"
        if config.best_weights
        else " = accuracy, epoch"
    )
    each = f"        if accuracy > best:\n            best, best_epoch{keep}\n"
    if config.patience is not None:
        each += f"        if epoch - best_epoch >= {config.patience}:\n            break\n"
    after = "    net.load_state_dict(best_weights)\n" if config.best_weights else ""
    return {"before": "    best, best_epoch = -1.0, 0\n", "each": each, "after": after}


_DEFAULTS = re.compile(
    r", (bias=True|inplace=False|eps=1e-05|momentum=0\.1|affine=True|track_running_stats=True|dilation=1"
    r"|elementwise_affine=True|ceil_mode=False|stride=\(1, 1\)|padding=0|padding=\(0, 0\))(?=[,)])"
)


def _layers(model: nn.Module, flatten: bool) -> list[str]:
    """Return the network's layers as Python: torch's own description of a layer is the call that makes it."""
    leaves = [module for module in model.modules() if not list(module.children())]
    lines = ["nn.Flatten()"] if flatten else []
    for leaf in leaves:
        text = (
            _DEFAULTS.sub("", repr(leaf))
            .replace("(approximate='none')", "()")
            .replace("(start_dim=1, end_dim=-1)", "()")
        )
        lines.append(f"nn.{text}")
    return lines


def _optimizer(config: TrialConfig) -> str:
    found = config.optimizer
    match found:
        case SGD():
            kind, more = "SGD", []
        case SGDMomentum():
            kind, more = "SGD", [f"momentum={found.momentum!r}", f"nesterov={found.nesterov}"]
        case Adam() | AdamW():
            kind = "AdamW" if isinstance(found, AdamW) else "Adam"
            more = [f"betas=({found.beta1!r}, {found.beta2!r})", f"eps={found.eps!r}"]
        case RMSprop():
            kind, more = "RMSprop", [f"alpha={found.alpha!r}", f"eps={found.eps!r}"]
    given = ["net.parameters()", "lr=LEARNING_RATE", f"weight_decay={found.weight_decay!r}", *more]
    return f"torch.optim.{kind}(\n        " + ",\n        ".join(given) + ",\n    )"


def _schedule(config: TrialConfig) -> list[str]:
    """Return the body of `learning_rate`; the formulas of hpo.training.schedules."""
    match config.schedule:
        case Cosine(floor=floor):
            falling = "(1 + math.cos(math.pi * step / steps)) / 2"
            return [
                f"return LEARNING_RATE * ({floor!r} + {1 - floor!r} * {falling})"
                if floor
                else f"return LEARNING_RATE * {falling}"
            ]
        case OneCycle(warmup=warmup):
            return [
                f"peak, last = {warmup!r} * steps - 1, steps - 1",
                "if step <= peak:",
                "    progress, low = 1 - step / peak if peak > 0 else 0.0, 1 / 25",
                "else:",
                "    progress, low = (step - peak) / (last - peak), 1 / 25 / 1e4",
                "return LEARNING_RATE * (low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2)",
            ]
        case Step(parts=parts, gamma=gamma):
            return [f"return LEARNING_RATE * {gamma!r} ** (step * {parts} // steps)"]
        case Exponential(final=final):
            return [f"return LEARNING_RATE * {final!r} ** (step / max(1, steps - 1))"]
        case WarmupCosine(warmup=warmup):
            return [
                f"rising = {warmup!r} * steps",
                "if step < rising:",
                "    return LEARNING_RATE * (step + 1) / (rising + 1)",
                "return LEARNING_RATE * (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2",
            ]
        case Plateau(patience=patience, gamma=gamma):
            return [
                "best, still, plateaus = math.inf, 0, 0",
                "for loss in losses:",
                "    best, still = (loss, 0) if loss < best * (1 - 1e-4) else (best, still + 1)",
                f"    if still > {patience}:",
                "        plateaus, still = plateaus + 1, 0",
                f"return LEARNING_RATE * {gamma!r} ** plateaus",
            ]
    return ["return LEARNING_RATE"]


def _loading(info: DataInfo) -> tuple[str, str, str]:
    """Return the function that loads the data, its imports, and the packages it needs."""
    if info.torchvision:
        text = _TORCHVISION.substitute(name=info.torchvision)
        return text, "from torchvision import datasets", "torch and torchvision"
    text = _SKLEARN.substitute(name=info.name, shape=", ".join(map(str, info.input_shape)))
    imports = f"from sklearn.datasets import load_{info.name}\nfrom sklearn.model_selection import train_test_split"
    return text, imports, "torch and scikit-learn"
