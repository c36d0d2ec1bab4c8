"""Lanes whose steps Triton's interpreter takes: a program of its own, as that is chosen before kernels are imported.

It prints as JSON by how much they differ from lanes whose steps torch takes, and what was said of their first steps.
"""

import json
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hpo.config import MLP, NoAverage, TrialConfig
from hpo.training.devices import use_one_thread
from hpo.training.packed.compute import fused, graphed_program
from hpo.training.packed.compute.graphed_program import GraphedProgram
from hpo.training.packed.scheduling import lane as lanes
from hpo.training.packed.scheduling.lane import Lane
from tests.helpers.packing import FEATURES, admit, lane_of, mixed_mlps, random_rows, train
from tests.test_packed_refill import narrower

BATCH, STEPS = 40, 2
"""Not a power of two, so that programs hold more rows than there are."""
patch = pytest.MonkeyPatch()


def mixed() -> list[TrialConfig]:
    """Trials that differ in all that may differ."""
    configs = [replace(config, batch_size=BATCH) for config in mixed_mlps(dropout=True)[:6]]
    # The padding of sigmoid, which is not 0, would not matter before batch norm, or where it is dropped.
    assert isinstance(configs[4].model, MLP) and configs[4].model.activation == "sigmoid"
    model = replace(configs[4].model, norm="none", dropout=(0.0, 0.0))
    return [*configs[:4], replace(configs[4], model=model), configs[5]]


def plain(config: TrialConfig) -> TrialConfig:
    """A trial with nothing that need not be."""
    model = config.model
    assert isinstance(model, MLP)
    activation = "gelu" if model.activation == "sigmoid" else model.activation
    model = replace(model, activation=activation, norm="none", dropout=(0.0,) * len(model.widths))
    return replace(config, model=model, average=NoAverage(), clip_norm=None, class_weight="none")


def program_of(lane: Lane) -> GraphedProgram:
    assert isinstance(lane.program, GraphedProgram)
    return lane.program


def state(lane: Lane) -> dict[str, Tensor]:
    """All that steps write: the memory, padding included, and by name what is of each trial."""
    program = program_of(lane)
    tensors = {f"memory {number}": tensor.clone() for number, tensor in enumerate(program.changing())}
    tensors["logits"] = program.logits.clone()
    for slot, member in program.held():
        tensors |= {f"{member.key} {name}": value for name, value in program.tensors(slot).items()}
    return tensors


def trained(configs: Sequence[TrialConfig], leaving: Sequence[int], joining: Sequence[int]) -> list[dict[str, Tensor]]:
    """States after an epoch, and after another one in which places are empty or have other trials."""
    lane = lane_of(configs, random_rows(FEATURES, rows=STEPS * BATCH))
    lane.slots = len(configs)  # none spare: the interpreter is slow
    train(lane, 1)
    program, states = program_of(lane), [state(lane)]
    for key in leaving:
        lane.evict(key)
    for key in joining:
        admit(lane, 10 + key, narrower(configs[key], key))
    train(lane, 1)
    assert program_of(lane) is program
    assert [member is None for member in program.members].count(True) == len(leaving) - len(joining)
    return [*states, state(lane)]


def differences(configs: Sequence[TrialConfig], leaving: Sequence[int], joining: Sequence[int]) -> dict[str, float]:
    """By how much what steps write differs at most."""
    ways = []
    for by_triton in (False, True):
        patch.setattr(graphed_program, "wanted", lambda device, by=by_triton: by)
        ways.append(trained(configs, leaving, joining))
    largest: dict[str, float] = {}
    for torchs, tritons in zip(*ways, strict=True):
        assert torchs.keys() == tritons.keys()
        for name, value in torchs.items():
            largest[name] = max(largest.get(name, 0.0), float((value - tritons[name]).abs().max()))
    return largest


def main() -> None:
    use_one_thread()
    torch.set_default_dtype(torch.float64)
    patch.setattr(lanes, "program_kind", lambda device: GraphedProgram)
    imported = any(name.endswith("_kernels") and name.startswith(fused.__name__) for name in sys.modules)
    report: dict[str, object] = {"mixed": differences(mixed(), (1, 2, 3), (1, 2))}
    patch.setattr(f"{fused.__name__}_mlp.TILE", 256)  # so that the loss takes the rows in two parts
    report["plain"] = differences([plain(config) for config in mixed()[:3]], (), ())
    print(json.dumps(report | {"verdicts": list(fused._verdicts.values()), "imported": imported}))


if __name__ == "__main__":
    main()
