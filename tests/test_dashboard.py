"""The dashboard: shows what is there, quickly, and only to whom it is meant for."""

import base64
import io
import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.artifacts import FileSystemArtifactStore, upload_artifact

from hpo.artifacts import FolderFiles
from hpo.dashboard.credentials import Credentials, configured, hashed
from hpo.dashboard.guard import Guard, is_loopback
from hpo.dashboard.server import check_exposure, make_app
from hpo.dashboard.storage import FastStorage, dashboard_storage
from hpo.errors import UsageError
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.loop import Loop
from hpo.runner.session import Session
from hpo.store.database.connect import Store
from hpo.store.studies import StudyRecord
from hpo.training.simulated import SimulatedEngine
from tests.helpers.command import start
from tests.helpers.studies import MakeStudy
from tests.helpers.studies import url_of as url

Answer = tuple[str, dict[str, str], bytes]


def ask(app: Any, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> Answer:
    """Send a request to a WSGI application; return status, headers and body."""
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "HTTP_HOST": "localhost:8080",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": "application/json",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.url_scheme": "http",
        **{f"HTTP_{name.upper()}": value for name, value in headers.items()},
    }
    got: list[Any] = []
    content = b"".join(app(environ, lambda status, found, *_: got.extend((status, dict(found)))))
    return got[0], got[1], content


@pytest.fixture
def study(store: Store, make_study: MakeStudy, tmp_path: Path) -> StudyRecord:
    made = make_study(trials=5, pruner="successive_halving")
    with Session(store, made, {}) as session:
        Loop(session, SimulatedEngine(), CheckpointRetention(FolderFiles(tmp_path), made.recipe.checkpoints)).run()
    return made


def test_it_starts_on_an_empty_store_and_shows_what_comes(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    app = make_app(store.url, tmp_path / "artifacts")
    assert json.loads(ask(app, "/api/studies")[2])["study_summaries"] == []
    made = make_study("late", trials=2)
    with Session(store, made, {}) as session:
        Loop(session, SimulatedEngine(), CheckpointRetention(FolderFiles(tmp_path), made.recipe.checkpoints)).run()
    time.sleep(2.1)  # optuna-dashboard keeps its answers for two seconds
    [listed] = json.loads(ask(app, "/api/studies")[2])["study_summaries"]
    assert listed["study_name"] == "late"
    detail = json.loads(ask(app, f"/api/studies/{made.study_id}")[2])
    assert [t["state"] for t in detail["trials"]] == ["Complete", "Complete"]
    assert len(detail["trials"][0]["intermediate_values"]) == 6
    status, headers, page = ask(app, "/dashboard/")
    assert status == "200 OK" and b"<html" in page.lower()
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"


def test_fast_storage_loads_what_optunas_loads(store: Store, study: StudyRecord) -> None:
    theirs = optuna.storages.RDBStorage(url(store))
    ours = FastStorage(url(store), skip_table_creation=True)
    expected = theirs.get_all_trials(study.study_id)
    assert ours.get_all_trials(study.study_id) == expected
    states = (optuna.trial.TrialState.COMPLETE,)
    assert ours.get_all_trials(study.study_id, states=states) == theirs.get_all_trials(study.study_id, states=states)
    newest = expected[-2]._trial_id
    for included in (set(), {expected[0]._trial_id}, {expected[-1]._trial_id}):
        arguments = (study.study_id, None, included, newest)
        assert ours._get_trials(*arguments) == theirs._get_trials(*arguments)


def test_read_only_refuses_every_changing_request(store: Store, study: StudyRecord, tmp_path: Path) -> None:
    app = make_app(store.url, tmp_path / "artifacts", read_only=True)
    for method, path in [
        ("DELETE", f"/api/studies/{study.study_id}"),
        ("POST", "/api/studies"),
        ("POST", "/api/trials/1/tell"),
        ("PUT", f"/api/studies/{study.study_id}/note"),
        ("POST", "/incompatible-rdb-schema"),
        ("PATCH", "/api/studies"),
    ]:
        status, _, body = ask(app, path, method, b"{}")
        assert status == "403 Forbidden" and "--read-only" in json.loads(body)["reason"]
    assert ask(app, f"/api/studies/{study.study_id}")[0] == "200 OK"
    storage = dashboard_storage(store.url, read_only=True, threads=2)
    with pytest.raises((sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError)):
        storage.set_study_user_attr(study.study_id, "a", 1)  # the database would refuse too


def test_without_read_only_a_note_can_be_written(store: Store, study: StudyRecord, tmp_path: Path) -> None:
    app = make_app(store.url, tmp_path / "artifacts")
    known = json.loads(ask(app, f"/api/studies/{study.study_id}")[2])["note"]["version"]
    body = json.dumps({"body": "# mine", "version": known + 1}).encode()
    assert ask(app, f"/api/studies/{study.study_id}/note", "PUT", body)[0].startswith("2")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "", "localhost.evil.example", "[bad"])
def test_a_foreign_host_is_refused(host: str) -> None:
    status, _, body = ask(Guard(passes), "/api/studies", host=host)
    assert status == "403 Forbidden" and "unknown host" in json.loads(body)["reason"]


def passes(environ: Any, start: Any) -> list[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"through"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9", "[::1]:8080", "10.0.0.5", "board.lan", "LOCALHOST:1"])
def test_known_hosts_and_plain_addresses_are_answered(host: str) -> None:
    assert ask(Guard(passes, hosts=["board.lan"]), "/", host=host)[2] == b"through"


def test_a_page_of_another_origin_may_not_change_anything() -> None:
    guard = Guard(passes)
    assert ask(guard, "/x", "POST", origin="http://evil.example")[0] == "403 Forbidden"
    assert ask(guard, "/x", "POST", origin="http://localhost:8080")[0] == "200 OK"
    assert ask(guard, "/x", "GET", origin="http://evil.example")[0] == "200 OK"


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_only_the_right_user_and_password_get_in() -> None:
    guard = Guard(passes, Credentials([hashed("ann", "wörd:1"), "bob:plain"], "test"))
    assert ask(guard, "/")[0] == "401 Unauthorized"
    assert ask(guard, "/")[1]["WWW-Authenticate"].startswith("Basic realm=")
    for user, password, status in [
        ("ann", "wörd:1", "200 OK"),
        ("bob", "plain", "200 OK"),
        ("ann", "plain", "401 Unauthorized"),
        ("bob", "", "401 Unauthorized"),
        ("eve", "plain", "401 Unauthorized"),
        ("", "", "401 Unauthorized"),
    ]:
        for _ in range(2):  # the second time the answer comes from memory
            assert ask(guard, "/", authorization=basic(user, password))[0] == status
    for header in ("Basic", "Basic !!!", "Bearer x", "basic " + "A" * 5000):
        assert ask(guard, "/", authorization=header)[0] == "401 Unauthorized"


def test_passwords_are_kept_as_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = hashed("ann", "secret")
    assert "secret" not in line and line != hashed("ann", "secret")
    (tmp_path / "auth").write_text(f"{line}\n\n")
    found = configured(tmp_path / "auth")
    assert found is not None and found.allow(basic("ann", "secret"))
    monkeypatch.setenv("HPO_DASHBOARD_AUTH", "ann:other")
    found = configured(None)
    assert found is not None and found.allow(basic("ann", "other")) and not found.allow(basic("ann", "secret"))
    monkeypatch.delenv("HPO_DASHBOARD_AUTH")
    assert configured(None) is None


@pytest.mark.parametrize("text", ["secret", ":secret", "ann:", "ann:scrypt:zz:secret", "ann:scrypt:aa"])
def test_credentials_that_are_none_are_named_without_the_password(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_DASHBOARD_AUTH", text)
    with pytest.raises(UsageError, match="HPO_DASHBOARD_AUTH: ") as caught:
        configured(None)
    assert "secret" not in str(caught.value)


def test_no_network_sees_a_dashboard_without_a_password() -> None:
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost")
    check_exposure("127.0.0.1", None)
    check_exposure("0.0.0.0", Credentials(["a:b"], "test"))
    for host in ("0.0.0.0", "192.168.1.2", "::", "example.org"):
        with pytest.raises(UsageError, match=rf"--host {host} needs a user and a password, got none"):
            check_exposure(host, None)


def test_artifacts_cannot_run_on_the_dashboards_origin(store: Store, study: StudyRecord, tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    app = make_app(store.url, folder)
    loaded = optuna.load_study(study_name=study.name, storage=url(store))
    sent = FileSystemArtifactStore(folder)
    for name, kind, disposition in [
        ("evil.html", "text/html", "attachment"),
        ("evil.svg", "image/svg+xml", "attachment"),
        ("curve.png", "image/png", "inline"),
    ]:
        (tmp_path / name).write_bytes(b"<script>alert(1)</script>")
        key = upload_artifact(artifact_store=sent, file_path=str(tmp_path / name), study_or_trial=loaded, mimetype=kind)
        status, headers, _ = ask(app, f"/artifacts/{study.study_id}/{key}", origin="http://evil.example")
        assert status == "200 OK" and headers["Content-Type"].startswith(kind)
        assert headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Content-Disposition"] == disposition
        assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.slow
def test_the_command_serves_and_ends(store: Store, study: StudyRecord, tmp_path: Path) -> None:
    process = start("dashboard", "--storage", url(store), "--port", "0", folder=tmp_path)
    line = process.first_error_line()
    address = line.partition("is shown at ")[2].split("/dashboard")[0]
    assert address.startswith("http://127.0.0.1:"), line
    with urllib.request.urlopen(f"{address}/api/studies", timeout=20) as answer:
        assert json.loads(answer.read())["study_summaries"][0]["study_name"] == "s"
    foreign = urllib.request.Request(f"{address}/api/studies", headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(foreign, timeout=20)
    process.send_signal(2)
    assert process.wait(20) == 0
    assert "Traceback" not in process.stderr
