"""Attributes of studies, read and written."""

import json

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hpo.store.attributes import Entry
from hpo.store.database import schema
from hpo.store.record import StudyAttributes

_TABLES = {"user": schema.study_user_attributes, "system": schema.study_system_attributes}


def load_attributes(connection: Connection, study_id: int) -> StudyAttributes:
    """Read the attributes of a study."""
    values = []
    for table in _TABLES.values():
        query = sa.select(table.c.key, table.c.value_json).where(table.c.study_id == study_id)
        values.append({row.key: json.loads(row.value_json) for row in connection.execute(query)})
    return StudyAttributes(*values)


def write_attributes(connection: Connection, study_id: int, *entries: Entry) -> None:
    """Write attributes of a study, in the place of earlier values, within a transaction."""
    for entry in entries:
        table = _TABLES[entry.kind]
        earlier = sa.and_(table.c.study_id == study_id, table.c.key == entry.key)
        connection.execute(sa.delete(table).where(earlier))
        row = {"study_id": study_id, "key": entry.key, "value_json": json.dumps(entry.value)}
        connection.execute(sa.insert(table), row)
