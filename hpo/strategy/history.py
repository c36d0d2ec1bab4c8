"""The part of a large study from which samplers and pruners learn, so that its draws cost no more than a small one's.

Kept are the best trials, the newest ones, those under way, second chances, and an evenly spaced sample: the trials
whose number is a multiple of a power of two that grows with the study. What is kept of a study follows from its trials
alone, and what is kept later is among what is kept now or newer: so all workers keep the same, whenever they joined.
"""

import heapq
from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from optuna.trial import FrozenTrial
from sqlalchemy.engine import Connection

from hpo.store.database import conditions, schema
from hpo.store.record import FINISHED, UNFINISHED, TrialAttributes

WHOLE = 2000
"""A study of up to so many trials is kept whole; the sample of a larger one has half as many to so many."""
BEST = 200
"""So many of the best finished trials are kept. TPE takes at most 25 for good, local search starts at 4."""
NEWEST = 200
"""So many of the newest numbers are kept. A study ends after 100 infeasible draws in a row."""


def stride(newest: int) -> int:
    """Return the power of two of which the numbers in the sample are multiples, given the newest number of a study."""
    return int(1 << (max(newest, 0) // WHOLE).bit_length())


def newest_of(trials: Iterable[FrozenTrial]) -> int:
    """Return the newest number among trials, -1 of none."""
    return max((trial.number for trial in trials), default=-1)


def is_sampled(trial: FrozenTrial, newest: int) -> bool:
    """Say whether a trial belongs to the evenly spaced sample, which is like the whole study."""
    return trial.number % stride(newest) == 0


def kept(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return those of a study's trials that are kept; they have one objective."""
    newest = newest_of(trials)
    if newest < WHOLE:
        return list(trials)
    ranked = (t for t in trials if t.state.is_finished() and t.values)
    best = {t.number for t in heapq.nsmallest(BEST, ranked, key=lambda t: (-t.values[0], t.number))}
    return [
        trial
        for trial in trials
        if is_sampled(trial, newest)
        or trial.number > newest - NEWEST
        or trial.number in best
        or not trial.state.is_finished()
        or TrialAttributes.revives.key in trial.system_attrs
    ]


def is_kept(connection: Connection, study_id: int) -> sa.ColumnElement[bool]:
    """Return the condition on `schema.trials` that a trial of a study is kept."""
    trials, values = schema.trials, schema.trial_values
    of_study = conditions.is_of(study_id)
    newest = connection.execute(sa.select(sa.func.max(trials.c.number)).where(of_study)).scalar()
    if newest is None or newest < WHOLE:
        return of_study
    best = (
        sa.select(values.c.trial_id)
        .join_from(values, trials, values.c.trial_id == trials.c.trial_id)
        .where(conditions.is_of(study_id, FINISHED), values.c.value_type == "FINITE")
        .order_by(values.c.value.desc(), trials.c.number)
        .limit(BEST)
    )
    ids = connection.execute(best).scalars().all()
    return sa.and_(
        of_study,
        sa.or_(
            trials.c.number % stride(newest) == 0,
            trials.c.number > newest - NEWEST,
            trials.c.trial_id.in_(ids),
            trials.c.state.in_(list(UNFINISHED)),
            conditions.has(TrialAttributes.revives),
        ),
    )
