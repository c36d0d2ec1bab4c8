"""A study held in memory, as a storage that Optuna's samplers and pruners can work on.

Optuna's own storage asks the database several times for every suggestion, report and pruning decision. Here
reading costs nothing: the mirror is refreshed when its owner says so, and what samplers and pruners write
(parameters, rungs, relative parameters) is put into the mirror and into `Changes` for the next transaction.

Trials that failed, were voided, went on under another number or lie outside the space are left out of sight: they
would teach nothing, and successive halving would count their rungs twice. Draws that broke a constraint are seen by
samplers alone.
"""

import copy
import json
import threading
from collections.abc import Callable, Container, Sequence
from typing import Any, NoReturn

import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

from hpo.optuna_compat import FrozenStudy
from hpo.optuna_compat import trial_id as id_of_trial
from hpo.store.attributes import Entry
from hpo.store.database import schema, trial_rows
from hpo.store.database.trial_rows import Changes
from hpo.store.record import State, TrialAttributes


class CachedStorage(BaseStorage):
    """One study of one store. Trials in it are never changed in place: a new one takes the old one's place,
    as in Optuna's in-memory storage, so that a list that was handed out stays what it was.
    """

    def __init__(
        self, study_id: int, study_name: str, record: Callable[[Changes], None], two_objectives: bool = False
    ) -> None:
        """`record` takes what is to be written to the store."""
        self._directions = [StudyDirection.MAXIMIZE, *([StudyDirection.MINIMIZE] if two_objectives else [])]
        self._scratch: dict[str, Any] = {}
        """What a sampler keeps of a study; only for the draw at hand, lest it depends on who drew before."""
        self.study_id = study_id
        self.study_name = study_name
        self._write = record
        self._held: Changes | None = None
        self._trials: dict[int, FrozenTrial] = {}
        self._own: set[int] = set()
        self._newest = -1
        self._revision = -1
        self._lock = threading.RLock()

    def refresh(self, connection: Connection) -> None:
        """Take in what other workers have done since the last time."""
        revision = connection.execute(
            sa.select(schema.hpo_studies.c.revision).where(schema.hpo_studies.c.study_id == self.study_id)
        ).scalar()
        with self._lock:
            if revision is not None and revision != self._revision:
                # Finished trials have changed (one was voided): read them anew.
                self._own = {i for i in self._own if not self._trials[i].state.is_finished()}
                self._trials = {i: t for i, t in self._trials.items() if i in self._own}
                self._newest, self._revision = -1, revision
            others = [i for i, t in self._trials.items() if not t.state.is_finished() and i not in self._own]
            fresh = trial_rows.load_newer(connection, self.study_id, self._newest, others)
            for trial in fresh:
                key = id_of_trial(trial)
                self._newest = max(self._newest, key)
                if key not in self._own:
                    self._trials[key] = _as_seen(trial)

    def adopt(self, trial: FrozenTrial) -> None:
        """Take a trial that this worker runs: from now on the mirror, not the store, knows it best."""
        with self._lock:
            self._own.add(id_of_trial(trial))
            self._trials[id_of_trial(trial)] = trial

    def disown(self, trial_id: int) -> None:
        """Forget a trial that this worker no longer runs; the next refresh shows it as the store has it."""
        with self._lock:
            self._own.discard(trial_id)
            self._trials.pop(trial_id, None)
            self._newest = min(self._newest, trial_id - 1)

    def hold(self) -> None:
        """Keep back what is written from now on, until `let_go`."""
        self._held, self._scratch = Changes(), {}

    def let_go(self, undo: FrozenTrial | None = None) -> None:
        """Write what was kept back; with `undo`, drop it instead and put the trial back as it was."""
        held, self._held = self._held, None
        if undo is not None:
            with self._lock:
                self._trials[id_of_trial(undo)] = undo
        elif held is not None:
            self._write(held)

    def _record(self, changes: Changes) -> None:
        if self._held is not None:
            self._held.merge(changes)
        else:
            self._write(changes)

    def _change(self, trial_id: int, **fields: Any) -> None:
        with self._lock:
            trial = copy.copy(self._trials[trial_id])
            for name, value in fields.items():
                setattr(trial, name, value)
            self._trials[trial_id] = trial

    # What Optuna reads.

    def get_trial(self, trial_id: int) -> FrozenTrial:
        with self._lock:
            return self._trials[trial_id]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        with self._lock:
            seen = [t for t in self._in_sight() if states is None or t.state in states]
        seen.sort(key=lambda t: t.number)
        return copy.deepcopy(seen) if deepcopy else seen

    def _in_sight(self) -> list[FrozenTrial]:
        """Return what may be learned from. While a trial is drawn, that is also what was found infeasible."""
        inside = [t for t in self._trials.values() if not _is_outside(t)]
        ended = [t for t in inside if t.state != TrialState.FAIL]
        if self._held is None:
            return ended
        worst = min((t.values[0] for t in ended if t.state == TrialState.COMPLETE), default=0.0)
        infeasible = [_as_infeasible(t, worst) for t in inside if is_infeasible(t)]
        return (ended if len(self._directions) == 1 else [_as_complete(t) for t in ended]) + infeasible

    def everything(self) -> list[FrozenTrial]:
        """Return all trials of the space, failed ones too, in the order of their numbers."""
        with self._lock:
            return sorted((t for t in self._trials.values() if not _is_outside(t)), key=lambda t: t.number)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self.study_id

    def get_study_name_from_id(self, study_id: int) -> str:
        return self.study_name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return list(self._directions)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return {}

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return dict(self._scratch)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._scratch[key] = value

    def get_all_studies(self) -> list[FrozenStudy]:
        return [FrozenStudy(self.study_name, None, {}, {}, self.study_id, directions=self._directions)]

    # What Optuna writes, and the worker through it.

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        trial = self.get_trial(trial_id)
        external = distribution.to_external_repr(param_value_internal)
        self._change(
            trial_id,
            params=trial.params | {param_name: external},
            distributions=trial.distributions | {param_name: distribution},
        )
        stored = trial_rows.param_change(param_value_internal, distribution)
        self._record(Changes(params={(trial_id, param_name): stored}))

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        reports = self.get_trial(trial_id).intermediate_values | {step: intermediate_value}
        self._change(trial_id, intermediate_values=reports)
        self._record(Changes(intermediate={(trial_id, step): intermediate_value}))

    def set_curve(self, trial_id: int, values: dict[int, float]) -> None:
        """Put a whole curve in the place of whatever was reported of a trial."""
        self._change(trial_id, intermediate_values=dict(values))
        self._record(Changes(intermediate={(trial_id, step): value for step, value in values.items()}))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._change(trial_id, user_attrs=self.get_trial(trial_id).user_attrs | {key: value})
        self._record(Changes(user_attrs={(trial_id, key): json.dumps(value)}))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._change(trial_id, system_attrs=self.get_trial(trial_id).system_attrs | {key: value})
        self._record(Changes(system_attrs={(trial_id, key): json.dumps(value)}))

    def note(self, trial_id: int, *entries: Entry) -> None:
        """Set attributes of a trial."""
        for entry in entries:
            set_value = self.set_trial_user_attr if entry.kind == "user" else self.set_trial_system_attr
            set_value(trial_id, entry.key, entry.value)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        changed: dict[str, Any] = {"state": state}
        if values is not None:
            changed["values"] = list(values)
        self._change(trial_id, **changed)
        with self._lock:
            self._trials[trial_id] = _as_seen(self._trials[trial_id])
        self._record(Changes(states={trial_id: (State(state.name), tuple(values or ()))}))
        return True

    # What belongs to the store and is never asked of a mirror.

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError("studies and trials are made by the store, not by its mirror")

    create_new_study = delete_study = create_new_trial = _refuse
    set_study_user_attr = _refuse


def is_infeasible(trial: FrozenTrial) -> bool:
    """Say whether a trial broke a constraint and was not trained."""
    return trial.state == TrialState.FAIL and any(excess > 0 for excess in trial.constraints.values())


def awaits_verdict(trial: FrozenTrial) -> bool:
    """Say whether a trial was claimed and is still to be checked against the constraints."""
    return trial.state == TrialState.RUNNING and not trial.constraints


def _as_infeasible(trial: FrozenTrial, value: float) -> FrozenTrial:
    """Return an infeasible draw as samplers know such: complete, with constraints broken.

    TPE puts it behind all others whatever its value, the Gaussian process wants one that does not stand out.
    """
    seen = copy.copy(trial)
    seen.state, seen.values = TrialState.COMPLETE, [value, *_cost(trial)]
    return seen


def _as_complete(trial: FrozenTrial) -> FrozenTrial:
    """Return a pruned trial as samplers for two objectives take it, who know no pruning: complete with its last value.

    That is less than it would have come to; but what it was pruned for does better and costs no more.
    """
    if trial.state != TrialState.PRUNED:
        return trial
    seen = copy.copy(trial)
    last = trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else 0.0
    seen.state, seen.values = TrialState.COMPLETE, [last, *_cost(trial)]
    return seen


def _cost(trial: FrozenTrial) -> list[float]:
    cost = TrialAttributes.of(trial).cost
    return [] if cost is None else [cost]


def _is_outside(trial: FrozenTrial) -> bool:
    return TrialAttributes.outside.key in trial.system_attrs


def _as_seen(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial as samplers shall see it.

    TPE ranks pruned trials by how far they came. One that diverged late did not do better for it: it is shown
    as the worst of those that ended after their first epoch.
    """
    if not TrialAttributes.of(trial).diverged or not trial.intermediate_values:
        return trial
    seen = copy.copy(trial)
    seen.intermediate_values = {1: trial.intermediate_values[max(trial.intermediate_values)]}
    return seen
