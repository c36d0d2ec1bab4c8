"""All that is wrong with a store's rows, and what mends each fault."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hpo.store.database import schema
from hpo.store.database.cells import broken_cells
from hpo.store.database.connect import Store
from hpo.store.record import FINISHED, State, TrialAttributes
from hpo.store.repair import mends
from hpo.store.repair.cell_mends import mend_of

MOST_LOST = 1000
"""Most trials of a study that are taken for lost where numbers are missing; a greater gap is a wrong number."""
_OF_TRIALS = (*schema.TRIAL_TABLES, schema.trial_heartbeats)
_OF_STUDIES = (schema.trials, *schema.STUDY_TABLES, schema.hpo_studies, schema.hpo_workers, schema.hpo_leases)


@dataclass(frozen=True)
class Fault:
    """Something that is wrong in a store."""

    text: str
    """*study, trial: rule, got value*."""
    mending: str = ""
    """What mends it, in words: "the trial fails"; empty where nothing does."""
    mend: Callable[[Store, Connection], None] | None = None
    """Mends it, within a transaction that writes."""


def find_faults(connection: Connection) -> list[Fault]:
    """Return all faults of a store's rows. Raises: SQLAlchemyError where a table cannot be read.

    Where cells are broken, only they are found: what rests on them is examined once they are mended.
    """
    if cells := list(broken_cells(connection)):
        return [Fault(str(cell), *mend_of(cell)) for cell in cells]
    faults = list(_without_owner(connection))
    studies, ours = schema.studies.c, schema.hpo_studies.c.study_id
    for study_id, name in connection.execute(sa.select(studies.study_id, studies.study_name)).all():
        faults += _of_numbers(connection, study_id, name)
        faults += _of_values(connection, study_id, name)
        if connection.execute(sa.select(ours).where(ours == study_id)).first() is not None:
            faults += _of_leases(connection, study_id, name)
            faults += _of_configs(connection, study_id, name)
    return faults


def _without_owner(connection: Connection) -> Iterator[Fault]:
    """Yield what belongs to a study or a trial that does not exist."""
    present = set(sa.inspect(connection).get_table_names())
    owners = ((_OF_STUDIES, schema.studies.c.study_id, "study"), (_OF_TRIALS, schema.trials.c.trial_id, "trial"))
    for tables, owner, what in owners:
        for table in (table for table in tables if table.name in present):
            stray = table.c[owner.name].not_in(sa.select(owner))
            if count := connection.execute(sa.select(sa.func.count()).select_from(table).where(stray)).scalar():
                text = f"{table.name}: rows must belong to a {what}, got {count} that belong to none"
                yield Fault(text, "they are deleted", partial(mends.delete_rows, table=table, where=stray))


def _of_numbers(connection: Connection, study_id: int, name: str) -> Iterator[Fault]:
    """Yield numbers that are not those of the trials' order, and numbers whose trials are lost.

    Ids grow with numbers, but for those of earlier repairs: the numbers of the longest rising sequence are taken for
    right, any other for wrong.
    """
    trials = schema.trials.c
    rows = sa.select(trials.trial_id, trials.number).where(trials.study_id == study_id).order_by(trials.trial_id)
    numbered = [(row.trial_id, row.number) for row in connection.execute(rows)]
    if sorted(number for _, number in numbered) == list(range(len(numbered))):
        return
    right = _rising([number if number < len(numbered) + MOST_LOST else -1 for _, number in numbered])
    for place in sorted(set(range(len(numbered))) - set(right)):
        trial_id, number = numbered[place]
        text = f'study "{name}", trial {number}: trials.number must rise with trial_id from 0 on, got {number}'
        yield Fault(
            text,
            "it gets the number that is missing there, or the next one",
            partial(mends.renumber, study_id=study_id, trial_id=trial_id, below=_next_number(numbered, right, place)),
        )
    if len(right) == len(numbered):
        lost = sorted(set(range(numbered[-1][1] + 1 if numbered else 0)) - {number for _, number in numbered})
        if lost:
            shown = ", ".join(map(str, lost[:5])) + (", ..." if len(lost) > 5 else "")
            text = f'study "{name}": trials.number must count from 0 without gaps, got none of {shown}'
            add = partial(mends.add_lost, study_id=study_id, numbers=lost)
            yield Fault(text, "failed trials take the numbers of the lost ones", add)


def _rising(numbers: Sequence[int]) -> list[int]:
    """Return the places of a longest strictly rising sequence of numbers from 0 on."""
    ends: list[int] = []
    places: list[int] = []
    before: list[int] = []
    for place, number in enumerate(numbers):
        length = bisect_left(ends, number)
        before.append(places[length - 1] if length else -1)
        if number < 0:
            continue
        ends[length : length + 1] = [number]
        places[length : length + 1] = [place]
    chain, place = list[int](), places[-1] if places else -1
    while place >= 0:
        chain.append(place)
        place = before[place]
    return chain[::-1]


def _next_number(numbered: Sequence[tuple[int, int]], right: Sequence[int], place: int) -> int | None:
    """Return the number of the next trial whose number is right; None if there is none."""
    return next((numbered[later][1] for later in right if later > place), None)


def _of_values(connection: Connection, study_id: int, name: str) -> Iterator[Fault]:
    """Yield complete trials without a value."""
    trials, values = schema.trials.c, schema.trial_values.c
    valued = sa.select(values.trial_id).where(values.objective == 0)
    complete = sa.and_(trials.study_id == study_id, trials.state == State.COMPLETE, trials.trial_id.not_in(valued))
    for trial_id, number in connection.execute(sa.select(trials.trial_id, trials.number).where(complete)).all():
        text = f'study "{name}", trial {number}: trial_values.value must be there for a complete trial, got none'
        yield Fault(text, mends.TRIAL_FAILS, partial(mends.fail_trial, trial_id=trial_id, why="it had no value"))


def _of_configs(connection: Connection, study_id: int, name: str) -> Iterator[Fault]:
    """Yield finished trials without a configuration: whatever ranks or exports them needs it."""
    trials, attributes = schema.trials.c, schema.trial_user_attributes.c
    configured = sa.select(attributes.trial_id).where(attributes.key == TrialAttributes.config.key)
    finished = sa.and_(trials.study_id == study_id, trials.state.in_(FINISHED), trials.trial_id.not_in(configured))
    for trial_id, number in connection.execute(sa.select(trials.trial_id, trials.number).where(finished)).all():
        text = f'study "{name}", trial {number}: a finished trial must have a configuration, got none'
        fail = partial(mends.fail_trial, trial_id=trial_id, why="it had no configuration")
        yield Fault(text, mends.TRIAL_FAILS, fail)


def _of_leases(connection: Connection, study_id: int, name: str) -> Iterator[Fault]:
    """Yield leases of trials that do not run, or of no worker, and running trials that nobody has leased."""
    trials, leases, workers = schema.trials.c, schema.hpo_leases.c, schema.hpo_workers.c
    known = sa.select(workers.worker_id).where(workers.study_id == study_id)
    running = sa.select(trials.trial_id).where(trials.study_id == study_id, trials.state == State.RUNNING)
    wrong = sa.and_(
        leases.study_id == study_id, sa.or_(leases.trial_id.not_in(running), leases.worker_id.not_in(known))
    )
    for (trial_id,) in connection.execute(sa.select(leases.trial_id).where(wrong)).all():
        text = f'study "{name}": hpo_leases: a lease must be of a running trial and a worker, got that of id {trial_id}'
        delete = partial(mends.delete_rows, table=schema.hpo_leases, where=leases.trial_id == trial_id)
        yield Fault(text, "it is deleted", delete)
    dangling = sa.and_(trials.trial_id.in_(running), trials.trial_id.not_in(sa.select(leases.trial_id)))
    for trial_id, number in connection.execute(sa.select(trials.trial_id, trials.number).where(dangling)).all():
        text = f'study "{name}", trial {number}: a running trial must have a worker, got none'
        wait = partial(mends.set_waiting, trial_id=trial_id)
        yield Fault(text, "it waits for a worker, which resumes it", wait)
