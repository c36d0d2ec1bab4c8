"""The dashboard: shows what is there, quickly, and only to whom it is meant for."""

import base64
import contextlib
import dataclasses
import gzip
import io
import json
import queue
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.artifacts import FileSystemArtifactStore, upload_artifact

from hpo.artifacts import FolderFiles
from hpo.dashboard.brake import FREE_TRIES, Brake
from hpo.dashboard.compression import LEAST_BYTES
from hpo.dashboard.credentials import Credentials, configured, hashed
from hpo.dashboard.guard import Guard, is_loopback
from hpo.dashboard.server import check_exposure, make_app, serve
from hpo.dashboard.storage import FastStorage, dashboard_storage
from hpo.errors import UsageError
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.loop import Loop
from hpo.runner.session import Session
from hpo.service.report import report_html
from hpo.store import studies
from hpo.store.database import schema
from hpo.store.database.connect import Store
from hpo.store.record import State
from hpo.store.studies import StudyRecord
from hpo.training.simulated import SimulatedEngine
from tests.helpers.command import start
from tests.helpers.studies import MakeStudy, on_sqlite
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
        **{name if name == "QUERY_STRING" else f"HTTP_{name.upper()}": value for name, value in headers.items()},
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


@pytest.mark.slow
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


def page_of(app: Any, study: StudyRecord, known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The trials that an open page knows after its next request, for which it asks as optuna-dashboard's does."""
    ended = next((i for i, each in enumerate(known) if each["state"] in ("Running", "Waiting")), len(known))
    _, _, body = ask(app, f"/api/studies/{study.study_id}", QUERY_STRING=f"after={ended}")
    return known[:ended] + json.loads(body)["trials"]  # type: ignore[no-any-return]


def test_a_large_study_reaches_a_page_in_parts(
    store: Store, study: StudyRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With each request more; all of them also where one of the first trials does not end."""
    monkeypatch.setattr("hpo.dashboard.paging.MOST_AT_ONCE", 2)
    app, shown, counts = make_app(store.url, tmp_path / "artifacts"), list[dict[str, Any]](), list[int]()
    for _ in range(4):
        shown = page_of(app, study, shown)
        counts.append(len(shown))
    assert counts == [2, 4, 5, 5]
    assert [each["number"] for each in shown] == list(range(5))
    with store.write() as connection:
        first = schema.trials.c.number == 0
        connection.execute(sa.update(schema.trials).where(first).values(state=State.RUNNING, datetime_complete=None))
    app, shown = make_app(store.url, tmp_path / "artifacts"), []
    for _ in range(2):
        shown = page_of(app, study, shown)
    assert [each["number"] for each in shown] == list(range(5))


def test_long_answers_are_compressed_for_those_who_take_it(store: Store, study: StudyRecord, tmp_path: Path) -> None:
    app, path = make_app(store.url, tmp_path / "artifacts"), f"/api/studies/{study.study_id}"
    _, headers, plain = ask(app, path)
    assert "Content-Encoding" not in headers and len(plain) > LEAST_BYTES
    status, headers, packed = ask(app, path, ACCEPT_ENCODING="deflate, gzip;q=0.8")
    assert status == "200 OK" and headers["Content-Encoding"] == "gzip" and len(packed) < len(plain) / 4
    assert int(headers["Content-Length"]) == len(packed) and json.loads(gzip.decompress(packed)) == json.loads(plain)
    assert "Content-Encoding" not in ask(app, path, ACCEPT_ENCODING="gzip;q=0")[1]
    assert "Content-Encoding" not in ask(app, "/api/studies", ACCEPT_ENCODING="gzip")[1]  # too short


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
        guard.brake = Brake()
        for _ in range(2):  # the second time the answer comes from memory
            assert ask(guard, "/", authorization=basic(user, password))[0] == status
    guard.brake = Brake()
    for header in ("Basic", "Basic !!!", "Bearer x", "basic " + "A" * 5000):
        assert ask(guard, "/", authorization=header)[0] == "401 Unauthorized"


def test_passwords_are_kept_as_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = hashed("ann", "secret")
    assert "secret" not in line and line != hashed("ann", "secret")
    (tmp_path / "auth").write_text(f"{line}\n\n")
    (tmp_path / "auth").chmod(0o600)
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


@on_sqlite
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


def test_an_empty_header_costs_no_hash() -> None:
    guard = Guard(passes, Credentials([hashed("ann", "right")], "test"))
    used = time.process_time()
    for _ in range(300):
        assert ask(guard, "/")[0] == "401 Unauthorized"
    assert time.process_time() - used < 3  # 300 hashes take more than ten times as long


def test_wrong_passwords_are_slowed_down_for_their_address_only() -> None:
    guard = Guard(passes, Credentials([hashed("ann", "right")], "test"))

    def login(password: str, address: str) -> Answer:
        environ = {"REMOTE_ADDR": address}
        return ask(lambda known, start: guard(known | environ, start), "/", authorization=basic("ann", password))

    assert login("right", "10.0.0.1")[0] == "200 OK"
    answers = [login(f"wrong{i}", "10.0.0.1") for i in range(8)]
    assert [status[:3] for status, _, _ in answers] == ["401"] * FREE_TRIES + ["429"] * (8 - FREE_TRIES)
    assert answers[-1][1]["Retry-After"] == "1" and b"too many wrong passwords: wait for 1 s" in answers[-1][2]
    assert login("right", "10.0.0.1")[0] == "200 OK", "who is logged in stays so"
    assert login("wrong", "10.0.0.2")[0][:3] == "401"
    networks = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]
    for _ in range(FREE_TRIES):
        guard.brake.note(networks[0], right=False)
    assert [guard.brake.pause_left(address) > 0 for address in networks] == [True, True, False]
    guard.brake.note(networks[1], right=True)
    assert guard.brake.pause_left(networks[0]) == 0


@pytest.mark.parametrize("header", ["Basic é", "Basic \xff\xfe", "Basic YW5uOtg=", "Basic ====", "é"])
def test_a_header_that_is_no_text_is_refused(header: str) -> None:
    assert ask(Guard(passes, Credentials(["ann:right"], "test")), "/", authorization=header)[0] == "401 Unauthorized"


def test_an_auth_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "auth"
    file.write_text(hashed("ann", "secret"))
    for mode in (0o644, 0o640, 0o604):
        file.chmod(mode)
        with pytest.raises(UsageError, match=rf"readable by its owner only, got mode {mode:o}: .* Run: chmod 600 "):
            configured(file)
    file.chmod(0o400)
    assert configured(file) is not None


def test_a_browser_that_names_another_site_may_not_change_anything() -> None:
    """A cross-site request need not have an Origin; browsers say so in Sec-Fetch-Site."""
    for site, status in [("cross-site", "403"), ("same-site", "403"), ("same-origin", "200"), ("none", "200")]:
        assert ask(Guard(passes), "/x", "POST", sec_fetch_site=site)[0][:3] == status
    assert ask(Guard(passes), "/x", "GET", sec_fetch_site="cross-site")[0] == "200 OK"


@contextlib.contextmanager
def served(app: Guard) -> Iterator[tuple[str, int]]:
    """Serve in a thread; give the address."""
    ready: queue.Queue[str] = queue.Queue()
    threading.Thread(target=serve, args=(app, "127.0.0.1", 0, ready.put), daemon=True).start()
    host, _, port = ready.get(timeout=20).removeprefix("http://").partition(":")
    yield host, int(port)


def sent(address: tuple[str, int], text: str) -> socket.socket:
    connection = socket.create_connection(address, timeout=20)
    connection.sendall(text.encode("latin-1"))
    return connection


@pytest.mark.slow
def test_half_open_requests_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.dashboard.connections.HEADER_SECONDS", 1.0)
    with served(Guard(passes, Credentials(["ann:right"], "test"))) as address, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(sent(address, "GET / HTTP/1.1\r\nHost: localhost\r\nX-")) for _ in range(200)]
        started = time.monotonic()
        known = {"Authorization": basic("ann", "right")}
        page = urllib.request.Request(f"http://{address[0]}:{address[1]}/", headers=known)
        with urllib.request.urlopen(page, timeout=20) as answer:
            assert answer.read() == b"through"
        assert time.monotonic() - started < 2
        deadline, open_ones = time.monotonic() + 20, list(slow)
        while open_ones and time.monotonic() < deadline:  # a byte now and then does not help them
            for connection in list(open_ones):
                try:
                    connection.sendall(b"a")
                    connection.setblocking(False)
                    if connection.recv(10) == b"":
                        open_ones.remove(connection)
                except BlockingIOError:
                    pass
                except OSError:
                    open_ones.remove(connection)
            time.sleep(0.2)
        assert open_ones == []


@pytest.mark.slow
def test_half_open_requests_do_not_delay_the_refresh_of_a_study(
    store: Store, study: StudyRecord, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command itself, a real study, and what the page asks for every few seconds."""
    process = start("dashboard", "--storage", url(store), "--port", "0", folder=tmp_path)
    try:
        address = process.first_error_line().partition("is shown at ")[2].split("/dashboard")[0]
        host, _, port = address.removeprefix("http://").partition(":")

        def refreshed() -> float:
            started = time.monotonic()
            with urllib.request.urlopen(f"{address}/api/studies/{study.study_id}?after=0", timeout=20) as answer:
                assert len(json.loads(answer.read())["trials"]) == 5
            return time.monotonic() - started

        alone = [refreshed() for _ in range(6)][1:]  # the first one imports
        with contextlib.ExitStack() as stack:
            for _ in range(200):
                stack.enter_context(sent((host, int(port)), f"GET / HTTP/1.1\r\nHost: {host}\r\nX-"))
            beside = [refreshed() for _ in range(5)]
        with capsys.disabled():
            print(f"\nrefresh {max(alone):.3f} s alone, {max(beside):.3f} s beside 200 half-open requests")
        assert max(beside) < 2
    finally:
        process.kill()


@pytest.mark.parametrize("login", [True, False])
def test_a_body_is_taken_after_the_login_and_up_to_a_limit(login: bool) -> None:
    headers = f"Authorization: {basic('ann', 'right')}\r\n" if login else ""
    with served(Guard(passes, Credentials(["ann:right"], "test"))) as address:
        for length, known in ((10**6, "200 OK"), (300 * 10**6, "413 Request Entity Too Large")):
            head = f"POST /x HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n"
            with sent(address, head) as connection:
                if login and length == 10**6:
                    connection.sendall(b"x" * length)
                # Otherwise the answer comes before a byte of the body is sent.
                answer = connection.recv(100).decode()
            expected = known if login or length > 10**7 else "401 Unauthorized"
            assert answer.startswith(f"HTTP/1.1 {expected}") or answer.startswith(f"HTTP/1.0 {expected}"), answer


def test_a_renamed_study_keeps_what_hpo_keeps_of_it(
    store: Store, study: StudyRecord, make_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's own request: the study goes on under its new name, with its budget and its uid."""
    monkeypatch.setattr("hpo.dashboard.compression.LEAST_BYTES", 1)
    app = make_app(store.url, tmp_path / "artifacts")
    path = f"/api/studies/{study.study_id}/rename"
    status, _, body = ask(app, path, "POST", json.dumps({"study_name": "better"}).encode(), ACCEPT_ENCODING="gzip")
    answer = json.loads(gzip.decompress(body))
    assert status == "201 Created" and (answer["study_id"], answer["study_name"]) == (study.study_id, "better")
    assert answer["directions"] == ["maximize"]
    assert studies.load_study(store, "better") == dataclasses.replace(study, name="better")
    assert studies_of(store) == ["better"]
    make_study("other")
    for content, reason in [
        ({"study_name": "no/name"}, "must consist of letters"),
        ({"study_name": "other"}, 'there is a study "other" already'),
        ({}, "study_name is required"),
        ([], "study_name is required"),
    ]:
        status, _, body = ask(app, path, "POST", json.dumps(content).encode())
        assert status[0] == "4" and reason in json.loads(body)["reason"]
    assert ask(app, "/api/studies/99/rename", "POST", b'{"study_name": "x"}')[0] == "404 Not Found"


def studies_of(store: Store) -> list[str]:
    with store.read() as connection:
        return studies.names(connection)


@pytest.mark.parametrize("artifact_id", ["../precious", "..", "abcdef", "link"])
@on_sqlite
def test_an_artifact_that_is_none_is_not_found(
    store: Store, study: StudyRecord, tmp_path: Path, artifact_id: str
) -> None:
    """The store names artifacts; an id may lead out of the folder, to nothing, or to a link."""
    folder, precious = tmp_path / "artifacts", tmp_path / "precious"
    precious.write_text("as it was")
    app = make_app(store.url, folder)
    (folder / "link").symlink_to(precious)
    meta = {"artifact_id": artifact_id, "filename": "x", "mimetype": "text/plain", "encoding": None}
    loaded = optuna.load_study(study_name=study.name, storage=url(store))
    loaded._storage.set_study_system_attr(study.study_id, f"artifacts:{artifact_id}", json.dumps(meta))
    status, _, _ = ask(app, f"/artifacts/{study.study_id}/{artifact_id}")
    assert status == "404 Not Found"
    for path in (f"/api/artifacts/{study.study_id}/{artifact_id}", f"/api/studies/{study.study_id}"):
        assert ask(app, path, "DELETE", b"{}")[0] == "404 Not Found"
    assert precious.read_text() == "as it was" and (folder / "link").is_symlink()


@on_sqlite
def test_each_study_has_a_report_behind_the_same_login(store: Store, make_study: MakeStudy, tmp_path: Path) -> None:
    made, asked = make_study(trials=2), list[str]()

    def render(name: str) -> str:
        asked.append(name)
        return report_html(store, studies.load_study(store, name))

    users = Credentials(["ann:long enough"], "test")
    app = make_app(store.url, tmp_path / "artifacts", users, render=render)
    assert ask(app, "/reports/s")[0] == "401 Unauthorized" == ask(app, "/reports")[0] and asked == []
    login = "Basic " + base64.b64encode(b"ann:long enough").decode()
    assert b'<a href="/reports/s">s</a>' in ask(app, "/reports", authorization=login)[2]
    status, headers, page = ask(app, "/reports/s", authorization=login)
    assert status == "200 OK" and b"<title>s</title>" in page and headers["Refresh"] == "15"
    assert headers["Content-Security-Policy"].startswith("sandbox allow-scripts"), "its scripts reach no dashboard"
    again = ask(app, "/reports/s", authorization=login, if_none_match=headers["ETag"])
    assert again[0] == "304 Not Modified" and again[2] == b"" and ask(app, "/reports/s", authorization=login)[2] == page
    assert asked == ["s"], "it is made once as long as nothing changes"
    with Session(store, made, {}) as session:
        Loop(session, SimulatedEngine(), CheckpointRetention(FolderFiles(tmp_path), made.recipe.checkpoints)).run()
    status, after, page = ask(app, "/reports/s", authorization=login, if_none_match=headers["ETag"])
    assert status == "200 OK" and b"<b>2</b>" in page and "Refresh" not in after, "the study is over"
    status, _, page = ask(app, "/reports/%3Cb%3E", authorization=login)
    assert status == "404 Not Found" and b"<b>" not in page and b"&lt;b&gt;" in page
    assert ask(app, "/reports/s", "POST", authorization=login)[0] == "405 Method Not Allowed"
