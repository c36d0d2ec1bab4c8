"""Second chances: pruned trials that promise most are trained on, each as a new trial that names it.

A state that Optuna calls finished cannot be left again, so the pruned trial stays as it is. The new trial has its
configuration, seed and checkpoint, and is one of the study's budget like every other. It is added in the transaction
that claims it, under the study's lock: however many workers there are and die, none is revived twice.
"""

from sqlalchemy.engine import Connection

from hpo.errors import StudyError, UsageError
from hpo.recipe import Budget, StudyRecipe
from hpo.store.attributes import Entry
from hpo.store.database import trial_rows
from hpo.store.database.connect import Store
from hpo.store.leases import stopping
from hpo.store.record import TrialAttributes


def due(connection: Connection, study_id: int, budget: Budget, *, left: int, now: int, drawable: int) -> int:
    """Return how many second chances a claim is to give.

    They are due once no more of the budget is left than there are second chances to give, or where too little is left
    to draw. `left` trials of the budget are neither finished nor claimed, of which `now` are to be claimed;
    `drawable` of these can be drawn.
    """
    owed = budget.revive - stopping.count_revived(connection, study_id) if budget.revive else 0
    if owed <= 0:
        return 0
    return min(owed, now - min(drawable, max(0, left - owed)))


def add(store: Store, connection: Connection, study_id: int, pruned: list[int]) -> None:
    """Add second chances of pruned trials, by their ids, as trials that wait to be claimed."""
    for trial in trial_rows.load_some(connection, pruned) if pruned else []:
        attributes = TrialAttributes.of(trial)
        entries = [TrialAttributes.constraints.entry(*each) for each in attributes.constraints.items()]
        if attributes.cost is not None:
            entries.append(TrialAttributes.cost.entry(attributes.cost))
        entries += origin(trial.number, trial_rows.root_of(trial))
        trial_rows.add_waiting(store, connection, study_id, trial, entries)


def origin(revives: int, root: int) -> list[Entry]:
    """Return what a second chance says of the pruned trial with this number, which began under the number `root`."""
    return [TrialAttributes.revives.entry(revives), TrialAttributes.root.entry(root)]


def check_possible(connection: Connection, study_id: int, name: str, budget: Budget, finished: int) -> None:
    """Refuse more second chances than trials are left in a study's budget. Raises: StudyError."""
    owed, left = budget.revive - stopping.count_revived(connection, study_id), budget.trials - finished
    if owed > left:
        raise StudyError(
            f'Study "{name}": revive: {owed} more must fit in the budget, got {finished} of {budget.trials} trials '
            f"finished. Second chances are among them; add --trials {finished + owed}."
        )


def check_prunes(recipe: StudyRecipe, revive: int) -> None:
    """Refuse second chances where nothing is pruned. Raises: UsageError."""
    if revive and recipe.pruner.name == "none":
        raise UsageError('revive: needs a recipe that prunes trials, got pruner "none". Leave it out.')
