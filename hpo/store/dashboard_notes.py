"""A study's note, as optuna-dashboard keeps notes: Markdown in parts, among the study's system attributes."""

import sqlalchemy as sa

from hpo.store.database import schema
from hpo.store.database.connect import Store
from hpo.store.database.study_rows import load_attributes, write_attributes
from hpo.store.record import StudyAttributes

_PART_LENGTH = 2045
"""optuna_dashboard's own limit, for databases with short text columns."""


def write_note(store: Store, study_id: int, text: str) -> None:
    """Replace a study's note by a text; does nothing if it is the same. Raises: SQLAlchemyError."""
    parts = {str(i): text[i * _PART_LENGTH : (i + 1) * _PART_LENGTH] for i in range(-(-len(text) // _PART_LENGTH))}
    with store.read() as connection:
        attributes = load_attributes(connection, study_id)
    if attributes.note_parts == parts:
        return
    table = schema.study_system_attributes.c
    earlier = sa.and_(table.study_id == study_id, table.key.startswith(StudyAttributes.note_parts.prefix))
    with store.write() as connection:
        store.lock_study(connection, study_id)
        connection.execute(sa.delete(schema.study_system_attributes).where(earlier))
        entries = [StudyAttributes.note_parts.entry(name, part) for name, part in parts.items()]
        version = StudyAttributes.note_version.entry((attributes.note_version or 0) + 1)
        write_attributes(connection, study_id, version, *entries)
