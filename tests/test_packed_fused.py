"""Steps of a lane by kernels of Triton: what they compute, that they compile for GPUs, and how many they are."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from hpo.config import MLP, TrialConfig
from hpo.models import build_model
from hpo.training.devices import use_one_thread
from hpo.training.engine import DeviceUnusable
from hpo.training.packed.compute import fused, graphed_program
from hpo.training.packed.compute.fused import Way
from hpo.training.packed.compute.graphed_program import GraphedProgram
from hpo.training.packed.compute.program import member_of
from hpo.training.packed.layout.bucket import bucket_of
from hpo.training.packed.scheduling import lane as lanes
from tests.helpers.packing import CPU, FEATURES, admit, lane_of, mixed_mlps, random_rows, train
from tests.test_packed_cost import VIEWS, Calls, program_of
from tests.test_packed_refill import Recorder, held, narrower

triton = pytest.importorskip("triton", reason="Triton comes with torch on Linux alone")
JITFunction = triton.runtime.jit.JITFunction
ROOT = Path(__file__).parent.parent
GPU = torch.device("cuda", 0)
use_one_thread()


class Launches(list[tuple[Any, dict[str, Any]]]):
    """Kernels that would have been launched, with their arguments by name."""


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    """Lanes take their steps by Triton, but launches are noted only: there is no GPU."""
    noted = Launches()

    def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **constants: Any) -> None:
        noted.append((kernel, dict(zip(kernel.arg_names, args, strict=False)) | constants | {"grid": grid}))

    monkeypatch.setattr(JITFunction, "run", run)
    monkeypatch.setattr(graphed_program, "wanted", lambda device: True)
    monkeypatch.setattr(graphed_program, "agrees", lambda *_: True)
    monkeypatch.setattr(lanes, "program_kind", lambda device: GraphedProgram)
    return noted


def small_program(configs: Sequence[TrialConfig], device: torch.device = CPU) -> GraphedProgram:
    data = random_rows(FEATURES)
    tensors: dict[str, Any] = {
        name: value.to(device) for name, value in vars(data).items() if isinstance(value, torch.Tensor)
    }
    data = dataclasses.replace(data, **tensors)
    members = []
    for key, config in enumerate(configs):
        model = build_model(config.model, data.input_shape, data.classes, seed=config.seed)
        members.append(member_of(key, config, model, None, device))
    return GraphedProgram(members, data, data.train_x, bucket_of(configs[0], data))


# What they compute.


@pytest.fixture(scope="module")
def interpreted() -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.helpers.interpreted"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("lane", ["mixed", "plain"])
def test_in_fp64_the_kernels_compute_what_torchs_do(interpreted: dict[str, Any], lane: str) -> None:
    """Over four steps of mixed trials, some of which take others' places: every number that a step writes."""
    differences = interpreted[lane]
    names = ("logits", "weight", "momentum_buffer", "square_avg", "exp_avg_sq")
    for name in (*names, "running_mean", "running_var", "average.") if lane == "mixed" else names[:3]:
        assert any(name in key for key in differences), name
    assert {name: value for name, value in differences.items() if not value <= 1e-12} == {}
    assert interpreted["verdicts"] == ["", ""]


def test_where_triton_is_not_wanted_its_kernels_are_not_imported(interpreted: dict[str, Any]) -> None:
    assert not interpreted["imported"]


# That they compile.


def launched_kinds(launches: Launches) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Launches that differ in more than their tensors."""
    kinds = set()
    for kernel, given in launches:
        kind = (kernel, tuple((name, value) for name, value in given.items() if not isinstance(value, torch.Tensor)))
        if kind not in kinds:
            kinds.add(kind)
            yield kernel, given


def source_of(kernel: Any, given: dict[str, Any]) -> Any:
    """What a launch compiles: types, constants, and which numbers and addresses are multiples of 16."""
    names = {torch.float32: "*fp32", torch.int64: "*i64", torch.int32: "*i32", torch.uint8: "*u8"}
    signature: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    aligned: dict[tuple[int, ...], Any] = {}
    for place, (name, parameter) in enumerate(zip(kernel.arg_names, kernel.params, strict=True)):
        value = given[name]
        number = value.data_ptr() if isinstance(value, torch.Tensor) else value
        if parameter.is_constexpr or value is None or (type(value) is int and value == 1):
            signature[name], constants[place,] = "constexpr", value
            continue
        signature[name] = names[value.dtype] if isinstance(value, torch.Tensor) else "i32"
        if number % 16 == 0:
            aligned[place,] = [["tt.divisibility", 16]]
    return triton.compiler.ASTSource(kernel, signature, constants, aligned)


@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernels_compile_for_a_gpu(
    launches: Launches, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "nvidia" not in triton.backends.backends:
        pytest.skip("this Triton has no compiler for NVIDIA's GPUs")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    small_program(mixed_mlps(dropout=True)[:6]).step()
    compiled = set()
    for kernel, given in launched_kinds(launches):
        target = triton.backends.compiler.GPUTarget("cuda", capability, 32)
        options = {"num_warps": given.get("num_warps", 4)}
        binary = triton.compile(source_of(kernel, given), target=target, options=options).asm["cubin"]
        assert len(binary) > 1000
        compiled.add(kernel.__name__)
    assert compiled == {"gather", "layer_forward", "layer_backward", "loss", "squares", "update", "average"}


# How many they are.


def test_a_step_of_64_mixed_mlps_is_at_most_21_kernels(launches: Launches) -> None:
    program = program_of(64, random_rows(FEATURES))
    calls = Calls()
    with calls:
        program.step()
    assert len(launches) == 9
    assert calls.names.total() + len(launches) <= 21, calls.names


def test_clipping_and_averages_are_two_kernels_more(launches: Launches) -> None:
    program = small_program(mixed_mlps(dropout=True)[:6])
    assert program.clip is not None and program.averages is not None
    program.step()
    assert len(launches) == 11


class Noting(Recorder):  # type: ignore[no-untyped-call]
    """Notes launches among the calls of torch."""

    def note(self, launches: Launches) -> None:
        for kernel, given in launches:
            self.calls.append((kernel.__name__, [given["grid"], *map(self._told, given.values())]))


def recorded(program: GraphedProgram, launches: Launches) -> list[tuple[str, list[object]]]:
    launches.clear()
    program.counter.zero_()
    recorder = Noting()
    with recorder:
        program.step()
    recorder.note(launches)
    return recorder.calls


def test_a_step_is_the_same_kernels_on_the_same_memory_whatever_its_members(launches: Launches) -> None:
    """So a CUDA graph of it stays true; and nothing in it allocates or waits for the device."""
    configs = mixed_mlps(dropout=True)[:10]
    lane = lane_of(configs, random_rows(FEATURES))
    train(lane, 1)
    program = held(lane)
    first = recorded(program, launches)
    for key in (1, 2, 3, 7):
        lane.evict(key)
    for key in (1, 2, 7):
        admit(lane, 10 + key, narrower(configs[key], key))
    train(lane, 1)
    assert held(lane) is program and [member and member.key for member in program.members].count(None) == 7
    again = recorded(program, launches)
    assert len(first) == len(again) > 20
    for (name, one), (other_name, other) in zip(first, again, strict=True):
        assert (name, one) == (other_name, other)
    torchs = {name.removeprefix("aten.") for name, _ in first if name.startswith("aten.")}
    assert {name for name in torchs if not name.startswith(VIEWS)} == {"bmm.out", "add_.Tensor"}


# When they are used.


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> GraphedProgram:
    """A program that takes its steps by torch, on both ways."""
    monkeypatch.setattr(fused, "_verdicts", {})
    program = small_program(mixed_mlps(dropout=True)[:6])
    program.fused = Way(*program.plain)
    return program


def untrained() -> None:
    """Do nothing, as a kernel may that was compiled wrongly."""


def fails() -> None:
    raise RuntimeError("ptxas: no such file\nor directory")


def test_the_comparison_allows_rounding_alone() -> None:
    start = torch.full((3, 8), 0.1)
    plain = start + 1e-6
    assert fused._the_same(start, plain, torch.nextafter(plain, start + 1))
    assert not fused._the_same(start, plain, plain + 1e-7)
    other = plain.clone()
    other[1] = start[1]  # one slot of three
    assert not fused._the_same(start, plain, other)
    other[1] = torch.nan
    assert not fused._the_same(start, plain, other) and fused._the_same(start, other, other.clone())


@pytest.mark.parametrize(
    ("part", "does", "reason"),
    [
        ("compute_gradients", untrained, "they compute other gradients"),
        ("update_weights", untrained, "they update otherwise"),
        ("compute_gradients", fails, "ptxas: no such file"),
        ("update_weights", fails, "ptxas: no such file"),
    ],
)
def test_kernels_that_do_something_else_are_not_used(
    program: GraphedProgram, caplog: pytest.LogCaptureFixture, part: str, does: Any, reason: str
) -> None:
    assert program.fused is not None
    program.fused = program.fused._replace(**{part: does})
    expected = small_program(mixed_mlps(dropout=True)[:6])
    for one in (program, expected):
        one.train_epoch()
    assert program.fused is None
    told = f"lanes are trained without Triton, by torch's kernels: {reason}"
    assert [record.getMessage() for record in caplog.records] == [told]
    for one, other in zip(program.changing(), expected.changing(), strict=True):
        assert torch.equal(one, other)
    another = small_program(mixed_mlps(dropout=True)[:6])
    another.fused = Way(*another.plain)
    another.train_epoch()
    assert another.fused is None and len(caplog.records) == 1, "once per process and kind"


def test_kernels_that_do_the_same_are_used(program: GraphedProgram, caplog: pytest.LogCaptureFixture) -> None:
    program.train_epoch()
    assert program.fused is not None and not caplog.records


def test_a_kernel_that_leaves_the_device_unusable_ends_the_worker(
    program: GraphedProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert program.fused is not None
    program.fused = program.fused._replace(update_weights=fails)
    monkeypatch.setattr(fused, "is_usable", lambda device: False)
    with pytest.raises(DeviceUnusable, match="HPO_TRITON=0"):
        program.train_epoch()


def test_triton_is_for_gpus_where_it_is_installed_and_not_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    fused._is_installed.cache_clear()
    assert fused.wanted(GPU) and not fused.wanted(CPU)
    monkeypatch.setenv("HPO_TRITON", "0")
    assert not fused.wanted(GPU)
    monkeypatch.delenv("HPO_TRITON")
    monkeypatch.setitem(sys.modules, "triton", None)
    fused._is_installed.cache_clear()
    assert not fused.wanted(GPU)
    fused._is_installed.cache_clear()


def test_layer_norm_is_left_to_torch(launches: Launches) -> None:
    configs = []
    for config in mixed_mlps(dropout=True)[:4]:
        assert isinstance(config.model, MLP)
        configs.append(dataclasses.replace(config, model=dataclasses.replace(config.model, norm="layer")))
    assert small_program(configs).fused is None


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu_the_kernels_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_verdicts", {})
    program = small_program(mixed_mlps(dropout=True), GPU)
    program.train_epoch()
    assert program.fused is not None and list(fused._verdicts.values()) == [""]
