"""One worker process: joins a study and works on it until the study is over or the worker is asked to stop."""

import os
from typing import Any

from hpo.recipe import EngineName
from hpo.runner.launchers.contract import ASKED, PLACE
from hpo.runner.worker import stop_on_signals, stop_with_parent, train_study
from hpo.service.stores import open_store
from hpo.store import studies


def join_study(
    name: str,
    *,
    storage: str | None = None,
    device: str = "auto",
    engine: EngineName | None = None,
    supervised: bool = False,
    idle: float | None = None,
) -> int:
    """Work on a study in this process, until it is over or a signal asks to stop; the second signal ends the process.

    With `idle`, also until there was nothing to claim for so many seconds.

    A supervised worker also stops when its standard input closes. Returns the signal that ended the work before the
    study was over, else 0. Raises: HpoError.
    """
    stop = stop_on_signals(lambda: os._exit(130))
    if supervised:
        stop_with_parent(stop)
    store = open_store(storage)
    study = studies.load_study(store, name)
    study.space.check_code()
    over = train_study(store, study, device, stop, about=_about(), idle=idle, engine_name=engine)
    return stop.signal if over is None else 0


def _about() -> dict[str, Any]:
    """Return what the run that started this worker says about it."""
    about: dict[str, Any] = {"supervisor": os.environ.get("HPO_SUPERVISOR", "")}
    if os.environ.get(ASKED, "").isdecimal():
        about["asked"] = int(os.environ[ASKED])
    if place := os.environ.get(PLACE):
        about["place"] = place
    return about
