"""Workers on a study: kept by a command, joined from elsewhere, looked at."""

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.options import Device, EngineOption, OwnCode, Storage, StudyName, complete_study, engine_name, out, talk

if TYPE_CHECKING:
    from hpo.store.database.connect import Store
    from hpo.store.studies import StudyRecord


def run_workers(
    store: "Store", study: "StudyRecord", devices: list[str], engine: str | None = None
) -> tuple[str, bool]:
    """Keep workers at a study until it is over; return why that failed, if it did, and whether the user stopped it."""
    from hpo.artifacts import log_folder
    from hpo.cli.view import View
    from hpo.runner.supervisor import Supervisor
    from hpo.runner.worker import stop_on_signals
    from hpo.store import queries

    study.space.check_code()
    with store.read() as connection:
        state = queries.study(connection, study.study_id)
    if state.over is not None:
        return "", False
    of = state.budget.trials if state.budget is not None else 0
    talk().print(f'study "{study.name}": {state.finished} of {of} trials done')
    supervisor = Supervisor(store, study, devices, log_folder(store.url, study.uid), engine=engine)
    supervisor.start()
    killed = False

    def kill() -> None:
        nonlocal killed
        killed = True

    stop = stop_on_signals(kill)
    with View(store, study, talk()) as view:
        while supervisor.running:
            supervisor.poll()
            if stop.is_set():
                view.say_once("stopping after the current epoch; Ctrl-C again to stop at once")
                supervisor.stop()
            if killed:
                supervisor.kill()
            for warning in supervisor.warnings:
                view.say(warning)
            supervisor.warnings.clear()
            view.update()
    return supervisor.failure, stop.is_set()


def watch(study: StudyName, storage: Storage = None) -> None:
    """Look on while a study is worked on, from any terminal; changes nothing. Ctrl-C ends."""
    from hpo.cli.tables import leaderboard
    from hpo.cli.view import View
    from hpo.store import queries, studies
    from hpo.store.database.connect import open_store
    from hpo.store.database.url import configured

    store = open_store(configured(storage))
    found = studies.load_study(store, study)
    with contextlib.suppress(KeyboardInterrupt), View(store, found, talk()) as view:
        while view.picture is None or view.picture.study.over is None:
            view.update()
    with store.read() as connection:
        state = queries.study(connection, found.study_id)
        out().print(leaderboard(connection, found.study_id, top=10))
    why = f"over: {state.over.reason}" if state.over else f"{state.finished} trials finished so far"
    talk().print(f"study {study}: {why}")


def worker(
    study: Annotated[str, typer.Option(help="The study to work on.", autocompletion=complete_study)],
    device: Device = "auto",
    engine: EngineOption = None,
    python: OwnCode = None,
    storage: Storage = None,
    supervised: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Join a study from this terminal or machine; many may."""
    import logging

    from hpo.runner.worker import stop_on_signals, stop_with_parent, train_study
    from hpo.store import studies
    from hpo.store.database.connect import open_store
    from hpo.store.database.url import configured

    named = engine_name(engine)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    stop = stop_on_signals(lambda: os._exit(130))
    if supervised:
        stop_with_parent(stop)
    store = open_store(configured(storage))
    found = studies.load_study(store, study)
    found.space.check_code()
    train_study(store, found, device, stop, os.environ.get("HPO_SUPERVISOR", ""), named)
