"""The dashboard's summary of a study's parameters: what optuna-dashboard says, without looking at each trial again."""

import random
from collections import Counter

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.dashboard.parameter_summary import ParameterSummary


def a_trial(number: int, state: TrialState, distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    """A trial with these parameters; its number is an attribute, and odd ones have another that is a text."""
    params = {name: distribution.to_external_repr(1.0) for name, distribution in distributions.items()}
    trial = create_trial(
        state=state,
        params={name: each if not isinstance(each, float) else 5e-3 for name, each in params.items()},
        distributions=distributions,
        value=0.5 if state == TrialState.COMPLETE else None,
        user_attrs={"n": number} | ({"odd": "yes"} if number % 2 else {}),
        intermediate_values={1: 0.5} if state.is_finished() else {},
    )
    trial.number = number
    return trial


def ranges_of(searched: list[tuple[str, BaseDistribution]]) -> list[tuple[str, str]]:
    """Return ranges by name; the choices of a category have no order."""
    return sorted(
        (name, repr(sorted(map(str, each.choices)) if isinstance(each, CategoricalDistribution) else each))
        for name, each in searched
    )


def test_the_summary_of_parameters_is_optuna_dashboards_and_looks_at_each_trial_once() -> None:
    """Trials of different parameters end in any order, while pages are refreshed."""
    ranges: list[dict[str, BaseDistribution]] = [
        {"lr": FloatDistribution(1e-4, 1e-1, log=True), "depth": IntDistribution(1, 3)},
        {"lr": FloatDistribution(1e-5, 1e-2, log=True), "norm": CategoricalDistribution(["none", "batch"])},
        {"norm": CategoricalDistribution(["none", "layer"]), "depth": IntDistribution(0, 5)},
    ]
    chance, trials = random.Random(0), list[FrozenTrial]()
    ours, theirs = ParameterSummary(), ParameterSummary.__mro__[1]()
    looks = Counter[int]()
    plain = ours._update_user_attrs
    ours._update_user_attrs = lambda trial: (looks.update([trial.number]), plain(trial))
    for _ in range(40):
        for place, each in enumerate(trials):
            if each.state == TrialState.RUNNING and chance.random() < 0.5:
                state = chance.choice([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
                trials[place] = a_trial(place, state, each.distributions)
        trials += [
            a_trial(len(trials) + i, TrialState.RUNNING, chance.choice(ranges)) for i in range(chance.randrange(3))
        ]
        for summary in (ours, theirs):
            summary.update(trials)
        assert ranges_of(ours.union_search_space) == ranges_of(theirs.union_search_space)
        assert ranges_of(ours.intersection_search_space) == ranges_of(theirs.intersection_search_space)
        assert sorted(ours.union_user_attrs) == sorted(theirs.union_user_attrs)
        assert ours.has_intermediate_values == theirs.has_intermediate_values
    for place, each in enumerate(trials):
        if each.state == TrialState.RUNNING:
            trials[place] = a_trial(place, TrialState.COMPLETE, each.distributions)
    ours.update(trials)
    looks.clear()
    ours.update(trials)
    assert not looks and len(ours._known) == 3
