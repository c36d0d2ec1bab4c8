"""A worker's session on a study: it claims trials, draws their configurations, and releases them."""

import contextlib
import time
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial
from sqlalchemy.engine import Connection

from hpo.config import TrialConfig
from hpo.optuna_compat import trial_id as id_of_trial
from hpo.runner.live_trials import LiveTrials
from hpo.runner.ranking import Ranking
from hpo.runner.store_link import StoreLink
from hpo.store.database import trial_rows
from hpo.store.database.connect import Store
from hpo.store.database.trial_rows import Changes, root_of
from hpo.store.leases import claims
from hpo.store.leases.claims import Claimed, NothingToClaim
from hpo.store.leases.stopping import StopReason
from hpo.store.record import State, TrialAttributes
from hpo.store.studies import StudyRecord
from hpo.strategy.study_cache import StudyCache
from hpo.strategy.study_search import StudySearch


@dataclass(frozen=True)
class Assignment:
    """A trial to run."""

    trial_id: int
    number: int
    root: int
    """The number under which the trial first began: its checkpoints are named by it."""
    config: TrialConfig
    resumed: bool
    """Whether it was trained before, by this or another worker."""


class Session:
    """One worker at work on one study. Use as a context; leaving releases the trials that it still has."""

    def __init__(
        self, store: Store, study: StudyRecord, description: dict[str, Any], grace: float = claims.GRACE_SECONDS
    ) -> None:
        """`description` tells others about this worker: host, process, device."""
        self.store, self.study = store, study
        self.link = StoreLink(store, study, description, grace)
        two_objectives = study.recipe.cost is not None
        # A grid is drawn by what is left of it, NSGA-II by whole generations, two objectives by their front.
        whole = two_objectives or study.recipe.sampler.name in ("grid", "nsga2")
        self.cache = StudyCache(study.study_id, study.name, self.link.put, two_objectives=two_objectives, whole=whole)
        self.search = StudySearch(self.cache, study.effective_space, study.recipe)
        self.trials = LiveTrials(study, self.cache, self.search)
        self.ranking = Ranking(self.cache)
        self._contexts = contextlib.ExitStack()
        self._refreshed = 0.0

    def __enter__(self) -> "Session":
        with contextlib.ExitStack() as contexts:
            contexts.enter_context(self.link)
            self.refresh(at_once=True)
            self._contexts = contexts.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._contexts.close()

    @property
    def worker_id(self) -> str:
        """The id of this worker, 32 hexadecimal digits."""
        return self.link.worker_id

    def refresh(self, *, at_once: bool = False) -> None:
        """Read what other workers have changed; unless `at_once`, not more often than `StoreLink.look_seconds`."""
        if at_once or time.monotonic() - self._refreshed >= self.link.look_seconds:
            self.link.read(self.cache.refresh)
            self._refreshed = time.monotonic()

    def claim(self, count: int) -> list[Assignment] | NothingToClaim | StopReason:
        """Claim up to `count` trials, draw the configs of new ones, and store them before they are trained.

        Raises: WorkerLost, StoreError.
        """
        study_id, held = self.study.study_id, self.trials.ids

        def attempt(connection: Connection) -> list[Claimed] | NothingToClaim | StopReason:
            return claims.claim(
                self.store,
                connection,
                study_id,
                self.worker_id,
                count=count,
                held=held,
                undrawn=self._undrawn,
                promising=self._promising,
            )

        claimed = self.link.transact(attempt)
        if isinstance(claimed, NothingToClaim | StopReason):
            return claimed
        self.refresh(at_once=True)
        known = [each.trial_id for each in claimed if not each.fresh]
        loaded = self.link.read(lambda connection: trial_rows.load_some(connection, known)) if known else []
        trials = {id_of_trial(trial): trial for trial in loaded}
        assignments = [
            self._assign(each, trials.get(each.trial_id) or trial_rows.empty(each.trial_id, each.number))
            for each in claimed
        ]
        self.link.flush()
        return assignments

    def _undrawn(self, connection: Connection) -> int | None:
        """Return how many configurations are left to draw; None where there is no end."""
        if self.search.is_endless:
            return None
        self.cache.refresh(connection)
        return self.search.undrawn()

    def _promising(self, connection: Connection, most: int) -> list[int]:
        """Return the ids of the pruned trials that promise most."""
        self.cache.refresh(connection)
        return [id_of_trial(trial) for trial in self.search.second_chances.ranked()[:most]]

    def _assign(self, claimed: Claimed, trial: FrozenTrial) -> Assignment:
        self.trials.ids.add(claimed.trial_id)
        self.cache.lease(trial)
        attributes = TrialAttributes.of(trial)
        resumed = attributes.config is not None
        if resumed:
            config = attributes.training_config(claimed.number)
        else:
            config = self.search.draw(claimed.trial_id, claimed.number)
            self.trials.note(claimed.trial_id, TrialAttributes.config.entry(config.to_dict()))
        return Assignment(claimed.trial_id, claimed.number, root_of(trial), config, resumed)

    def release(self, trial_id: int) -> None:
        """Release a trial, so that the worker that claims it next resumes it from its checkpoint."""
        self.trials.ids.discard(trial_id)
        self.link.put(Changes(states={trial_id: (State.WAITING, ())}))
        self.cache.release(trial_id)
