"""`hpo studies`: what a store holds."""

from typing import Annotated

import typer

from hpo.cli.options import AsJson, Storage, StudyName, at_least_one, out, print_json, talk

app = typer.Typer(help="Studies: what is there, what they found.", no_args_is_help=True)


@app.command("list")
def list_(storage: Storage = None, as_json: AsJson = False) -> None:
    """List the studies of a store."""
    from rich.table import Table

    from hpo.cli.tables import study_json
    from hpo.store import queries
    from hpo.store.database.connect import open_store
    from hpo.store.database.url import configured, shown
    from hpo.store.record import State

    store = open_store(configured(storage))
    with store.read() as connection:
        found = queries.studies(connection)
    if as_json:
        print_json([study_json(study) for study in found])
        return
    if not found:
        talk().print(f"{shown(store.url)}: no study yet. Make one: hpo run --space ann_fashion")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("study", "space", "finished", "pruned", "failed", "running", "best", "state"):
        table.add_column(column, justify="left" if column in ("study", "space", "state") else "right")
    for study in found:
        counts, budget = study.counts, study.budget
        of = f" of {budget.trials}" if budget else ""
        state = "over" if study.over else ("at work" if study.workers else "waits")
        best = "" if study.best_value is None else f"{study.best_value:.4f}"
        numbers = (f"{study.finished}{of}", counts[State.PRUNED], counts[State.FAIL], counts[State.RUNNING])
        table.add_row(
            study.name, study.attributes.space_name or "", *map(str, numbers), best, state if budget else "not hpo's"
        )
    out().print(table)


@app.command()
def show(
    study: StudyName,
    top: Annotated[int, typer.Option(metavar="N", help="How many of the best trials.")] = 10,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Show a study: progress, the best trials, the baseline, failures."""
    from hpo.cli.tables import lanes, leaderboard, pace, study_json, trial_json
    from hpo.cli.view import sparkline
    from hpo.store import queries
    from hpo.store.database.connect import open_store
    from hpo.store.database.url import configured
    from hpo.store.record import State
    from hpo.store.studies import id_of

    at_least_one("--top", top)
    store = open_store(configured(storage))
    with store.read() as connection:
        study_id = id_of(connection, store, study)
        found = queries.study(connection, study_id)
        if as_json:
            best = [trial_json(trial) for trial in queries.best_trials(connection, study_id, top)]
            front = [trial.number for trial in queries.front(connection, study_id)]
            failures = queries.failure_kinds(connection, study_id)
            print_json(study_json(found) | {"failures": failures, "best_trials": best, "front": front})
            return
        counts, console = found.counts, out()
        of = f" of {found.budget.trials}" if found.budget else ""
        console.print(f"[bold]{found.name}[/bold]: {(found.attributes.space or {}).get('title') or 'a study'}")
        console.print(
            f"{found.finished}{of} trials finished, {counts[State.PRUNED]} of them pruned; "
            f"{counts[State.FAIL]} failed, {counts[State.RUNNING]} running, {counts[State.WAITING]} waiting"
        )
        if pace(found):
            console.print(", ".join(part for part in (pace(found), lanes(found)) if part))
        if found.infeasible:
            console.print(f"{found.infeasible} draws broke the constraints: not trained, not counted")
        if found.outside:
            console.print(f"{found.outside} of the finished trials lie outside the space that was set since (rank out)")
        kinds = queries.failure_kinds(connection, study_id)
        if kinds:
            console.print("faults: " + ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items())))
        if found.over is not None:
            console.print(f"over: {found.over.reason}")
        history = queries.best_so_far(connection, study_id)
        if history:
            step = max(1, -(-len(history) // 60))
            drawn = sparkline(history[::step] + history[-1:])
            console.print(f"best so far: {history[0]:.4f} [cyan]{drawn}[/cyan] {history[-1]:.4f}")
        console.print(leaderboard(connection, study_id, top))
