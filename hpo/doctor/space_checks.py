"""Checks of a space on this machine: its data, and whether its networks run and learn."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from hpo import data
from hpo.config import AdamW, Constant, TrialConfig
from hpo.data import DataInfo, Parts
from hpo.doctor.findings import Finding, failure, guarded, milliseconds, ok, warning
from hpo.models import build_model, parameter_count
from hpo.space import SearchSpace
from hpo.suggesters import FixedSuggester, RandomSuggester
from hpo.training.dataset import ResidentData, resident
from hpo.training.devices import set_up_device, use_one_thread
from hpo.training.epoch import Run

DRAWS = 200
"""Configurations drawn to choose the smallest, the largest and a typical network."""
STEPS = 400
"""Training steps within which one batch must be memorized: every row of it classified correctly."""


def check_space(space: SearchSpace, device: torch.device) -> Iterator[Finding]:
    """Check a space's data, then train single batches of its networks."""
    use_one_thread()
    set_up_device(device)
    info = data.info(space.data)
    try:
        parts = data.load_parts(info, space.split)
    except Exception as error:
        yield failure("data", str(error).partition(". ")[0], f"hpo data fetch {space.data}")
        return
    configs = sorted((space.draw(RandomSuggester(i), seed=i) for i in range(DRAWS)), key=lambda c: _weights(c, info))
    on_device = resident(parts, dataclasses.replace(configs[0], data_fraction=1.0, image_size=None), device)
    yield from guarded("data", lambda: check_data(parts, on_device))
    for which, config in (("smallest", configs[0]), ("largest", configs[-1])):
        yield from guarded("network", lambda which=which, config=config: check_one_batch(which, config, parts, device))  # type: ignore[misc]
    typical = configs[len(configs) // 2]
    if space.baselines:
        typical = space.draw(FixedSuggester(space.baselines[0].values()), seed=0)
    yield from guarded("learning", lambda: check_first_loss(typical, parts, device))
    yield from guarded("learning", lambda: check_memorization(typical, parts, device))


def _weights(config: TrialConfig, info: DataInfo) -> int:
    with torch.device("meta"):
        shape = config.input_shape(info.input_shape)
        return parameter_count(build_model(config.model, shape, len(info.classes)))


def check_data(parts: Parts, on_device: ResidentData) -> Iterator[Finding]:
    """Check labels, balance of the classes, standardization, and that training and validation rows differ."""
    name, classes = parts.info.name, len(parts.info.classes)
    labels = np.concatenate([parts.train.y, parts.validation.y])
    if labels.min() < 0 or labels.max() >= classes:
        yield failure("data", f"{name}: labels must lie in 0..{classes - 1}, got {labels.min()}..{labels.max()}", "")
    else:
        counts = np.bincount(parts.train.y, minlength=classes)
        rows = f"{len(parts.train.y):,} training and {len(parts.validation.y):,} validation rows"
        text = f"{name}: {rows}, {classes} classes"
        if counts.max() > 10 * max(counts.min(), 1):
            rare = f"; the rarest has {counts.min()} rows, the most common {counts.max()}"
            yield warning(
                "data",
                text + rare,
                "Accuracy can be high without the rare classes: consider --objective balanced_accuracy.",
            )
        else:
            yield ok("data", text)
    mean, std = float(on_device.train_x.mean()), float(on_device.train_x.std())
    if abs(mean) > 0.05 or not 0.5 < std < 1.5 or not math.isfinite(mean):
        yield warning("data", f"inputs have mean {mean:.3f} and deviation {std:.3f}, not 0 and 1", "Check the data.")
    else:
        yield ok("data", f"inputs are normalized: mean {mean:.3f}, deviation {std:.3f}")
    seen = {row.tobytes() for row in parts.train.x}
    shared = sum(row.tobytes() in seen for row in parts.validation.x)
    if shared > 0.001 * len(parts.validation.y):
        remedy = "Validation scores will be too high: remove the duplicates."
        yield warning("data", f"{shared} validation rows are also training rows", remedy)
    else:
        equal = f" but for {shared} equal rows in the data itself" if shared else ""
        yield ok("data", f"training and validation are disjoint{equal}")


def check_one_batch(which: str, config: TrialConfig, parts: Parts, device: torch.device) -> Iterator[Finding]:
    """Check that a batch can be trained; report its time, and the time of a full trial. `which` names the network."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    run = Run(config, resident(parts, config, device), device)
    rows = torch.arange(run.batch_size, device=device)

    def step() -> None:
        for dropout in run.dropouts:
            dropout.start_epoch(0, 0, 1, run.batch_size)
        run.train_step(rows)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    took = milliseconds(step)
    memory = f", {torch.cuda.max_memory_allocated(device) / 1e6:.0f} MB" if device.type == "cuda" else ""
    minutes = took * run.steps * config.epochs / 60_000
    yield ok(
        "network",
        f"{which}: {config.summary()}: {run.facts.parameters:,} weights, {took:.1f} ms per batch{memory}, "
        f"about {minutes:.1f} min per full trial",
    )


def check_first_loss(config: TrialConfig, parts: Parts, device: torch.device) -> Iterator[Finding]:
    """Check that the loss before training is about that of guessing."""
    on_device = resident(parts, config, device)
    run = Run(config, on_device, device)
    loss = run.evaluate(on_device.validation_x[:1000], on_device.validation_y[:1000]).loss
    expected = math.log(on_device.classes)
    text = f"loss before training {loss:.2f}, of guessing {expected:.2f}"
    if abs(loss - expected) > 0.5 * expected:
        yield warning(
            "learning", text, "The initial outputs are far from uniform: check the norm and the scale of the inputs."
        )
    else:
        yield ok("learning", text)


def check_memorization(config: TrialConfig, parts: Parts, device: torch.device) -> Iterator[Finding]:
    """Check that a network can overfit one batch: classify every row of it correctly within `STEPS` steps."""
    plain = dataclasses.replace(config, optimizer=AdamW(lr=1e-3), schedule=Constant(), precision="fp32")
    on_device = resident(parts, plain, device)
    run = Run(plain, on_device, device)
    x, y = on_device.train_x[: run.batch_size], on_device.train_y[: run.batch_size]
    run.model.train()
    for dropout in run.dropouts:
        dropout.threshold = 0  # nothing is dropped
    for step in range(1, STEPS + 1):
        run.optimizer.zero_grad()
        logits = run.model(x)
        F.cross_entropy(logits, y).backward()  # type: ignore[no-untyped-call]
        run.update()
        if bool((logits.argmax(1) == y).all()):
            yield ok("learning", f"one batch of {len(y)} is memorized in {step} steps ({config.summary()})")
            return
    right = float((logits.argmax(1) == y).float().mean())
    text = f"one batch of {len(y)} is not memorized in {STEPS} steps: {100 * right:.0f} % correct"
    yield failure("learning", text, "Are the labels those of the inputs? Is the network too small?")
