"""What becomes of a study: confirmation, export, retraining, use."""

import ast
import dataclasses
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import hpo
from hpo import data
from hpo.config import (
    CNN,
    MLP,
    SGD,
    AdamW,
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
from hpo.errors import DocumentError, HpoError, StudyError
from hpo.models import build_model, parameter_count
from hpo.ranges import RandomSuggester
from hpo.recipe import Budget, Fidelity, Pruner, StudyRecipe
from hpo.results import confirmation, export, formats, model_folder, predict, retrain, test_evaluation
from hpo.results.export import Export
from hpo.results.intervals import (
    Interval,
    anova_differs,
    dunnett_intervals,
    mean_interval,
    prediction_interval,
    proportion_interval,
)
from hpo.results.script import to_script
from hpo.space import load_space
from hpo.store import studies
from hpo.store.database.connect import Store
from hpo.store.studies import StudyRecord
from hpo.training.engine import EpochResult, Fault
from hpo.training.simulated import SimulatedEngine
from tests.conftest import small_space
from tests.test_loop import trials_of, work

MakeStudy = Callable[..., StudyRecord]
CPU = torch.device("cpu")


class NoisyEngine(SimulatedEngine):
    """Trainings whose score is what `top` says of the config, and luck that follows from the seed alone."""

    def __init__(self, top: Callable[[TrialConfig], float], spread: float = 0.01) -> None:
        super().__init__(capacity=4)
        self.top, self.spread = top, spread

    def step(self) -> dict[int, EpochResult | Fault]:
        outcomes = super().step()
        for key, outcome in outcomes.items():
            config = self.trials[key].config
            if isinstance(outcome, EpochResult):
                value = self.top(config) + random.Random(config.seed).gauss(0, self.spread)
                outcomes[key] = dataclasses.replace(outcome, validation_accuracy=value)
        return outcomes


BASELINE = {
    "name": "by hand",
    "params": {"mlp": {"depth": 1, "0": {"width": 8}}, "optimizer": {"name": "sgd", "lr": 0.001}},
}


def confirmed(
    store: Store, make_study: MakeStudy, folder: Path, engine: NoisyEngine, trials: int = 30, seeds: int = 5
) -> tuple[StudyRecord, confirmation.Confirmation]:
    study = make_study(trials=trials, space={"epochs": 2, "baselines": [BASELINE]})
    work(store, study, engine, folder)
    confirming = confirmation.prepare(store, study, 5, seeds)
    work(store, confirming, engine, folder)
    result = confirmation.evaluate(store, study)
    assert result is not None
    return study, result


def test_luck_is_told_from_merit(store: Store, make_study: MakeStudy, tmp_path: Path):
    """lr decides, by far more than chance: the winner is better than the baseline, and its luck is seen."""
    engine = NoisyEngine(lambda config: 0.9 - 0.05 * abs(math.log10(config.optimizer.lr) + 2))
    study, result = confirmed(store, make_study, tmp_path, engine)
    winner = result.winner
    assert result.certain and result.verdict.startswith("better than the baseline by 0.0")
    assert result.study == "s-confirm" and result.missing == 0
    assert len(result.candidates) == 6 and {len(c.values) for c in result.candidates} == {5}
    assert [c.interval.low for c in result.candidates] == sorted(c.interval.low for c in result.candidates)[::-1]
    assert winner.gap is not None and winner.gap.low > 0
    assert winner.mean == pytest.approx(engine.top(winner.config), abs=0.02)
    assert winner.searched - winner.luck == pytest.approx(winner.mean)
    # The best of thirty noisy scores is above what fresh seeds give: over all of the best, for one may be unlucky.
    assert sum(c.luck for c in result.candidates if c.baseline is None) > 0
    exported = export.winner(store, study)
    assert exported.provenance["trial"] == winner.number and exported.config.model == winner.config.model
    assert exported.chosen.startswith("the confirmed winner: better than the baseline")
    assert exported.provenance["promised_test_accuracy"][0] < winner.mean < 1


def test_a_null_space_has_no_winner(store: Store, make_study: MakeStudy, tmp_path: Path):
    """Hyperparameters that change nothing: the best of forty looks good, and is not."""
    study, result = confirmed(store, make_study, tmp_path, NoisyEngine(lambda config: 0.8), trials=40)
    assert not result.certain and ("no winner" in result.verdict or "nothing better" in result.verdict)
    assert max(c.searched for c in result.candidates) > 0.81
    assert export.winner(store, study).provenance["better_than_baseline"] is False


def test_more_seeds_add_to_what_is_there(store: Store, make_study: MakeStudy, tmp_path: Path):
    engine = NoisyEngine(lambda config: 0.8)
    study, before = confirmed(store, make_study, tmp_path, engine, trials=6, seeds=2)
    ran = len(engine.admitted)
    again = confirmation.prepare(store, study, 5, 2)
    work(store, again, engine, tmp_path)
    assert len(engine.admitted) == ran, "nothing was to be done"
    work(store, confirmation.prepare(store, study, 5, 4), engine, tmp_path)
    after = confirmation.evaluate(store, study)
    assert after is not None and {len(c.values) for c in after.candidates} == {4}
    values = {c.number: c.values[:2] for c in after.candidates}
    assert values == {c.number: c.values for c in before.candidates}


def test_a_training_that_fails_is_missing_and_draws_no_other(store: Store, make_study: MakeStudy, tmp_path: Path):
    engine = NoisyEngine(lambda config: 0.8)
    study = make_study(trials=4, space={"epochs": 2, "baselines": [BASELINE]})
    work(store, study, engine, tmp_path)
    confirming = confirmation.prepare(store, study, 2, 3)
    failing: list[int] = []

    def fault(config: TrialConfig, epoch: int) -> Fault | None:
        if epoch == 1 and (config.seed in failing or not failing):
            failing.append(config.seed)
            return Fault("error", "as planned")
        return None

    engine.fault = fault
    over = work(store, confirming, engine, tmp_path)
    assert over is not None and over.reason.startswith("all trials that were waiting have ended")
    result = confirmation.evaluate(store, study)
    assert result is not None and result.missing == 1
    assert sorted(len(c.values) for c in result.candidates) == [2, 3, 3]


def test_nothing_to_confirm_says_so(store: Store, make_study: MakeStudy, tmp_path: Path):
    study = make_study(trials=3)
    with pytest.raises(StudyError, match="has no complete trial yet"):
        confirmation.prepare(store, study, 5, 5)
    work(store, study, SimulatedEngine(), tmp_path)
    confirming = confirmation.prepare(store, study, 1, 2)
    with pytest.raises(StudyError, match="is itself a confirmation"):
        confirmation.prepare(store, confirming, 1, 2)
    assert confirmation.evaluate(store, study) is None


def test_intervals_are_those_of_the_books():
    # Student's t of 1..5: 3 ± 2.776 * 1.5811 / sqrt(5).
    found = mean_interval([1, 2, 3, 4, 5])
    assert (found.low, found.high) == (pytest.approx(1.0368, abs=1e-4), pytest.approx(4.9632, abs=1e-4))
    # Wilson, 81 of 263 (R. G. Newcombe, 1998, Stat. Med. 17, table I): 0.2553 to 0.3662.
    found = proportion_interval(81 / 263, 263)
    assert (found.low, found.high) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))
    # Dunnett's own example of three fabrics (1955): A above the control, 11 ± 16.
    control = [55, 47, 48]
    found = dunnett_intervals([[55, 64, 64], [55, 49, 52], [50, 44, 41]], control)[0]
    assert (found.low, found.high) == (pytest.approx(0, abs=1.5), pytest.approx(22, abs=1.5))
    assert mean_interval([0.5, 0.5]) == Interval(0.5, 0.5)
    assert dunnett_intervals([[0.5, 0.5]], [0.4, 0.4])[0].low == pytest.approx(0.1)


def test_a_promise_is_kept_as_often_as_it_says():
    """Simulated: five trainings on 400 rows promise a sixth, on 300 other rows; and the same without any spread."""
    chance = np.random.default_rng(0)
    for spread in (0.0, 0.01):
        kept = 0
        for _ in range(400):
            true = chance.normal(0.93, spread, size=6)
            shared = chance.binomial(400, 0.93) / 400 - 0.93  # the same validation rows for all five
            interval = prediction_interval((true[:5] + shared).tolist(), 400, 300)
            kept += chance.binomial(300, min(true[5], 1.0)) / 300 in interval
        assert kept / 400 >= 0.93


def test_equal_candidates_rarely_differ():
    chance = np.random.default_rng(0)
    wrong = sum(
        dunnett_intervals(list(chance.normal(0.9, 0.01, size=(5, 5))), list(chance.normal(0.9, 0.01, size=5)))[0].low
        > 0
        for _ in range(60)
    )
    assert wrong <= 5
    assert not anova_differs([[0.9, 0.91, 0.89], [0.9, 0.89, 0.91]]) and anova_differs(
        [[0.9, 0.91, 0.89], [0.8, 0.81, 0.79]]
    )


MLP_CONFIG = TrialConfig(
    data="digits",
    model=MLP(widths=(32, 16), dropout=(0.1, 0.0), norm="batch", activation="gelu"),
    optimizer=AdamW(lr=0.01, weight_decay=1e-3),
    batch_size=32,
    epochs=6,
    schedule=OneCycle(),
    seed=3,
)


def trained(config: TrialConfig, at: Path, **options: bool) -> tuple[retrain.Trained, dict[str, object]]:
    run = retrain.retrain(config, retrain.load_data(config, None), CPU, at, **options)
    return test_evaluation.evaluate_on_test([run], None)


@pytest.mark.parametrize("suffix", ["toml", "json", "yaml"])
def test_an_exported_file_reads_back(tmp_path: Path, suffix: str):
    path = tmp_path / f"best.{suffix}"
    provenance = {"study": "s", "trial": 3, "confirmed": False, "data_fingerprint": "f" * 64}
    path.write_text(export.FORMATS[suffix](Export(MLP_CONFIG, provenance, export.describe(provenance))))
    assert export.read_config(path) == (MLP_CONFIG, provenance)


def test_damaged_and_newer_files_are_refused(tmp_path: Path):
    path = tmp_path / "best.json"
    path.write_text("{")
    with pytest.raises(DocumentError, match=r"best\.json: must be JSON"):
        export.read_config(path)
    path.write_text(json.dumps({"config": MLP_CONFIG.to_dict() | {"format": 99}}))
    with pytest.raises(DocumentError, match="made by a newer hpo"):
        export.read_config(path)
    path.write_text("[]")
    with pytest.raises(DocumentError, match=r"a table \[config\] is required"):
        export.read_config(path)
    with pytest.raises(HpoError, match="must have fingerprint ffff"):
        retrain.load_data(MLP_CONFIG, "f" * 64)


def test_a_killed_training_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(retrain, "SAVE_SECONDS", 0.0)
    whole, _ = trained(MLP_CONFIG, tmp_path / "whole")

    class Killed(BaseException):
        pass

    def kill(result: EpochResult) -> None:
        if result.epoch == 4:
            raise Killed

    with pytest.raises(Killed):
        retrain.retrain(MLP_CONFIG, whole.parts, CPU, tmp_path / "cut", on_epoch=kill)
    seen: list[int] = []
    again = retrain.retrain(MLP_CONFIG, whole.parts, CPU, tmp_path / "cut", on_epoch=lambda r: seen.append(r.epoch))
    assert seen == [1, 2, 3, 4, 5, 6]
    for name, value in whole.run.model.state_dict().items():
        assert torch.equal(value, again.run.model.state_dict()[name])


def test_a_model_folder_is_enough(tmp_path: Path):
    kept, metrics = trained(MLP_CONFIG, tmp_path)
    model_folder.write_model_folder(tmp_path, Export(MLP_CONFIG, {}, "of a test"), kept, metrics)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "config.toml",
        "confusion_matrix.png",
        "learning_curve.png",
        "metrics.json",
        "model.safetensors",
        "model_card.md",
    ]
    assert metrics["test_accuracy"] > 0.9 and sum(map(sum, metrics["confusion"])) == 360
    rows = data.load_test(data.info("digits"))
    model = hpo.load(tmp_path)
    logits = model(torch.from_numpy(rows.x))
    assert not model.training and model.classes == tuple("0123456789")
    assert (logits.argmax(1).numpy() == rows.y).mean() == pytest.approx(metrics["test_accuracy"])
    np.testing.assert_allclose(logits.softmax(1).detach().numpy(), retrain.probabilities(kept, rows), atol=1e-5)

    np.savez(tmp_path / "rows.npz", x=rows.x[:5])
    flat = "\n".join([",".join(f"p{i}" for i in range(64)), *(",".join(map(str, x.ravel())) for x in rows.x[:5])])
    (tmp_path / "rows.csv").write_text(flat)
    found = list(predict.predict(model, [tmp_path / "rows.npz", tmp_path / "rows.csv"]))
    assert (
        [p.label for p in found[:5]] == [p.label for p in found[5:]] == [str(i) for i in logits[:5].argmax(1).tolist()]
    )
    assert all(sum(p.probabilities.values()) == pytest.approx(1, abs=1e-5) for p in found)

    for to in formats.SUFFIXES:
        path = tmp_path / f"model{formats.SUFFIXES[to]}"
        assert formats.export_model(model, to, path) < 1e-4 and path.stat().st_size > 1000

    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(DocumentError, match="must be the weights of MLP 32-16"):
        hpo.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DocumentError, match=r"must be a model folder, got one without model.safetensors"):
        hpo.load(tmp_path)


def test_training_on_validation_too_uses_every_row(tmp_path: Path):
    _, metrics = trained(dataclasses.replace(MLP_CONFIG, epochs=2), tmp_path, with_validation=True)
    assert metrics["trained_on_rows"] == 1437 and metrics["validation_accuracy"] is None
    assert set(metrics["curves"]) == {"train_accuracy", "train_loss"}  # type: ignore[arg-type]


def test_what_does_not_fit_the_network_is_refused(tmp_path: Path):
    kept, metrics = trained(dataclasses.replace(MLP_CONFIG, epochs=1), tmp_path)
    model_folder.write_model_folder(tmp_path, Export(MLP_CONFIG, {}, "of a test"), kept, metrics)
    model = hpo.load(tmp_path)
    from PIL import Image

    Image.new("RGB", (30, 20)).save(tmp_path / "big.png")
    (tmp_path / "not.png").write_text("hello")
    np.savez(tmp_path / "wrong.npz", x=np.zeros((3, 7)))
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    (tmp_path / "text.csv").write_text("a,b\nx,y\n")
    (tmp_path / "nan.csv").write_text("\n".join([",".join(f"p{i}" for i in range(64)), "," * 63]))
    for name, message in {
        "big.png": "must be 8x8 pixels, got 30x20. Use --resize to scale it.",
        "not.png": "cannot be decoded as an image",
        "wrong.npz": "must have the shape N x 1 x 8 x 8, got 3 x 7",
        "objects.npz": "cannot be read as npz without pickle",
        "text.csv": "must be a table of numbers with a header line",
        "nan.csv": "must hold finite numbers",
        "none.npz": "no such file",
        "model_card.md": "must be an image",
    }.items():
        with pytest.raises(HpoError, match=message):
            list(predict.predict(model, [tmp_path / name]))
    assert len(list(predict.predict(model, [tmp_path / "big.png"], resize=True))) == 1


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
    return [*found, dataclasses.replace(MLP_CONFIG, model=RESIDUAL_MLP), EVERYTHING]


def test_a_script_builds_the_same_network():
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
def test_a_script_has_the_same_learning_rates(schedule: Schedule):
    from hpo.training.schedules import lr_factor

    config = dataclasses.replace(MLP_CONFIG, schedule=schedule)
    namespace: dict[str, object] = {"__name__": "script"}
    exec(compile(to_script(config, {}), "script", "exec"), namespace)
    for step in range(100):
        losses = [1.0, 0.9, 0.95, 0.96, 0.97, 0.98, 0.99, 1.0, 1.01, 1.02][: step // 10]
        expected = 0.01 * lr_factor(schedule, step, 100, losses)
        assert namespace["learning_rate"](step, 100, losses) == pytest.approx(expected, rel=1e-9)  # type: ignore[operator]


STOPPED = dataclasses.replace(
    MLP_CONFIG, schedule=Cosine(), epochs=15, label_smoothing=0.1, clip_norm=5.0, patience=8, best_weights=True
)


@pytest.mark.parametrize(
    "config",
    [
        dataclasses.replace(STOPPED, optimizer=SGD(lr=0.1)),
        dataclasses.replace(STOPPED, optimizer=RMSprop(lr=1e-3, weight_decay=1e-4)),
        EVERYTHING,
    ],
)
def test_a_script_runs_where_hpo_is_not(tmp_path: Path, config: TrialConfig):
    path = tmp_path / "best.py"
    path.write_text(to_script(config, {}))
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
    assert float(done.stdout.rpartition("test accuracy ")[2]) > 0.9


def test_a_cnn_comes_back_too(tmp_path: Path):
    config = dataclasses.replace(MLP_CONFIG, model=CNN(channels=(8, 16), dropout=(0.0, 0.1), norm="batch"), epochs=4)
    kept, metrics = trained(config, tmp_path)
    model_folder.write_model_folder(tmp_path, Export(config, {}, "of a test"), kept, metrics)
    rows = data.load_test(data.info("digits"))
    logits = hpo.load(tmp_path)(torch.from_numpy(rows.x))
    assert (logits.argmax(1).numpy() == rows.y).mean() == pytest.approx(metrics["test_accuracy"], abs=0.003)


def fidelities(store: Store, study: StudyRecord) -> set[tuple[float, int | None]]:
    configs = [TrialConfig.from_dict(trial.user_attrs["config"], "trial") for trial in trials_of(store, study)]
    return {(config.data_fraction, config.image_size) for config in configs}


def test_a_search_on_less_is_confirmed_and_exported_on_everything(store: Store, tmp_path: Path):
    less = Fidelity(data_fraction=0.25, image_size=14)
    recipe = StudyRecipe(budget=Budget(trials=4), pruner=Pruner(name="none"), fidelity=less, objective="macro_f1")
    assert studies.create(store, "cheap", "small", small_space(epochs=2), recipe, "f" * 64)
    study = studies.load_study(store, "cheap")
    engine = NoisyEngine(lambda config: 0.8)
    work(store, study, engine, tmp_path)
    assert fidelities(store, study) == {(0.25, 14)}
    confirming = confirmation.prepare(store, study, 2, 2)
    work(store, confirming, engine, tmp_path)
    assert fidelities(store, confirming) == {(1.0, None)}
    exported = export.winner(store, study)
    assert (exported.config.data_fraction, exported.config.image_size) == (1.0, None)
    assert exported.provenance["searched_at"] == {"data_fraction": 0.25, "image_size": 14}
    result = confirmation.evaluate(store, study)
    assert result is not None and result.winner.promise is None, "the promise is one of accuracies"
    assert "promised_test_accuracy" not in exported.provenance
    assert "fidelity" not in export.to_toml(exported)
