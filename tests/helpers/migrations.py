"""Optuna's migrations, read once: Optuna itself reads its ten scripts each time that it opens a store."""

from alembic.script import ScriptDirectory
from optuna.storages._rdb.storage import _VersionManager


def read_migrations_once() -> None:
    """Have this process, and those that are forked from it, read them once."""
    read, known = _VersionManager._create_alembic_script, list[ScriptDirectory]()

    def kept(self: _VersionManager) -> ScriptDirectory:
        if not known:
            known.append(read(self))
        return known[0]

    _VersionManager._create_alembic_script = kept  # type: ignore[method-assign]
