"""A study's note, as optuna-dashboard keeps notes: Markdown in pieces, among the study's system attributes."""

import json

import sqlalchemy as sa

from hpo.store.database import schema
from hpo.store.database.connect import Store

_VERSION, _PIECE = "dashboard:note_ver", "dashboard:note_str:"
_PIECE_LENGTH = 2045
"""optuna_dashboard's own limit, for databases with short text columns."""


def write_note(store: Store, study_id: int, text: str) -> None:
    """Put a text in the place of a study's note; does nothing if it is the same. Raises: SQLAlchemyError."""
    pieces = [text[i : i + _PIECE_LENGTH] for i in range(0, len(text), _PIECE_LENGTH)]
    wanted = {f"{_PIECE}{i}": json.dumps(piece) for i, piece in enumerate(pieces)}
    table = schema.study_system_attributes
    notes = sa.and_(table.c.study_id == study_id, table.c.key.startswith("dashboard:note_"))
    with store.read() as connection:
        there = {
            row.key: row.value_json
            for row in connection.execute(sa.select(table.c.key, table.c.value_json).where(notes))
        }
    version = json.loads(there.pop(_VERSION, "0"))
    if there == wanted:
        return
    with store.write() as connection:
        store.lock_study(connection, study_id)
        connection.execute(sa.delete(table).where(notes))
        rows = wanted | {_VERSION: json.dumps(version + 1)}
        connection.execute(
            sa.insert(table), [{"study_id": study_id, "key": k, "value_json": v} for k, v in rows.items()]
        )
