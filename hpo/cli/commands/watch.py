"""`hpo watch`: the live view of a study that others work on."""

import contextlib
import time

from hpo import service
from hpo.cli.console import err, out
from hpo.cli.options import Storage, StudyName
from hpo.cli.render.live_view import LiveView
from hpo.cli.render.studies import leaderboard_table

TICK_SECONDS = 0.2


def watch(study: StudyName, *, storage: Storage = None) -> None:
    """Watch a running study, from any terminal; read-only. Press Ctrl-C to quit."""
    opened = service.create.open_existing(study, storage)
    with contextlib.suppress(KeyboardInterrupt), LiveView(opened.store, opened.study, err()) as view:
        while view.progress is None or view.progress.study.over is None:
            view.update()
            time.sleep(TICK_SECONDS)
    board = service.studies.leaderboard(opened.store, opened.study.study_id)
    out().print(leaderboard_table(board))
    state = service.progress.read_progress(opened.store, opened.study).study
    why = f"over: {state.over.reason}" if state.over else f"{state.finished} trials finished so far"
    err().print(f"study {study}: {why}")
