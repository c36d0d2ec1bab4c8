"""A study held in memory, for samplers and pruners.

Optuna's own storage asks the database several times for every suggestion, report and pruning decision. Here reading
costs nothing: the cache is refreshed when its owner says so, and changes are made in the cache and added to `Changes`
for the next transaction.

Hidden are trials that failed, were voided, were continued under another number or lie outside the space: they would
teach nothing, and successive halving would count their rungs twice. Of a pruned trial and its second chance only one is
shown.

Of a large study only a part is held (`hpo.strategy.history`), unless samplers need the whole.
"""

import copy
import threading
from collections.abc import Callable, Container, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

from hpo.optuna_compat import trial_id as id_of_trial
from hpo.store.attributes import Entry
from hpo.store.database import schema, trial_rows
from hpo.store.database.trial_rows import Changes
from hpo.store.record import State, TrialAttributes
from hpo.strategy import history


class StudyCache:
    """The trials of one study of one store. A trial in it is never changed in place: a changed copy replaces it,
    as in Optuna's in-memory storage, so that a list that was returned stays as it was.
    """

    def __init__(
        self,
        study_id: int,
        study_name: str,
        write: Callable[[Changes], None],
        *,
        two_objectives: bool = False,
        whole: bool = True,
    ) -> None:
        """`write` takes the changes that are to be written to the store. `whole` holds all trials of a large study."""
        self.whole = whole
        self.study_id, self.study_name, self.two_objectives = study_id, study_name, two_objectives
        self.sampler_attributes: dict[str, Any] = {}
        """What a sampler stores of the study; kept for one draw only, so that no draw depends on who drew before."""
        self._write = write
        self._draw: Changes | None = None
        """Changes of the draw in progress."""
        self._trials: dict[int, FrozenTrial] = {}
        self._leased: set[int] = set()
        self._newest = -1
        self._revision = -1
        self._lock = threading.RLock()

    def refresh(self, connection: Connection) -> None:
        """Read what other workers have changed since the last time."""
        revision = connection.execute(
            sa.select(schema.hpo_studies.c.revision).where(schema.hpo_studies.c.study_id == self.study_id)
        ).scalar()
        with self._lock:
            if revision is not None and revision != self._revision:
                # Finished trials have changed (one was voided): read them anew.
                self._leased = {i for i in self._leased if not self._trials[i].state.is_finished()}
                self._trials = {i: t for i, t in self._trials.items() if i in self._leased}
                self._newest, self._revision = -1, revision
            for trial in self._changed(connection):
                key = id_of_trial(trial)
                self._newest = max(self._newest, key)
                if key not in self._leased:
                    self._trials[key] = _with_divergence_ranked(trial)
            if not self.whole and history.newest_of(self._trials.values()) >= history.WHOLE:
                self._trials = {id_of_trial(t): t for t in history.kept(list(self._trials.values()))}
                self._leased &= self._trials.keys()

    def _changed(self, connection: Connection) -> list[FrozenTrial]:
        """Read the trials that are newer than those known, or may have changed; at first those that are kept."""
        if self._newest == -1 and not self.whole:
            return trial_rows.load_where(connection, history.is_kept(connection, self.study_id), user_attrs=False)
        others = [i for i, t in self._trials.items() if not t.state.is_finished() and i not in self._leased]
        return trial_rows.load_newer(connection, self.study_id, self._newest, others)

    def lease(self, trial: FrozenTrial) -> None:
        """Add a trial that this worker runs: from now on the cache is ahead of the store."""
        with self._lock:
            self._leased.add(id_of_trial(trial))
            self._trials[id_of_trial(trial)] = trial

    def release(self, trial_id: int) -> None:
        """Drop a trial that this worker no longer runs; the next refresh reads it from the store."""
        with self._lock:
            self._leased.discard(trial_id)
            self._trials.pop(trial_id, None)
            self._newest = min(self._newest, trial_id - 1)

    # A draw: its changes are written as a whole, or undone.

    def begin_draw(self) -> None:
        """Keep changes back until `commit_draw` or `undo_draw`."""
        self._draw, self.sampler_attributes = Changes(), {}

    def commit_draw(self) -> None:
        """Write the changes of the draw."""
        changes, self._draw = self._draw, None
        if changes is not None:
            self._write(changes)

    def undo_draw(self, before: FrozenTrial) -> None:
        """Drop the changes of the draw, and restore the trial as it was before."""
        self._draw = None
        with self._lock:
            self._trials[id_of_trial(before)] = before

    # Reading.

    def trial(self, trial_id: int) -> FrozenTrial:
        """Return one trial."""
        with self._lock:
            return self._trials[trial_id]

    def visible_trials(self, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """Return the trials from which samplers learn, by number.

        A second chance takes the place of the pruned trial once it has ended.
        """
        trials = [t for t in self.all_trials() if t.state != TrialState.FAIL]
        chances = [t for t in trials if revived_by(t) is not None]
        hidden = {revived_by(t) if t.state.is_finished() else t.number for t in chances}
        return [t for t in trials if t.number not in hidden and (states is None or t.state in states)]

    def judged_trials(self, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """Return the trials that pruning compares, by number: a second chance was judged when it was pruned.

        Of a large study they are the evenly spaced sample, in which the same share is better as among all.
        """
        trials = [t for t in self.all_trials() if t.state != TrialState.FAIL and revived_by(t) is None]
        if not self.whole:
            newest = history.newest_of(self.all_trials())
            trials = [t for t in trials if not t.state.is_finished() or history.is_sampled(t, newest)]
        return [t for t in trials if states is None or t.state in states]

    def infeasible_trials(self) -> list[FrozenTrial]:
        """Return the draws that broke a constraint, by number: samplers learn from them too."""
        return [t for t in self.all_trials() if is_infeasible(t)]

    def all_trials(self) -> list[FrozenTrial]:
        """Return all trials of the space by number, failed ones too."""
        with self._lock:
            return sorted((t for t in self._trials.values() if not _is_outside(t)), key=lambda t: t.number)

    # Changing.

    def note(self, trial_id: int, *entries: Entry) -> None:
        """Set attributes of a trial."""
        for entry in entries:
            self.set_attribute(trial_id, entry)

    def set_attribute(self, trial_id: int, entry: Entry) -> None:
        """Set an attribute of a trial."""
        field, trial = ("user_attrs" if entry.kind == "user" else "system_attrs"), self.trial(trial_id)
        changes = Changes()
        changes.note(trial_id, entry)
        self._change(trial_id, changes, **{field: getattr(trial, field) | {entry.key: entry.value}})

    def set_param(self, trial_id: int, name: str, internal_value: float, distribution: BaseDistribution) -> None:
        """Set a parameter of a trial, by its value as Optuna stores it."""
        trial, value = self.trial(trial_id), distribution.to_external_repr(internal_value)
        self._change(
            trial_id,
            Changes(params={(trial_id, name): trial_rows.param_change(internal_value, distribution)}),
            params=trial.params | {name: value},
            distributions=trial.distributions | {name: distribution},
        )

    def report(self, trial_id: int, epoch: int, value: float) -> None:
        """Report a trial's value after an epoch."""
        curve = self.trial(trial_id).intermediate_values | {epoch: value}
        self._change(trial_id, Changes(intermediate={(trial_id, epoch): value}), intermediate_values=curve)

    def set_curve(self, trial_id: int, values: dict[int, float]) -> None:
        """Replace all reports of a trial by a curve."""
        changes = Changes(intermediate={(trial_id, epoch): value for epoch, value in values.items()})
        self._change(trial_id, changes, intermediate_values=dict(values))

    def set_state(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> None:
        """Move a trial to a state, with its values if it has any."""
        fields: dict[str, Any] = {"state": state} | ({} if values is None else {"values": list(values)})
        self._change(trial_id, Changes(states={trial_id: (State(state.name), tuple(values or ()))}), **fields)
        with self._lock:
            self._trials[trial_id] = _with_divergence_ranked(self._trials[trial_id])

    def _change(self, trial_id: int, changes: Changes, **fields: Any) -> None:
        with self._lock:
            trial = copy.copy(self._trials[trial_id])
            for name, value in fields.items():
                setattr(trial, name, value)
            self._trials[trial_id] = trial
        if self._draw is not None:
            self._draw.merge(changes)
        else:
            self._write(changes)


def is_infeasible(trial: FrozenTrial) -> bool:
    """Say whether a trial broke a constraint and was not trained."""
    return trial.state == TrialState.FAIL and any(excess > 0 for excess in trial.constraints.values())


def is_unchecked(trial: FrozenTrial) -> bool:
    """Say whether a trial was claimed and is still to be checked against the constraints."""
    return trial.state == TrialState.RUNNING and not trial.constraints


def revived_by(trial: FrozenTrial) -> int | None:
    """Return the number of the pruned trial that this one gives a second chance; None if it does not."""
    number: int | None = trial.system_attrs.get(TrialAttributes.revives.key)
    return number


def _is_outside(trial: FrozenTrial) -> bool:
    return TrialAttributes.outside.key in trial.system_attrs


def _with_divergence_ranked(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial in the form that samplers expect if it diverged, else unchanged.

    TPE ranks pruned trials by the epoch they reached. One that diverged late is not better for it: it is shown
    as the worst of those that ended after their first epoch.
    """
    if not trial.intermediate_values or not TrialAttributes.of(trial).diverged:
        return trial
    shown = copy.copy(trial)
    shown.intermediate_values = {1: trial.intermediate_values[max(trial.intermediate_values)]}
    return shown
