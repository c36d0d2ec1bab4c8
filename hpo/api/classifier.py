"""A search as a scikit-learn estimator."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, check_random_state, column_or_1d, validate_data

from hpo.api.inputs import check_labels, to_source
from hpo.api.search import search
from hpo.api.study import Study
from hpo.artifacts import data_folder
from hpo.errors import InputError
from hpo.store.database.url import configured

if TYPE_CHECKING:
    from hpo.config import Metric
    from hpo.recipe import EngineName, StudyRecipe
    from hpo.space import SearchSpace

FRESH_SEEDS = 5
"""Trainings of each candidate where `confirm=True` does not say how many."""


class SearchClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier that searches its own network: `fit` runs a study, then trains the winner on all rows.

    The rows given to `fit` are cut into training and validation rows by the space's split; none are kept back for a
    test: score the estimator on rows of your own, or by `cross_val_score`. The study lies in a store like that of
    `hpo.search`, under a name that follows from data, space, recipe and seed: a `fit` that was interrupted is resumed
    by the same `fit`, and one that has finished is not searched again.

    Parameters: `space` is a name of `hpo spaces list`, a path, a dict or a `SearchSpace`. `trials` is the study's
    budget of finished trials, `timeout` one of seconds, or a text such as "30m". `confirm` trains the best
    configurations again on fresh seeds and takes the winner of that: True for 5 seeds each, or their number, at least
    2. `objective` is the metric to maximize: accuracy, balanced_accuracy, macro_f1 or neg_log_loss; None for the
    space's. `recipe`, `study`, `storage`, `workers`, `device`, `engine` and `progress` are those of `hpo.search`.
    `random_state` is the study's seed; None for the recipe's, so that the default is deterministic too.

    Attributes after `fit`: `classes_`, the class labels [classes]; `n_features_in_`; `feature_names_in_` for a
    DataFrame; `study_`, the `hpo.Study`; `best_config_`, the configuration that was trained; `best_score_`, its value
    in the search; `model_`, the network, a `torch.nn.Module` with its preprocessing.
    """

    def __init__(
        self,
        space: "str | Path | dict[str, Any] | SearchSpace" = "ann_tabular",
        *,
        trials: int = 20,
        timeout: int | str | None = None,
        confirm: bool | int = False,
        objective: "Metric | None" = None,
        recipe: "str | Path | dict[str, Any] | StudyRecipe | None" = None,
        study: str | None = None,
        storage: str | None = None,
        workers: int | None = None,
        device: str = "auto",
        engine: "EngineName | None" = None,
        random_state: int | np.random.RandomState | None = None,
        progress: bool = False,
    ) -> None:
        self.space = space
        self.trials = trials
        self.timeout = timeout
        self.confirm = confirm
        self.objective = objective
        self.recipe = recipe
        self.study = study
        self.storage = storage
        self.workers = workers
        self.device = device
        self.engine = engine
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: Any, y: ArrayLike) -> "SearchClassifier":
        """Search on rows X and labels y, then train the winner on all of them.

        X is a DataFrame (texts and missing numbers allowed), an array [N, F], or images [N, H, W], [N, C, H, W] or
        [N, H, W, C]; y holds N class labels. Raises: ValueError, among them hpo.errors.InputError, for rows or labels
        that cannot be used; hpo.errors.HpoError if no trial completes. KeyboardInterrupt leaves a study that `fit`
        resumes.
        """
        rows = self._check_rows(X, reset=True)
        targets: NDArray[Any] = column_or_1d(y, warn=True)
        if len(rows) != len(targets):
            raise InputError(f"fit: X and y must have the same length, got {len(rows)} rows and {len(targets)} labels.")
        if targets.dtype == object:
            targets = check_labels(targets, "y")  # names a missing label; the next check does not
        check_classification_targets(targets)
        labels = check_labels(targets, "y")
        self.classes_, codes = np.unique(labels, return_inverse=True)
        self.study_ = self._search(rows, codes)
        self.best_score_ = self.study_.best.value
        self.model_, self.best_config_ = self.study_.train_on_all_rows(device=self.device)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability of each class: float64 [N, classes], in the order of `classes_`; rows sum to 1."""
        check_is_fitted(self, "model_")
        shares = self.model_.predict_proba(self._check_rows(X, reset=False))
        ordered = np.empty_like(shares)
        ordered[:, [int(name) for name in self.model_.classes]] = shares
        return ordered

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row: [N]."""
        shares = self.predict_proba(X)
        labels: NDArray[Any] = self.classes_[shares.argmax(1)]
        return labels

    def _check_rows(self, X: Any, *, reset: bool) -> Any:
        """Return rows as a DataFrame with text column names, or as an array of finite numbers."""
        if hasattr(X, "iloc"):
            validate_data(self, X, skip_check_array=True, reset=reset)
            frame = X.reset_index(drop=True)
            frame.columns = [str(name) for name in frame.columns]
            return frame
        rows = validate_data(self, X, reset=reset, allow_nd=True, ensure_min_samples=1)
        rows = rows if rows.dtype == np.uint8 else rows.astype(np.float32)
        names = None if reset else getattr(self, "feature_names_in_", None)
        if names is None:
            return rows
        import pandas as pd

        return pd.DataFrame(rows, columns=[str(name) for name in names])

    def _search(self, rows: Any, codes: NDArray[np.int64]) -> Study:
        """Run the study of these rows to its end, confirmation included."""
        folder = data_folder(configured(self.storage))
        source = to_source((rows, codes), None, test_fraction=0.0, folder=folder)
        seed = self.random_state
        if seed is not None and not isinstance(seed, int | np.integer):
            seed = int(check_random_state(seed).randint(2**31 - 1))
        study = search(
            self.space,
            study=self.study or _study_name(source.path, self.space, self.recipe, self.objective, seed),
            data=source,
            trials=self.trials,
            timeout=self.timeout,
            objective=self.objective,
            recipe=self.recipe,
            storage=self.storage,
            workers=self.workers,
            device=self.device,
            engine=self.engine,
            seed=None if seed is None else int(seed),
            progress=self.progress,
        )
        if self.confirm:
            seeds = FRESH_SEEDS if self.confirm is True else int(self.confirm)
            study.confirm(
                seeds=seeds, workers=self.workers, device=self.device, engine=self.engine, progress=self.progress
            )
        return study


def _study_name(data_path: str, space: Any, recipe: Any, objective: str | None, seed: Any) -> str:
    """Return a study's name that follows from what is searched: the same `fit` finds its study again."""
    documents = [part.model_dump(mode="json") if hasattr(part, "model_dump") else str(part) for part in (space, recipe)]
    text = json.dumps([Path(data_path).stem, *documents, objective, seed], sort_keys=True, default=str)
    return f"classifier-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
