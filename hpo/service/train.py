"""Training of an export to a model folder, and the one reading of the test split."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hpo.config import TrialConfig, metric_label
from hpo.errors import UsageError
from hpo.results import model_folder, retrain, test_evaluation
from hpo.results.export import Export, read_config
from hpo.results.model_folder import Classifier
from hpo.results.provenance import check_provenance, describe
from hpo.results.retrain import Trained
from hpo.service.data import OnDownload, fetch_data, ignore_download
from hpo.training.devices import choose_device, use_one_thread
from hpo.training.engine import EpochResult

__all__ = [
    "EpochUpdate",
    "TrainRequest",
    "TrainedModel",
    "TrainingPlan",
    "plan_training",
    "train_classifier",
    "train_model",
]


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What to train, how, and where the model folder goes."""

    source: str | Path | Export
    """A file that was exported, or an export."""
    output: str | Path = "model"
    """The folder to write."""
    seeds: int = 1
    """Trainings on different seeds; the best of them by the validation score is kept."""
    include_validation: bool = False
    """Whether to train on the validation rows too, as the last step."""
    epochs: int | None = None
    """Epochs to train for; None for those of the export."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


@dataclass(frozen=True)
class TrainingPlan:
    """A request that was read and checked: what will be trained."""

    request: TrainRequest
    config: TrialConfig
    provenance: dict[str, Any]
    device: torch.device
    changed: bool
    """Whether it differs from the export, so that the export's promise does not hold for it."""


@dataclass(frozen=True)
class EpochUpdate:
    """A training after one more epoch."""

    training: int
    """Number of the training, from 1."""
    trainings: int
    """Trainings in all."""
    epoch: int
    """Epochs completed."""
    epochs: int
    """Epochs of a whole training."""
    measure: str
    """What the score is of: "validation accuracy"; "training accuracy" where validation is trained on."""
    score: float


@dataclass(frozen=True)
class TrainedModel:
    """A model folder that was written."""

    folder: Path
    config: TrialConfig
    """The configuration of the training that was kept."""
    metrics: dict[str, Any]
    """Scores on the test rows and more, as in metrics.json."""


OnEpoch = Callable[[EpochUpdate], None]


def ignore_epoch(update: EpochUpdate) -> None:
    """Show nothing of a training's progress."""


def plan_training(request: TrainRequest) -> TrainingPlan:
    """Read what is to be trained and check the request.

    Raises: UsageError for numbers out of range, a missing file or an unknown device; DocumentError for a file that is
    no export.
    """
    for name, value in (("seeds", request.seeds), ("epochs", request.epochs)):
        if value is not None and value < 1:
            raise UsageError(f"{name}: must be at least 1, got {value}.")
    if isinstance(request.source, Export):
        config, provenance = request.source.config, request.source.provenance
    else:
        config, provenance = read_config(Path(request.source))
    use_one_thread()
    changed = request.include_validation or (request.epochs is not None and request.epochs != config.epochs)
    config = dataclasses.replace(config, epochs=request.epochs or config.epochs)
    return TrainingPlan(request, config, provenance, choose_device(request.device), changed)


def train_model(
    request: TrainRequest | TrainingPlan,
    *,
    on_download: OnDownload = ignore_download,
    on_epoch: OnEpoch = ignore_epoch,
) -> TrainedModel:
    """Train a configuration, then read the test split, once, and write the model folder.

    A training that was stopped or killed is resumed from what it left in the folder. Raises: what `plan_training`
    raises; DataError for data that is missing, damaged or not the export's; TrainingError for a training that
    diverges or a folder that cannot be written.
    """
    plan = request if isinstance(request, TrainingPlan) else plan_training(request)
    fetch_data(plan.config.data, on_download=on_download)
    parts = retrain.load_data(plan.config, plan.provenance.get("data_fingerprint"))
    folder, with_validation = Path(plan.request.output), plan.request.include_validation
    trained = []
    for number in range(plan.request.seeds):
        seed = plan.config.seed if number == 0 else retrain.further_seed(plan.config.seed, number)
        report = _reporter(plan, number + 1, on_epoch)
        trained.append(
            retrain.retrain(
                plan.config.with_seed(seed),
                parts,
                plan.device,
                folder,
                with_validation=with_validation,
                on_epoch=report,
            )
        )
    return _keep_best(plan, folder, trained)


def train_classifier(chosen: Export, *, folder: Path, device: str = "auto") -> Classifier:
    """Train an export on the training and validation rows, and return the network; no test is read, nothing is kept.

    A training that was interrupted is resumed from what it left in `folder`. Raises: UsageError for an unknown device,
    DataError for data that is missing, damaged or not the export's; TrainingError for a training that diverges.
    """
    use_one_thread()
    fetch_data(chosen.config.data)
    parts = retrain.load_data(chosen.config, chosen.provenance.get("data_fingerprint"))
    trained = retrain.retrain(chosen.config, parts, choose_device(device), folder, with_validation=True)
    return model_folder.classifier_of(trained)


def _reporter(plan: TrainingPlan, number: int, on_epoch: OnEpoch) -> Callable[[EpochResult], None]:
    config, epochs = plan.config, 0

    def report(result: EpochResult) -> None:
        nonlocal epochs
        epochs += 1
        if plan.request.include_validation:
            measure, score = "training accuracy", result.train_accuracy
        else:
            measure, score = metric_label(config.metric), result.score(config.metric)
        on_epoch(EpochUpdate(number, plan.request.seeds, epochs, config.epochs, measure, score))

    return report


def _keep_best(plan: TrainingPlan, folder: Path, trained: list[Trained]) -> TrainedModel:
    promise = None if plan.changed else check_provenance(plan.provenance, "provenance").promise
    kept, metrics = test_evaluation.evaluate_on_test(trained, promise)
    export = Export(kept.run.config, plan.provenance, describe(plan.provenance))
    model_folder.write_model_folder(folder, export, kept, metrics)
    return TrainedModel(folder, kept.run.config, metrics)
