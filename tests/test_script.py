"""The exported script: the same network, learning rates and results, without hpo."""

import ast
import copy
import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hpo import data
from hpo.config import (
    CNN,
    EMA,
    MLP,
    SGD,
    Augment,
    Constant,
    Cosine,
    Exponential,
    OneCycle,
    Plateau,
    RMSprop,
    Schedule,
    StepDecay,
    TrialConfig,
    WarmupCosine,
)
from hpo.errors import DocumentError
from hpo.models import build_model, parameter_count
from hpo.results.script import to_script
from hpo.space import load_space
from hpo.suggesters import RandomSuggester
from hpo.training.engine import EpochResult
from hpo.training.epoch import Run
from hpo.training.solo import SoloEngine
from tests.helpers.command import Process
from tests.helpers.retraining import CPU, MLP_CONFIG

RESIDUAL_MLP = MLP((32, 32, 16), (0.1, 0.0, 0.0), norm="layer", residual=True, init="orthogonal")


EVERYTHING = dataclasses.replace(
    MLP_CONFIG,
    model=CNN(
        (8, 16), (0.1, 0.0), convs=(1, 2), pool=("avg", "none"), norm="batch", residual=True, head_size=2, head_width=16
    ),
    augment=Augment(flip=0.1, shift=1, rotate=10.0, erase=0.1, jitter=0.1),
    class_weight="balanced",
    metric="macro_f1",
    best_weights=True,
    patience=10,
    image_size=10,
    data_fraction=0.8,
    epochs=12,
)


def sample_configs() -> list[TrialConfig]:
    found = [MLP_CONFIG]
    for name in ("ann_fashion", "cnn_fashion"):
        space = load_space(name)
        found += [space.draw(RandomSuggester(i), seed=i) for i in range(12)]
    averaged = [dataclasses.replace(config, average=EMA(0.3)) for config in (MLP_CONFIG, EVERYTHING)]
    return [*found, dataclasses.replace(MLP_CONFIG, model=RESIDUAL_MLP), EVERYTHING, *averaged]


def test_a_script_builds_the_same_network() -> None:
    """Layer by layer the same module, for drawn networks of both families, without a word of hpo's."""
    for config in sample_configs():
        text = to_script(config, {})
        info = data.info(config.data)
        assert not [
            n
            for n in ast.walk(ast.parse(text))
            if isinstance(n, ast.Import | ast.ImportFrom) and "hpo" in ast.unparse(n)
        ]
        namespace: dict[str, object] = {"__name__": "script"}
        exec(compile(text, "script", "exec"), namespace)
        net = namespace["Net"]()  # type: ignore[operator]
        shape = config.input_shape(info.input_shape)
        ours = build_model(config.model, shape, len(info.classes))
        assert parameter_count(net) == parameter_count(ours)
        weights = dict(zip(net.state_dict(), ours.state_dict().values(), strict=True))
        net.load_state_dict(weights)
        x = torch.randn(3, *shape)
        torch.testing.assert_close(net.eval()(x), ours.eval()(x))


@pytest.mark.parametrize(
    "provenance",
    [
        {"study": "s", "trial": '0"""\nraise SystemExit\n"""'},
        {"study": "s", "trial": -1},
        {"study": 3, "trial": 1},
        {"study": "s", "trial": 1, "promised_test_score": ["0.1", 0.2]},
        {"study": "s", "trial": 1, "promised_test_score": [0.1]},
    ],
)
def test_a_provenance_of_another_kind_is_refused(provenance: dict[str, Any]) -> None:
    with pytest.raises(DocumentError, match=r"^provenance: \w+"):
        to_script(MLP_CONFIG, provenance)


@pytest.mark.parametrize(
    "schedule",
    [
        Constant(),
        Cosine(floor=0.1),
        Cosine(),
        OneCycle(),
        StepDecay(),
        Exponential(),
        WarmupCosine(warmup=0.2),
        Plateau(patience=2),
    ],
)
def test_a_script_has_the_same_learning_rates(schedule: Schedule) -> None:
    from hpo.training.schedules import lr_factor

    config = dataclasses.replace(MLP_CONFIG, schedule=schedule)
    namespace: dict[str, object] = {"__name__": "script"}
    exec(compile(to_script(config, {}), "script", "exec"), namespace)
    for step in range(100):
        losses = [1.0, 0.9, 0.95, 0.96, 0.97, 0.98, 0.99, 1.0, 1.01, 1.02][: step // 10]
        expected = 0.01 * lr_factor(schedule, step, 100, losses)
        assert namespace["learning_rate"](step, 100, losses) == pytest.approx(expected, rel=1e-9)  # type: ignore[operator]


def test_a_script_averages_the_weights_as_hpo_does() -> None:
    """Its averages after each step of a training by hpo, batch norm's statistics included."""
    config = dataclasses.replace(MLP_CONFIG, average=EMA(0.4), precision="fp32")
    namespace: dict[str, Any] = {"__name__": "script"}
    exec(compile(to_script(config, {}), "script", "exec"), namespace)
    run = Run(config, SoloEngine(CPU).data(config), CPU)
    net = namespace["Net"]()
    averaged, update, taken = copy.deepcopy(net), run.update, 0

    def update_both() -> None:
        nonlocal taken
        update()
        net.load_state_dict(dict(zip(net.state_dict(), run.model.state_dict().values(), strict=True)))
        namespace["update_average"](averaged, net, taken, run.steps)
        taken += 1

    run.update = update_both  # type: ignore[method-assign]
    run.train_epoch()
    result = run.train_epoch()
    assert run.average is not None and taken == 2 * run.steps and isinstance(result, EpochResult)
    ours = run.model.state_dict() | run.average.tensors
    for mine, theirs in zip(ours.values(), averaged.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs)
    accuracy, loss = namespace["evaluate"](averaged, run.data.validation_x, run.data.validation_y)
    assert (accuracy, loss) == pytest.approx((result.validation_accuracy, result.validation_loss), rel=1e-4)
    calls = [node for node in ast.walk(ast.parse(to_script(config, {}))) if isinstance(node, ast.Call)]
    evaluated = [ast.unparse(call.args[0]) for call in calls if ast.unparse(call.func) == "evaluate"]
    assert evaluated == ["averaged", "averaged"], "what is validated, and what is tested"


STOPPED = dataclasses.replace(
    MLP_CONFIG, schedule=Cosine(), epochs=15, label_smoothing=0.1, clip_norm=5.0, patience=8, best_weights=True
)


@pytest.mark.parametrize(
    "config",
    [
        dataclasses.replace(STOPPED, optimizer=RMSprop(lr=1e-3, weight_decay=1e-4)),
        EVERYTHING,
        dataclasses.replace(STOPPED, average=EMA(0.5), schedule=Constant()),
    ],
)
@pytest.mark.slow
def test_a_script_runs_without_hpo(tmp_path: Path, config: TrialConfig) -> None:
    path, output = tmp_path / "best.py", tmp_path / "output"
    path.write_text(to_script(config, {}))
    process = Process(str(path), folder=tmp_path, module="tests.helpers.without_hpo", output=output)
    assert process.wait(240) == 0, output.read_text()
    assert accuracy_in(output.read_text()) > 0.9


@pytest.mark.slow
def test_a_script_runs_where_hpo_is_not(tmp_path: Path) -> None:
    path = tmp_path / "best.py"
    path.write_text(to_script(dataclasses.replace(STOPPED, optimizer=SGD(lr=0.1)), {}))
    # -I: neither the environment's paths nor the working folder; and an `hpo` that cannot be imported.
    hidden = f"import sys; sys.modules['hpo'] = None; sys.argv = ['{path}']; exec(open('{path}').read())"
    done = subprocess.run(
        [sys.executable, "-I", "-c", hidden],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=dict(os.environ),
        check=True,
    )
    assert accuracy_in(done.stdout) > 0.9


def accuracy_in(output: str) -> float:
    """Return the test accuracy that a script prints last."""
    return float(output.rpartition("test accuracy ")[2])
