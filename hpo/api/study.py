"""`hpo.Study`: a study as an object, for notebooks and programs."""

import contextlib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from hpo.api.confirmation import Confirmation
from hpo.api.figures import StudyFigures
from hpo.api.progress import epochs_shown, observer_for
from hpo.errors import UsageError
from hpo.service import stores
from hpo.service.places import Plan, Wanted, planned
from hpo.service.search import RunOutcome, devices_for, run_in_process, run_workers
from hpo.store import studies
from hpo.store.database.url import complete
from hpo.store.studies import load_study

if TYPE_CHECKING:
    from hpo.config import TrialConfig
    from hpo.recipe import EngineName
    from hpo.results.audit import Audit
    from hpo.results.model_folder import Classifier
    from hpo.store.studies import StudyRecord

FORMATS = {".toml": "toml", ".json": "json", ".yaml": "yaml", ".yml": "yaml", ".py": "script"}
"""Formats of an export by the file's suffix."""


class Study(StudyFigures):
    """A study in a store: its trials, and what can be made of them.

    `hpo.search` and `hpo.open` return one. It reads the store anew at each access, so it also shows what other
    processes do. It can be pickled; the password of its store is left out, and is then taken from HPO_STORAGE.
    """

    def run(
        self,
        *,
        trials: int | None = None,
        timeout: int | str | timedelta | None = None,
        revive: int | None = None,
        workers: int | None = None,
        device: str = "auto",
        engine: "EngineName | None" = None,
        on: "str | Plan" = "local",
        cpus: float | None = None,
        gpus: float | None = None,
        on_options: Mapping[str, str] | None = None,
        progress: bool = True,
    ) -> "Study":
        """Resume the study until a limit of its budget is reached; returns the study.

        `trials`, `timeout` (seconds, a text such as "30m", or a timedelta) and `revive` (so many of the trials, the
        last of them, train on the pruned trials that promise most) change the budget, which counts all runs. `on`,
        `cpus`, `gpus` and `on_options` say where the workers run, as for `hpo.search`. Raises: UsageError for a place
        where they cannot; StudyError if no worker can run or no trial is left for second chances; KeyboardInterrupt
        after an interrupt, once all workers have released their trials.
        """
        limits = {
            "trials": trials,
            "timeout": int(timeout.total_seconds()) if isinstance(timeout, timedelta) else timeout,
            "revive": revive,
        }
        changes = {name: value for name, value in limits.items() if value is not None}
        with contextlib.ExitStack() as at_end:
            if isinstance(on, str):
                wanted = Wanted(on=on, workers=workers, device=device, cpus=cpus, gpus=gpus, options=on_options or {})
                plan = at_end.enter_context(planned(wanted, storage=complete(self._store.url)))
            else:
                plan = on
            studies.update_budget(self._store, self._record, **changes)  # without changes: a stopped one may resume
            self._work(self._record, device=device, engine=engine, progress=progress, plan=plan, workers=workers)
        return self

    def _work(
        self,
        record: "StudyRecord",
        *,
        workers: int | None,
        device: str,
        engine: "EngineName | None",
        progress: bool,
        plan: "Plan | None" = None,
    ) -> RunOutcome:
        """Train a study's trials. Raises: StudyError if no worker can, KeyboardInterrupt if it was interrupted."""
        if workers is not None and workers < 0:
            raise UsageError(f"workers: must be at least 0, got {workers}. Use 0 to train in this process.")
        observer = observer_for(self._store, record, show=progress)
        if workers == 0:
            outcome = run_in_process(self._store, record, device=device, engine=engine, observer=observer)
        else:
            devices = devices_for(device, workers) if plan is None else plan.devices
            launcher = None if plan is None else plan.launcher
            outcome = run_workers(
                self._store, record, devices=devices, engine=engine, observer=observer, launcher=launcher
            )
        outcome.raise_for_failure()
        if outcome.stopped:
            raise KeyboardInterrupt
        return outcome

    def confirm(
        self,
        *,
        top: int = 5,
        seeds: int = 5,
        same_cut: bool = False,
        workers: int | None = None,
        device: str = "auto",
        engine: "EngineName | None" = None,
        progress: bool = True,
    ) -> Confirmation:
        """Train the `top` best configurations and the baseline again, `seeds` times each, and judge them.

        Each time with another seed, validated on other rows, which are the same for all configurations; with `same_cut`
        always on the study's own. Trainings that were done before count, and those that are added are cut like them.
        Raises: UsageError for `top` < 1 or `seeds` < 2; StudyError if no trial is complete yet, or for `same_cut` where
        trainings on other cuts exist; KeyboardInterrupt after an interrupt: the same call resumes.
        """
        from hpo.service import confirm

        record = confirm.prepare_confirmation(self._store, self._record, top=top, seeds=seeds, same_cut=same_cut)
        outcome = self._work(record, workers=workers, device=device, engine=engine, progress=progress)
        run = confirm.ConfirmationRun(record.name, outcome, confirm.read_confirmation(self._store, self._record))
        run.raise_for_failure()
        assert run.result is not None
        return Confirmation(run.result)

    def audit(
        self,
        *,
        trials: int = 6,
        workers: int | None = None,
        device: str = "auto",
        engine: "EngineName | None" = None,
        progress: bool = True,
    ) -> "Audit":
        """Train pruned trials, drawn at random, to the end: did pruning miss anything?

        The result has `audited` (each with `value` at the end, `value_then`, `pruned_at`), `better` (how many beat the
        best), `share` (exact 95 % interval of that share of all pruned trials), `loss` (by how much the best was
        beaten) and `pruners`: what other pruners would have kept and saved, from the kept curves alone. Trainings that
        were done before count; `trials` = 0 trains nothing. Raises: UsageError for `trials` < 0; StudyError if nothing
        was pruned or no trial is complete; KeyboardInterrupt after an interrupt: the same call resumes.
        """
        from hpo.service import audit

        if trials == 0:
            return audit.begin_audit(self._store, self._record)
        record = audit.prepare_audit(self._store, self._record, trials=trials)
        outcome = self._work(record, workers=workers, device=device, engine=engine, progress=progress)
        run = audit.AuditRun(record.name, outcome, audit.read_audit(self._store, self._record))
        run.raise_for_failure()
        assert run.result is not None
        return run.result

    def export(
        self, path: str | Path | None = None, *, trial: int | None = None, format: str | None = None
    ) -> "TrialConfig":
        """Write the winner's configuration, complete, with its provenance; return the configuration.

        The winner is the confirmed one or, without a confirmation, the best trial; or the trial of the given number.
        The format follows from the suffix - .toml, .json, .yaml, or .py for a PyTorch script without hpo - unless
        `format` (toml, json, yaml or script) names it. Without a path nothing is written. Raises: StudyError if no
        trial is complete; UsageError for an unknown format; HpoError if the file cannot be written.
        """
        from hpo.service import export

        chosen = export.choose_winner(self._store, self._record, trial=trial)
        if path is not None:
            name = format or FORMATS.get(Path(path).suffix, "toml")
            kind = "script" if name == "script" else "config"
            export.write_export(chosen, path, kind=kind, format="toml" if kind == "script" else name)
        return chosen.config

    def train(
        self,
        folder: str | Path | None = None,
        *,
        trial: int | None = None,
        seeds: int = 1,
        epochs: int | None = None,
        include_validation: bool = False,
        device: str = "auto",
        progress: bool = True,
    ) -> "Classifier":
        """Train the winner once more, read the test split, once, and return the network.

        Its `metrics` hold the test scores. The model folder is `folder`, or one in the artifact folder. `trial`
        trains that trial instead of the winner; `seeds` > 1 trains so often and keeps the best by the validation
        score; `epochs` replaces the configuration's; `include_validation` trains on the validation rows too. A
        training that was interrupted is resumed. Raises: StudyError if no trial is complete; TrainingError if the
        training diverges or the folder cannot be written; DataError for missing or changed data.
        """
        from hpo.results.model_folder import load_model_folder
        from hpo.service import export, train

        chosen = export.choose_winner(self._store, self._record, trial=trial)
        request = train.TrainRequest(
            source=chosen,
            output=folder or self._folder / "model",
            seeds=seeds,
            epochs=epochs,
            include_validation=include_validation,
            device=device,
        )
        with epochs_shown(show=progress) as on_epoch:
            trained = train.train_model(request, on_epoch=on_epoch)
        return load_model_folder(trained.folder)

    def train_on_all_rows(self, *, device: str = "auto") -> "tuple[Classifier, TrialConfig]":
        """Train the winner on the training and validation rows, without a test; return the network and its
        configuration.

        Raises: StudyError if no trial is complete; TrainingError if the training diverges.
        """
        from hpo.service import export, train

        chosen = export.choose_winner(self._store, self._record)
        return train.train_classifier(chosen, folder=self._folder, device=device), chosen.config

    def report(self, path: str | Path = "report.html") -> Path:
        """Write the study as one web page that needs no network; return its path. Raises: HpoError."""
        from hpo.service import report

        return report.write_report(self._store, self._record, path).path

    def rename(self, new_name: str) -> None:
        """Give the study another name; its files keep their places.

        Raises: UsageError for a name that cannot be one; StudyError if it is in use, or if workers are at the study.
        """
        from hpo.service import admin

        admin.rename_study(self._store, self.name, new_name)
        self._record = load_study(self._store, new_name)

    def copy(self, new_name: str | None = None, *, storage: str | None = None) -> "Study":
        """Copy the study with its files, under another name or to another store; return the copy.

        Raises: UsageError if neither is given; StudyError if the name is in use; HpoError if the files cannot be
        copied.
        """
        from hpo.service import admin

        target = None if storage is None else stores.open_store(storage, create=True)
        copied = admin.copy_study(self._store, self.name, target=target, new_name=new_name)
        store = target or self._store
        return Study(store, load_study(store, copied.copy))

    def delete(self) -> None:
        """Delete the study, its trials and its files. Raises: StudyError if workers are at it."""
        from hpo.service import admin

        admin.delete_study(self._store, self.name)
