"""TF32: only where it is asked for, only on GPUs that have it, and only for the trials that ask."""

import dataclasses
from collections.abc import Callable, Iterator

import pytest
import torch

from hpo.config import CNN, MLP, Adam, TrialConfig
from hpo.training import devices
from hpo.training.devices import products_in, resolve_precision, resumed_precision, use_one_thread
from hpo.training.engine import EpochResult
from hpo.training.epoch import Run
from hpo.training.packed.compute.graphed_program import GraphedProgram
from hpo.training.packed.compute.mlp import MLPs
from hpo.training.packed.compute.static_mlp import StaticMLPs
from hpo.training.packed.layout.bucket import why_not_packed
from hpo.training.packed.scheduling import lane as lanes
from hpo.training.packed.scheduling.engine import PackedEngine
from hpo.training.solo import SoloEngine

use_one_thread()
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
BASE = TrialConfig("digits", MLP((8,), (0.1,)), Adam(1e-3), 64, 2, precision="tf32")


def allowed() -> bool:
    assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32
    return bool(torch.backends.cuda.matmul.allow_tf32)


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A CPU passes for a GPU with TF32."""
    monkeypatch.setattr(devices, "_has_tf32", lambda device: True)
    yield


def test_tf32_is_fp32_where_a_device_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(device: torch.device) -> tuple[str, str]:
        wanted = resolve_precision("tf32", CNN((8,), (0.0,)), (1, 8, 8), 32, device)
        assert wanted == resumed_precision("tf32", device)
        return wanted, resumed_precision("bf16", device)

    assert chosen(CPU) == ("fp32", "bf16")
    for capability, expected in (((7, 5), "fp32"), ((8, 0), "tf32"), ((9, 0), "tf32")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, of=capability: of)
        assert chosen(CUDA) == (expected, "bf16")
    assert resolve_precision("auto", CNN((8,), (0.0,)), (1, 8, 8), 32, CUDA) == "fp32"
    assert SoloEngine(CPU).admit(0, BASE).precision == "fp32"


def test_the_switch_is_off_again_whatever_happens() -> None:
    SoloEngine(CPU)
    with pytest.raises(RuntimeError), products_in("tf32"):
        assert allowed()
        raise RuntimeError
    assert not allowed()
    with products_in("fp32"):
        assert not allowed()


def test_a_run_trains_and_validates_in_tf32(everywhere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    plain = torch.nn.Linear.forward

    def forward(self: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
        seen.append(allowed())
        return plain(self, x)

    monkeypatch.setattr(torch.nn.Linear, "forward", forward)
    for precision, expected in (("tf32", {True}), ("fp32", {False})):
        seen.clear()
        config = dataclasses.replace(BASE, precision=precision)  # type: ignore[arg-type]
        run = Run(config, SoloEngine(CPU).data(config), CPU)
        assert isinstance(run.train_epoch(), EpochResult)
        assert set(seen) == expected and not allowed() and run.facts.precision == precision
        assert run.checkpoint().precision == precision


@pytest.mark.parametrize("graphed", [False, True])
def test_trials_in_tf32_have_lanes_of_their_own(
    everywhere: None, monkeypatch: pytest.MonkeyPatch, graphed: bool
) -> None:
    seen: list[tuple[str, bool]] = []
    if graphed:
        monkeypatch.setattr(lanes, "program_kind", lambda device: GraphedProgram)
    kind = StaticMLPs if graphed else MLPs

    def noted(name: str, plain: Callable[..., object]) -> Callable[..., object]:
        def method(*args: object) -> object:
            seen.append((name, allowed()))
            return plain(*args)

        return method

    for name in ("compute_gradients", "evaluate"):
        monkeypatch.setattr(kind, name, noted(name, getattr(kind, name)))
    engine = PackedEngine(CPU)
    assert why_not_packed(BASE, "tf32") is None
    for key, precision in enumerate(("tf32", "fp32", "tf32")):
        facts = engine.admit(key, dataclasses.replace(BASE, precision=precision, seed=key))  # type: ignore[arg-type]
        assert facts.precision == precision
    turns = []
    for _ in range(2):
        seen.clear()
        turns.append((set(engine.step()), set(seen)))
        assert not allowed()
    both = {"compute_gradients", "evaluate"}
    assert turns == [({0, 2}, {(name, True) for name in both}), ({1}, {(name, False) for name in both})]
    assert [engine.snapshot(key).precision for key in range(3)] == ["tf32", "fp32", "tf32"]
