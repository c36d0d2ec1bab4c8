"""The cache of a study as a storage of Optuna's, for its samplers and pruners."""

import copy
from collections.abc import Container, Sequence
from typing import Any, NoReturn

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

from hpo.optuna_compat import FrozenStudy
from hpo.store.attributes import Entry
from hpo.strategy.study_cache import StudyCache


class CachedStorage(BaseStorage):
    """What Optuna reads and writes of one study. Studies and trials are created by the store, never here."""

    def __init__(self, cache: StudyCache) -> None:
        self.cache = cache

    @override
    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self.cache.trial(trial_id)

    @override
    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        trials = self.cache.visible_trials(states)
        return copy.deepcopy(trials) if deepcopy else trials

    @override
    def get_study_id_from_name(self, study_name: str) -> int:
        return self.cache.study_id

    @override
    def get_study_name_from_id(self, study_id: int) -> str:
        return self.cache.study_name

    @override
    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [StudyDirection.MAXIMIZE, *([StudyDirection.MINIMIZE] if self.cache.two_objectives else [])]

    @override
    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return {}

    @override
    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return dict(self.cache.sampler_attributes)

    @override
    def get_all_studies(self) -> list[FrozenStudy]:
        cache = self.cache
        directions = self.get_study_directions(cache.study_id)
        return [FrozenStudy(cache.study_name, None, {}, {}, cache.study_id, directions=directions)]

    @override
    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self.cache.sampler_attributes[key] = value

    @override
    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self.cache.set_param(trial_id, param_name, param_value_internal, distribution)

    @override
    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self.cache.report(trial_id, step, intermediate_value)

    @override
    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.cache.set_attribute(trial_id, Entry("user", key, value))

    @override
    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.cache.set_attribute(trial_id, Entry("system", key, value))

    @override
    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        self.cache.set_state(trial_id, state, values)
        return True

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError("studies and trials are created by the store, not by its cache")

    create_new_study = delete_study = create_new_trial = set_study_user_attr = _refuse
