"""Studies and trials changed: deleted, renamed, copied with their files; retried, voided, given another space."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpo import data
from hpo.artifacts import configured_root, copy_study_files, remove_study_files
from hpo.errors import HpoError, StoreError, UsageError
from hpo.space import load_space
from hpo.store import admin, queries, studies
from hpo.store.change_space import SpaceSet, change_space
from hpo.store.database.connect import Store
from hpo.store.database.url import shown

__all__ = [
    "CopiedStudy",
    "DeletedStudy",
    "FailureKind",
    "RetriedTrial",
    "SpaceSet",
    "copy_study",
    "count_trials",
    "delete_study",
    "rename_study",
    "retry_trials",
    "set_space",
    "void_trial",
]

FailureKind = Literal["error", "oom", "lost"]


@dataclass(frozen=True)
class DeletedStudy:
    """A study that was deleted."""

    name: str
    trials: int
    """Trials that were deleted with it."""
    files_left: str | None = None
    """Where its files still are, if they could not be deleted: those in S3 are not touched."""


@dataclass(frozen=True)
class CopiedStudy:
    """A copy of a study; all its trials were compared."""

    name: str
    """Name of the original."""
    copy: str
    """Name of the copy."""
    store: str
    """URL of the copy's store, without its password."""
    files_left: str | None = None
    """Where the original's files are, if they were not copied: those in S3 are not touched."""


@dataclass(frozen=True)
class RetriedTrial:
    """A failed trial that runs again under another number."""

    trial: int
    new: int


def count_trials(store: Store, name: str) -> int:
    """Return how many trials a study has. Raises: StudyError if there is none of this name."""
    with store.read() as connection:
        return sum(queries.study(connection, studies.id_of(connection, store, name)).counts.values())


def delete_study(store: Store, name: str) -> DeletedStudy:
    """Delete a study, its trials and its files.

    Raises: StudyError if there is none of this name, or if workers are at it; StoreError if the store's uid is none.
    """
    trials = count_trials(store, name)
    uid = admin.delete(store, name)
    if uid is None:
        return DeletedStudy(name, trials)
    root = configured_root(store.url)
    remove_study_files(store.url, uid)
    return DeletedStudy(name, trials, f"{root.rstrip('/')}/{uid}/" if "://" in root else None)


def rename_study(store: Store, name: str, new_name: str) -> None:
    """Give a study another name; its files keep their places.

    Raises: UsageError for a name that cannot be one, StudyError if it is in use, or if workers are at the study.
    """
    admin.rename(store, name, new_name)


def copy_study(source: Store, name: str, *, target: Store | None = None, new_name: str | None = None) -> CopiedStudy:
    """Copy a study and its files to another store, or under another name; compare all trials.

    The files are copied first: a copy that is in the store has its files, and one that was interrupted can be repeated.
    Raises: UsageError if neither a store nor a name is given, StudyError if the name is in use, HpoError if the files
    cannot be copied.
    """
    if target is None and new_name is None:
        raise UsageError("copy: another store or another name is required, got neither. Give one.")
    target, new_name = target or source, new_name or name
    begun, left = list[str](), list[str]()

    def copy_files(old_uid: str, uid: str) -> None:
        begun.append(uid)
        try:
            if not copy_study_files(source.url, old_uid, target.url, uid):
                left.append(configured_root(source.url))
        except (OSError, StoreError) as error:
            where = configured_root(target.url)
            raise HpoError(f"{where}: the study's files cannot be copied: {error}. Nothing was copied.") from error

    try:
        admin.copy(source, name, target, new_name, before_commit=copy_files)
    except BaseException:
        for uid in begun:
            remove_study_files(target.url, uid)
        raise
    return CopiedStudy(name, new_name, shown(target.url), left[0] if left else None)


def retry_trials(store: Store, name: str, *, kind: FailureKind | None = None) -> tuple[RetriedTrial, ...]:
    """Have failed trials run again, all or those of a kind, with the study's next run.

    Raises: StudyError if there is no such study.
    """
    return tuple(RetriedTrial(old, new) for old, new in admin.retry(store, name, kind))


def void_trial(store: Store, name: str, number: int, *, why: str) -> None:
    """Hide a bad trial from the sampler; its record stays, and another trial runs in its place.

    Raises: StudyError if there is no such trial, or if it is not finished.
    """
    admin.void(store, name, number, why)


def set_space(store: Store, name: str, space: str) -> SpaceSet:
    """Give a study at rest another space: a name of `hpo spaces list` or a path; return what became of its trials.

    Raises: UsageError, DocumentError for the space; StudyError if it cannot take the place of the study's.
    """
    checked = load_space(space, trust_code=True)
    if checked.data is not None:
        checked.check_inputs(data.info(checked.data).input_shape, space)
        if checked.constraints.limits and checked.baselines:
            from hpo.service.network_checks import check_baselines  # it needs torch, which takes seconds to import

            check_baselines(checked, space)
    return change_space(store, name, Path(space.removesuffix(".toml")).name, checked)
