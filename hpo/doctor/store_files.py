"""The files of a store's studies: damaged checkpoints, missing pictures, and files that belong to nobody."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hpo import files
from hpo.artifacts import dashboard_folder, local_root, study_folder
from hpo.errors import StoreError, TrainingError
from hpo.store.database import schema
from hpo.store.database.connect import Store
from hpo.store.record import TrialAttributes
from hpo.training import checkpoints

SET_ASIDE = "set-aside"
"""Folder of a study to which files are moved that cannot be used."""


@dataclass(frozen=True)
class FileFault:
    """Something that is wrong with a store's files."""

    text: str
    mending: str = ""
    """What mends it, in words; empty where nothing does."""
    mend: Callable[[], object] | None = None


@dataclass(frozen=True)
class _Study:
    study_id: int
    name: str
    uid: str
    numbers: frozenset[int]
    trial_ids: frozenset[int]
    at_rest: bool


def find_file_faults(store: Store) -> Iterator[FileFault]:
    """Yield what is wrong with the files of a store that has no faults itself. They are on this machine, not in S3."""
    with store.read() as connection:
        studies = [_study(connection, row.study_id, row.study_name, row.uid) for row in _rows(connection)]
    for study in studies:
        try:
            yield from _checkpoints(store, study)
            if study.at_rest:  # pictures are drawn after they were noted
                yield from _pictures(store, study)
        except (OSError, StoreError) as error:
            yield FileFault(f'study "{study.name}": {str(error).rstrip(".")}')
    yield from _foreign(store, {study.uid for study in studies})


def _rows(connection: Connection) -> list[sa.Row[tuple[int, str, str]]]:
    studies, ours = schema.studies, schema.hpo_studies
    joined = sa.select(studies.c.study_id, studies.c.study_name, ours.c.uid).join_from(
        studies, ours, studies.c.study_id == ours.c.study_id
    )
    return list(connection.execute(joined))


def _study(connection: Connection, study_id: int, name: str, uid: str) -> _Study:
    trials, workers = schema.trials.c, schema.hpo_workers.c
    rows = connection.execute(sa.select(trials.trial_id, trials.number).where(trials.study_id == study_id)).all()
    busy = connection.execute(sa.select(workers.worker_id).where(workers.study_id == study_id)).first()
    numbers, ids = frozenset(row.number for row in rows), frozenset(row.trial_id for row in rows)
    return _Study(study_id, name, uid, numbers, ids, busy is None)


def _checkpoints(store: Store, study: _Study) -> Iterator[FileFault]:
    """Yield checkpoints that cannot be read, and files that are none of a trial's."""
    root = study_folder(store.url, study.uid)
    folder = files.under(root, "checkpoints")
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith("."):  # one that is being written
            continue
        aside = partial(_set_aside, root, path)
        if path.is_symlink() or not path.is_file() or path.suffix != ".safetensors" or not _of_trial(path, study):
            text = f'study "{study.name}": {path} must be the checkpoint of one of its trials, got another file'
            yield FileFault(text, f"it is moved to {root / SET_ASIDE}", aside)
            continue
        try:
            checkpoints.from_bytes(files.read(path), str(path))
        except TrainingError as error:
            text = f'study "{study.name}", trial {path.stem}: {str(error).removesuffix(". Delete it.")}'
            yield FileFault(text, f"it is moved to {root / SET_ASIDE}; the trial would start from epoch 1", aside)


def _of_trial(path: Path, study: _Study) -> bool:
    return path.stem.isdecimal() and int(path.stem) in study.numbers


def _set_aside(root: Path, path: Path) -> None:
    target = files.under(root, f"{SET_ASIDE}/{path.name}")
    target.parent.mkdir(exist_ok=True)
    path.rename(target)


def _pictures(store: Store, study: _Study) -> Iterator[FileFault]:
    """Yield noted pictures that are not there, and pictures of trials that the study does not have."""
    folder = dashboard_folder(store.url)
    attributes = schema.trial_system_attributes.c
    prefix = TrialAttributes.artifacts.prefix
    noted = sa.and_(attributes.trial_id.in_(study.trial_ids), attributes.key.like(f"{prefix}%"))
    with store.read() as connection:
        keys = list(connection.execute(sa.select(attributes.key).where(noted)).scalars())
    missing = [key for key in keys if not _exists(folder, key.removeprefix(prefix))]
    if missing:
        text = f'study "{study.name}": the pictures of its trials must be in {folder}, got {len(missing)} that are not'
        yield FileFault(text, "they are no longer noted", partial(_forget, store, study, missing))
    for path in sorted(folder.glob(f"{study.uid}-*")):
        trial = re.fullmatch(r"[0-9a-f]{32}-([0-9a-f]+)-[0-9a-f]+", path.name)
        if trial is None or int(trial[1], 16) not in study.trial_ids:
            yield FileFault(
                f'study "{study.name}": {path} must be of one of its trials, got none of that id',
                "it is deleted",
                partial(path.unlink, missing_ok=True),
            )


def _exists(folder: Path, name: str) -> bool:
    try:
        return files.under(folder, name).is_file()
    except OSError:
        return False


def _forget(store: Store, study: _Study, keys: list[str]) -> None:
    table = schema.trial_system_attributes
    with store.write() as connection:
        for start in range(0, len(keys), 500):
            noted = sa.and_(table.c.trial_id.in_(study.trial_ids), table.c.key.in_(keys[start : start + 500]))
            connection.execute(sa.delete(table).where(noted))


def _foreign(store: Store, uids: set[str]) -> Iterator[FileFault]:
    """Yield folders and pictures of studies that this store does not have; another store's may lie there too."""
    root = local_root(store.url)
    names = {path.name for path in root.iterdir()} if root.is_dir() else set()
    try:
        pictures = dashboard_folder(store.url)
        names |= {path.name.partition("-")[0] for path in pictures.iterdir()} if pictures.is_dir() else set()
    except (OSError, StoreError) as error:
        yield FileFault(str(error).rstrip("."))
    for name in sorted(names - uids):
        if re.fullmatch("[0-9a-f]{32}", name):
            yield FileFault(f"{root}: {name} belongs to no study of this store")
