"""The reports of a store's studies, served beside the dashboard, behind the same login.

`/reports` lists the studies, `/reports/NAME` is a study's report. A page of a study that is not over is loaded anew now
and then, and made anew only where something has changed. Its policy gives it an origin of its own: whatever a study's
texts could smuggle into it reaches nothing of the dashboard.
"""

import hashlib
import html
import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from hpo.dashboard.guard import Application, Environ, StartResponse
from hpo.errors import HpoError
from hpo.store import queries
from hpo.store.database import schema
from hpo.store.database.connect import Store
from hpo.store.database.outages import reason
from hpo.store.record import StudyAttributes
from hpo.store.views import StudyView

PATH = "/reports"
REFRESH_SECONDS = 15
MOST_KEPT = 8
"""Pages that are kept in memory: each has one to two megabytes."""
POLICY = (
    "sandbox allow-scripts allow-downloads; "
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
)
_INDEX_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = "body { font: 15px/1.6 system-ui, sans-serif; color: #0f172a; margin: 32px; } td { padding-right: 24px; }"

Render = Callable[[str], str]
"""Returns a study's report by the study's name. Raises: HpoError."""


@dataclass(frozen=True)
class _Page:
    tag: str
    body: bytes


class Reports:
    """A WSGI application around the dashboard's that answers the paths of reports."""

    def __init__(self, inner: Application, store: Store, render: Render) -> None:
        self.inner, self.store, self.render = inner, store, render
        self._pages: dict[str, _Page] = {}
        self._making = threading.Lock()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request for a report, or pass the request on."""
        path = environ.get("PATH_INFO", "")
        if path != PATH and not path.startswith(f"{PATH}/"):
            return self.inner(environ, start_response)
        headers = [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-cache")]
        name = unquote(path.removeprefix(PATH).strip("/"))
        try:
            status, more, body = self._report(name, environ) if name else self._index()
        except HpoError as error:
            status, more, body = "404 Not Found", [], _small(str(error))
        except SQLAlchemyError as error:
            status, more, body = "503 Service Unavailable", [], _small(f"the store does not answer: {reason(error)}")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            status, more, body = "405 Method Not Allowed", [], _small("a report can only be read")
        start_response(status, [*headers, *more, ("Content-Length", str(len(body)))])
        return [body if environ["REQUEST_METHOD"] == "GET" or status[0] != "2" else b""]

    def _report(self, name: str, environ: Environ) -> tuple[str, list[tuple[str, str]], bytes]:
        with self.store.read() as connection:
            tag, over = _state(connection, name)
        headers = [("ETag", f'"{tag}"'), ("Content-Security-Policy", POLICY)]
        if not over:
            headers.append(("Refresh", str(REFRESH_SECONDS)))
        if environ.get("HTTP_IF_NONE_MATCH") == f'"{tag}"':
            return "304 Not Modified", headers, b""
        with self._making:  # one at a time: a page takes a second or two
            page = self._pages.pop(name, None)
            if page is None or page.tag != tag:
                page = _Page(tag, self.render(name).encode())
            self._pages[name] = page
            while len(self._pages) > MOST_KEPT:
                del self._pages[next(iter(self._pages))]
        return "200 OK", headers, page.body

    def _index(self) -> tuple[str, list[tuple[str, str]], bytes]:
        with self.store.read() as connection:
            studies = [each for each in queries.studies(connection) if each.budget is not None]
        rows = "".join(_row(each) for each in studies if not each.attributes.is_linked)
        body = f"<!doctype html><meta charset=utf-8><title>Reports</title><style>{_STYLE}</style><h1>Reports</h1>"
        table = f"<table>{rows}</table>" if rows else "<p>There is no study yet.</p>"
        return "200 OK", [("Content-Security-Policy", _INDEX_POLICY)], f"{body}{table}".encode()


def _row(study: StudyView) -> str:
    best = "" if study.best_value is None else f"best {study.best_value:.4f}"
    link = f'<a href="{PATH}/{quote(study.name, safe="")}">{html.escape(study.name)}</a>'
    return f"<tr><td>{link}</td><td>{study.finished} trials</td><td>{best}</td></tr>"


def _small(text: str) -> bytes:
    return f"<!doctype html><meta charset=utf-8><p>{html.escape(text)}</p>".encode()


def _state(connection: Connection, name: str) -> tuple[str, bool]:
    """Return what changes whenever a study, its confirmation or its audit does, and whether the study is over."""
    studies, trials, attributes = schema.studies.c, schema.trials.c, schema.study_user_attributes.c
    study_id = connection.execute(sa.select(studies.study_id).where(studies.study_name == name)).scalar()
    uid = connection.execute(
        sa.select(schema.hpo_studies.c.uid).where(schema.hpo_studies.c.study_id == study_id)
    ).scalar()
    links = [StudyAttributes.confirms.key, StudyAttributes.audits.key]
    linked = sa.select(attributes.study_id).where(attributes.key.in_(links), attributes.value_json == json.dumps(uid))
    related = sa.or_(studies.study_id == study_id, studies.study_id.in_(linked))
    query = (
        sa.select(studies.study_name, trials.state, sa.func.count(), sa.func.max(trials.datetime_complete))
        .join_from(schema.studies, schema.trials, studies.study_id == trials.study_id, isouter=True)
        .where(related)
        .group_by(studies.study_name, trials.state)
        .order_by(studies.study_name, trials.state)
    )
    rows = connection.execute(query).all()
    ids = connection.execute(sa.select(studies.study_id).where(related)).scalars().all()
    workers = sa.select(sa.func.count()).where(schema.hpo_workers.c.study_id.in_(ids))
    at_work = int(connection.execute(workers).scalar_one())
    over = study_id is not None and queries.study(connection, study_id).over is not None and not at_work
    text = repr([tuple(map(str, row)) for row in rows]) + str(over)
    return hashlib.sha256(text.encode()).hexdigest()[:32], over
