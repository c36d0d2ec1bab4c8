"""Renaming in the dashboard by hpo's own rule.

optuna-dashboard makes a new study, copies the trials and deletes the old one: the study's budget and uid, and with them
its checkpoints, would be lost, and hpo could not run it any more.
"""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa

from hpo.dashboard.guard import Application, Environ, StartResponse
from hpo.errors import HpoError, UsageError
from hpo.store import admin
from hpo.store.database import schema
from hpo.store.database.connect import Store

_PATH = re.compile(r"/api/studies/(\d{1,18})/rename/?")


class Renaming:
    """A WSGI application around optuna-dashboard's that answers its requests to rename a study."""

    def __init__(self, inner: Application, store: Store) -> None:
        self.inner, self.store = inner, store

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Rename a study, or pass the request on."""
        path = _PATH.fullmatch(environ.get("PATH_INFO", ""))
        if path is None or environ["REQUEST_METHOD"] != "POST":
            return self.inner(environ, start_response)
        status, content = self._rename(int(path[1]), environ)
        body = json.dumps(content).encode()
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    def _rename(self, study_id: int, environ: Environ) -> tuple[str, dict[str, Any]]:
        try:
            new_name = json.loads(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))["study_name"]
        except (ValueError, KeyError, TypeError):
            return "400 Bad Request", {"reason": "study_name is required"}
        query = sa.select(schema.studies.c.study_name).where(schema.studies.c.study_id == study_id)
        try:
            with self.store.read() as connection:
                name = connection.execute(query).scalar()
            if name is None:
                return "404 Not Found", {"reason": f"study_id={study_id} is not found"}
            admin.rename(self.store, name, str(new_name))
        except UsageError as error:
            return "400 Bad Request", {"reason": str(error)}
        except HpoError as error:  # the name is taken, or workers are at the study
            return "409 Conflict", {"reason": str(error)}
        return "201 Created", self._summary(study_id, environ) | {"study_id": study_id, "study_name": new_name}

    def _summary(self, study_id: int, environ: Environ) -> dict[str, Any]:
        """Return what optuna-dashboard tells of a study: its page shows the answer in place of the old one."""
        asked = environ | {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/api/studies",
            "QUERY_STRING": "",
            "CONTENT_LENGTH": "0",
        }
        nothing: Callable[..., None] = lambda *_: None  # noqa: E731
        listed = json.loads(b"".join(self.inner(asked, nothing)))["study_summaries"]
        return next((each for each in listed if each["study_id"] == study_id), {})
