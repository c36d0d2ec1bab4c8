"""An S3 server that is hostile, broken or slow costs checkpoints and a bounded time: no trials, memory or secrets."""

import contextlib
import os
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hpo import files
from hpo.artifacts import FolderFiles, study_files
from hpo.config import TrialConfig
from hpo.errors import UsageError
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.loop import Loop
from hpo.runner.session import Assignment, Session
from hpo.s3.bucket import S3Files
from hpo.s3.waiting import FREE_SECONDS, Allowance
from hpo.store.database.connect import Store
from hpo.store.studies import StudyRecord
from hpo.training import checkpoints
from hpo.training.engine import Checkpoint, Facts, Fault, TrialFault
from hpo.training.simulated import SimulatedEngine
from tests.helpers import command
from tests.helpers import hostile_s3 as s3
from tests.helpers.documents import shorten
from tests.helpers.hostile_s3 import SECRET, TOKEN, HostileS3
from tests.helpers.studies import MakeStudy, on_sqlite, trials_of

SECONDS = 0.4
"""So long these tests have S3 keep a worker waiting at once."""
LONGEST = SECONDS + FREE_SECONDS + 1.0
"""An operation takes no longer, on a busy machine either."""
MOST = 3_000_000
"""Bytes of the largest file."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileS3]:
    """A server that is honest until told otherwise; the environment names it."""
    with s3.hostile_s3() as running:
        for name, value in s3.variables(running.url, tmp_path).items():
            monkeypatch.setenv(name, value)
        for name in ("AWS_PROFILE", "HPO_S3_SECONDS"):
            monkeypatch.delenv(name, raising=False)
        yield running


def bucket(seconds: float = SECONDS) -> S3Files:
    return S3Files("bucket", "p/", seconds=seconds, most=MOST)


@contextlib.contextmanager
def several(
    count: int, nowhere: Path, monkeypatch: pytest.MonkeyPatch, seconds: float = SECONDS
) -> Iterator[list[tuple[HostileS3, S3Files]]]:
    """Serve several times; yields the servers with their files."""
    with contextlib.ExitStack() as stack:
        pairs = []
        for _ in range(count):
            server = stack.enter_context(s3.hostile_s3())
            for name, value in s3.variables(server.url, nowhere).items():
                monkeypatch.setenv(name, value)
            pairs.append((server, bucket(seconds)))
        yield pairs


def refused(call: Callable[[], object], message: str = ".") -> str:
    """Return the error of a call: an OSError in one printable line, which names the file and no secret."""
    with pytest.raises(OSError, match=message) as caught:
        call()
    text = str(caught.value)
    assert text.startswith("s3://bucket/p/") and text.isprintable() and len(text) < 500, repr(text)
    assert not any(secret in text for secret in (SECRET, TOKEN, "Signature", "AKIA"))
    return text


OPERATIONS: dict[str, Callable[[S3Files], object]] = {
    "read": lambda files: files.read("a"),
    "write": lambda files: files.write("a", bytes(1_000_000)),
    "remove": lambda files: files.remove("a"),
}


def test_an_honest_server_keeps_files(server: HostileS3) -> None:
    kept = bucket()
    content = bytes(range(256)) * 4000
    kept.write("a", content)
    assert kept.read("a") == content and server.objects == {"bucket/p/a": content}
    kept.remove("a")
    assert kept.read("a") is None and not server.objects


# Size


FLOODS = [s3.endless, s3.endless_chunks, s3.endless_chunk_size, s3.terabyte, s3.endless_error, s3.endless_headers]


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_is_cut_off(server: HostileS3, flood: s3.Behaviour) -> None:
    server.always(flood)
    kept = bucket()
    for operation in OPERATIONS.values():
        began = time.monotonic()
        refused(lambda: operation(kept))  # noqa: B023
        assert time.monotonic() - began < LONGEST
    time.sleep(0.1)
    assert server.sent < 3 * (MOST + 20_000_000), "the kernel's buffers hold some of it"


def test_a_file_has_at_most_its_size(server: HostileS3) -> None:
    kept = bucket()
    refused(lambda: kept.write("a", bytes(MOST + 1)), r"a: must have at most 0.003 GB, got more$")
    assert not server.requests
    for behave in (s3.serving(bytes(MOST + 1)), s3.endless, s3.terabyte):
        server.always(behave)
        refused(lambda: kept.read("a"), r"a: must have at most 0.003 GB, got more$")
    server.always(s3.serving(bytes(MOST)))
    assert kept.read("a") == bytes(MOST)


def test_a_file_in_a_folder_has_at_most_the_size_of_the_memory(tmp_path: Path) -> None:
    assert files.most_bytes() >= 1_000_000_000, "of a checkpoint of a large network"
    with (tmp_path / "a").open("wb") as file:
        file.truncate(10**13)  # without a block on the disk
    with pytest.raises(OSError, match=r"a: must have at most .* GB, got more\. Delete it"):
        FolderFiles(tmp_path).read("a")


# Time


SLOW: list[tuple[s3.Behaviour, str]] = [
    (s3.silent, "read"),
    (s3.silent_reader, "write"),
    (s3.trickled_body, "read"),
    (s3.trickled_header, "write"),
    (s3.trickled_continues, "remove"),
]


def test_a_slow_server_is_waited_for_no_longer_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All kinds of slowness at once."""

    def waited(case: tuple[s3.Behaviour, str], pair: tuple[HostileS3, S3Files]) -> None:
        server, kept = pair
        server.always(case[0])
        began = time.monotonic()
        refused(lambda: OPERATIONS[case[1]](kept), "no whole answer within [12] s|Read timeout|Connect timeout")
        middle = time.monotonic()
        assert middle - began < LONGEST, case
        for each in OPERATIONS.values():
            refused(lambda: each(kept), "S3 is left alone for . s|an earlier request still waits")  # noqa: B023
        assert time.monotonic() - middle < 0.5, case

    with several(len(SLOW), tmp_path, monkeypatch) as pairs, ThreadPoolExecutor(len(SLOW)) as pool:
        list(pool.map(waited, SLOW, pairs))


def test_a_slow_line_is_no_fault(server: HostileS3) -> None:
    """The seconds are for waiting, not for bytes that come: 8 MB in 1.6 s and more, 0.1 s beyond the free one."""

    def steady(request: s3.Request) -> None:
        request.raw(s3.HEAD + b"Content-Length: 8000000\r\n\r\n")
        for _ in range(20):
            request.raw(bytes(400_000))
            time.sleep(0.08)

    server.always(steady)
    content = S3Files("bucket", "p/", seconds=0.3, most=8_000_000).read("a")
    assert content is not None and len(content) == 8_000_000


def test_a_server_that_has_recovered_is_asked_again(server: HostileS3) -> None:
    server.always(s3.trickled_body)
    kept = bucket()
    refused(lambda: kept.read("a"), "no whole answer")
    server.always(s3.honest)
    refused(lambda: kept.read("a"), "S3 is left alone|an earlier request still waits")
    deadline = time.monotonic() + 10
    while True:
        try:
            kept.write("a", b"x")
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert kept.read("a") == b"x"


def test_waiting_is_a_tenth_of_the_time_at_most() -> None:
    allowance = Allowance(20.0)
    assert allowance.left() == 20.0 and allowance.pause() == 0
    allowance.use(-3.0)
    assert allowance.left() == 20.0
    allowance.use(25.0)
    assert allowance.left() < 0.1 and 49 < allowance.pause() <= 50


@pytest.mark.parametrize(("given", "valid"), [("5", True), ("0", False), ("nan", False), ("x\x1b", False)])
def test_the_seconds_are_an_option_of_the_environment(
    server: HostileS3, monkeypatch: pytest.MonkeyPatch, given: str, valid: bool
) -> None:
    monkeypatch.setenv("HPO_S3_SECONDS", given)
    if valid:
        assert S3Files("bucket", "").read("a") is None
        return
    with pytest.raises(UsageError, match="HPO_S3_SECONDS: must be a number of seconds > 0") as caught:
        S3Files("bucket", "")
    assert str(caught.value).isprintable()


# Lies


BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(9))
    + b"]><Error><Code>&j;</Code></Error>"
)
LIES: dict[str, tuple[s3.Behaviour, str]] = {
    "a length that is too long": (
        s3.saying(s3.HEAD + b"Content-Length: 9\r\n\r\nabc"),
        r"no answer as S3 gives it|3 read",
    ),
    "a length that is no number": (s3.saying(s3.HEAD + b"Content-Length: abc\r\n\r\nabc"), "no answer as S3 gives it"),
    "a reset": (s3.reset, "no answer as S3 gives it"),
    "no HTTP": (s3.no_http, "Connection was closed"),
    "redirects": (s3.endless_redirects, "redirected again and again: more than 8 requests"),
    "HTML": (s3.failing(500, b"<html>Oops", Content_Type="text/html"), r"the server answered 500$"),
    "no permission": (
        s3.failing(403, s3.error_xml("AccessDenied", "No")),
        r"the server answered 403 \(AccessDenied\)$",
    ),
    "no bucket": (s3.failing(404, s3.error_xml("NoSuchBucket", "No")), r"the server answered 404 \(NoSuchBucket\)$"),
    "slow down": (s3.failing(503, s3.error_xml("SlowDown", "No")), r"the server answered 503 \(SlowDown\)$"),
    "broken XML": (s3.failing(400, b"<Error><Code>a\xff\x00"), r"the server answered 400$"),
    "an XML bomb": (s3.failing(403, BOMB), r"the server answered 403$"),
    "a request that is repeated": (s3.echoing, r"the server answered 403$"),
    "a wrong checksum": (s3.serving(b"abc", x_amz_checksum_crc32="AAAAAA=="), "no answer as S3 gives it"),
    "300 headers": (s3.saying(s3.HEAD + b"".join(b"X-%d: 1\r\n" % i for i in range(300)) + b"\r\n"), "Connection was"),
}


def test_a_lie_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In four groups at once, for some are tried again after a pause."""

    def check(group: int, pair: tuple[HostileS3, S3Files]) -> None:
        server, kept = pair
        for behave, message in list(LIES.values())[group::4]:
            server.always(behave)
            refused(lambda: kept.read("a"), message)
            for operation in ("write", "remove"):
                with contextlib.suppress(OSError):
                    OPERATIONS[operation](kept)

    with several(4, tmp_path, monkeypatch, seconds=60.0) as pairs, ThreadPoolExecutor(4) as pool:
        list(pool.map(check, range(4), pairs))


def test_a_missing_file_is_none(server: HostileS3) -> None:
    kept = bucket()
    for content in (b"", b"<html>", s3.error_xml("NoSuchKey", "No")):
        server.always(s3.failing(404, content))
        assert kept.read("a") is None


def test_a_redirect_reaches_no_other_server(server: HostileS3) -> None:
    with s3.hostile_s3() as other:
        kept = bucket(60.0)
        for status in (301, 307):
            server.always(
                s3.failing(
                    status,
                    s3.error_xml("PermanentRedirect", "Go").replace(
                        b"</Error>", b"<Endpoint>127.0.0.2</Endpoint></Error>"
                    ),
                    Location=f"{other.url}/bucket/p/a",
                    x_amz_bucket_region=f"{other.url.removeprefix('http://')}/",
                )
            )
            for operation in OPERATIONS.values():
                refused(lambda: operation(kept))  # noqa: B023
        assert other.requests == []


def test_nobody_at_the_address_is_a_line(server: HostileS3, monkeypatch: pytest.MonkeyPatch) -> None:
    server.server_close()
    text = refused(lambda: bucket(5.0).read("a"), "Could not connect to the endpoint URL")
    assert server.url in text
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url.replace("//", f"//me:{SECRET}@"))
    text = refused(lambda: bucket(5.0).read("a"))
    assert "me:" not in text


# Settings


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("s3://", "must name a bucket"),
        ("s3:///x", "must name a bucket"),
        ("s3://../x", "a bucket's name must be"),
        ("s3://a..b/x", "a bucket's name must be"),
        ("s3://my bucket/x", "a bucket's name must be"),
        ("s3://bücket/x", "a bucket's name must be"),
        ("s3://b\x1b]0;owned\x07t/x", "a bucket's name must be"),
        ("s3://b?x=1/x", "a bucket's name must be"),
        ("s3://user:password@bucket/x", "a bucket's name must be"),
        ("s3://bucket/../x", "the prefix must be"),
        ("s3://bucket/a//b", "the prefix must be"),
        ("s3://bucket/a/./b", "the prefix must be"),
        ("s3://bucket/a\x1b[31m", "the prefix must be"),
        ("s3://bucket/a\nb", "the prefix must be"),
        ("s3://bucket/" + "a" * 1000, "the prefix must be"),
    ],
)
@on_sqlite
def test_a_root_that_is_none_is_named(
    store: Store, server: HostileS3, monkeypatch: pytest.MonkeyPatch, root: str, message: str
) -> None:
    monkeypatch.setenv("HPO_ARTIFACTS", root)
    with pytest.raises(UsageError, match=f"HPO_ARTIFACTS: {message}") as caught:
        study_files(store.url, "0" * 32)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400 and "password" not in str(caught.value)
    assert not server.requests


@pytest.mark.parametrize("prefix", ["", "a", "/a/", "a b/ü/c+d"])
@on_sqlite
def test_a_prefix_can_have_any_letters(
    store: Store, server: HostileS3, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setenv("HPO_ARTIFACTS", f"s3://bucket/{prefix}")
    kept = study_files(store.url, "0" * 32)
    kept.write("a", b"x")
    below = f"{prefix.strip('/')}/" if prefix else ""
    assert list(server.objects) == [f"bucket/{below}{'0' * 32}/a"] and kept.read("a") == b"x"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AWS_PROFILE", "no\x1b[31msuch"),
        ("AWS_DEFAULT_REGION", "no such/region"),
        ("AWS_ENDPOINT_URL_S3", "nowhere"),
        ("AWS_ENDPOINT_URL_S3", "http://[::"),
        ("AWS_ENDPOINT_URL_S3", f"ftp://me:{SECRET}@127.0.0.1/"),
        ("AWS_CONFIG_FILE", "broken"),
    ],
)
def test_wrong_settings_of_aws_are_a_line(
    server: HostileS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    (tmp_path / "broken").write_text(f"[profile\n{SECRET}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, value)
    with pytest.raises((UsageError, OSError)) as caught:
        bucket().read("a")
    text = str(caught.value)
    assert text.isprintable() and SECRET not in text and len(text) < 500, text


def test_no_credentials_are_a_line(server: HostileS3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    refused(lambda: bucket().read("a"), r"a: Unable to locate credentials$")
    assert not server.requests


# Content


def trained(kept: S3Files | FolderFiles, store: Store, study: StudyRecord, engine: SimulatedEngine) -> None:
    """Work on a study until it is over."""
    with Session(store, study, {}) as session:
        Loop(session, engine, CheckpointRetention(kept, study.recipe.checkpoints)).run()


def begun(kept: S3Files, store: Store, study: StudyRecord) -> None:
    """Work on a study until its first trial has a checkpoint."""
    steps = iter(range(1000))
    with Session(store, study, {}) as session:
        keeper = CheckpointRetention(kept, study.recipe.checkpoints)
        Loop(session, SimulatedEngine(), keeper, lambda: next(steps) > 3).run()


def foreign(checkpoint: Checkpoint) -> dict[str, tuple[bytes, str]]:
    """Return contents that are no checkpoint of a trial, each with what is said of it; nothing of another trial's."""
    whole, other = checkpoints.to_bytes(checkpoint), replace(checkpoint.config, seed=7)
    damaged = "must be a checkpoint written by hpo, got a damaged file"
    return {
        "of another trial": (checkpoints.to_bytes(replace(checkpoint, config=other)), ""),
        "nothing": (b"", damaged),
        "random": (np.random.default_rng(0).bytes(3000), damaged),
        "truncated": (whole[:-20], damaged),
        "a header of 2**63 bytes": (struct.pack("<Q", 2**63) + whole[8:], damaged),
        "a header of 90 MB, announced": (struct.pack("<Q", 90_000_000) + whole[8:], damaged),
        "deep": (struct.pack("<Q", 100_000) + b'{"a":' * 20_000, damaged),
        "an error in its place": (s3.error_xml("InternalError", "We are sorry"), damaged),
        "of XML": (b"<html>" + s3.ESCAPE.encode(), damaged),
    }


@on_sqlite
def test_a_content_that_is_no_checkpoint_has_the_trial_start_anew(
    store: Store, make_study: MakeStudy, server: HostileS3, caplog: pytest.LogCaptureFixture
) -> None:
    study = make_study(trials=1)
    kept = bucket()
    trained(kept, store, study, SimulatedEngine())
    [(name, whole)] = server.objects.items()
    checkpoint = checkpoints.from_bytes(whole, name)
    keeper = CheckpointRetention(kept, study.recipe.checkpoints)
    assignment = Assignment(1, 0, 0, checkpoint.config, True)
    again = keeper.find(assignment)
    assert again is not None and again.history == checkpoint.history
    for kind, (content, message) in foreign(checkpoint).items():
        server.objects[name] = content
        caplog.clear()
        assert keeper.find(assignment) is None, kind
        assert message in caplog.text and bool(caplog.text) == bool(message), kind
        assert all(line.isprintable() for line in caplog.text.splitlines())


@on_sqlite
def test_a_checkpoint_that_the_engine_refuses_has_the_trial_start_anew(
    store: Store, make_study: MakeStudy, server: HostileS3, caplog: pytest.LogCaptureFixture
) -> None:
    class Refusing(SimulatedEngine):
        def admit(self, key: int, config: TrialConfig, checkpoint: Checkpoint | None = None) -> Facts:
            if checkpoint is not None:
                raise TrialFault(Fault("error", "it must hold other tensors"))
            return super().admit(key, config)

    study, kept = make_study(trials=1), bucket()
    begun(kept, store, study)
    trained(kept, store, study, Refusing())
    assert "trial 0 starts from epoch 1: its checkpoint does not fit: it must hold other tensors" in caplog.text
    [trial] = trials_of(store, study)
    assert trial.state.name == "COMPLETE" and list(trial.intermediate_values) == [1, 2, 3, 4, 5, 6]


# Studies


FAULTS: dict[str, s3.Behaviour] = {
    "not allowed": s3.failing(403, s3.error_xml("AccessDenied", "No")),
    "trickled": s3.trickled_header,
    "flood": s3.endless,
}


@pytest.mark.parametrize("fault", FAULTS)
@on_sqlite
def test_a_study_goes_on_without_its_checkpoints(
    store: Store, make_study: MakeStudy, server: HostileS3, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    study = make_study(trials=5)
    server.always(FAULTS[fault])
    began = time.monotonic()
    trained(bucket(), store, study, SimulatedEngine(4))
    assert time.monotonic() - began < 4 * LONGEST
    assert [trial.state.name for trial in trials_of(store, study)] == ["COMPLETE"] * 5
    said = [record.getMessage() for record in caplog.records if record.name.startswith("hpo")]
    assert [text[:30] for text in said] == ["no checkpoints can be written,", "checkpoints that are no longer"], said
    assert all(text.isprintable() and "s3://bucket/p/checkpoints/" in text for text in said)


@pytest.mark.parametrize("fault", ["trickled", "flood"])
@on_sqlite
def test_a_trial_whose_checkpoint_does_not_come_starts_anew(
    store: Store, make_study: MakeStudy, server: HostileS3, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    study = make_study(trials=1)
    kept = bucket()
    begun(kept, store, study)
    assert len(server.objects) == 1
    server.behaviours["GET"] = FAULTS[fault]
    engine = SimulatedEngine()
    trained(kept, store, study, engine)
    assert [epochs for _, epochs in engine.admitted] == [0]
    assert "trial 0 starts from epoch 1: s3://bucket/p/checkpoints/0.safetensors: " in caplog.text
    [trial] = trials_of(store, study)
    assert trial.state.name == "COMPLETE" and list(trial.intermediate_values) == [1, 2, 3, 4, 5, 6]


# Commands


@pytest.mark.slow
def test_commands_do_not_wait_for_a_server_that_never_answers(server: HostileS3, tmp_path: Path) -> None:
    server.always(s3.trickled_header)
    shorten(tmp_path, epochs=3)
    environment = {
        **os.environ,
        "HPO_STORAGE": f"sqlite:///{tmp_path}/studies.db",
        "HPO_ARTIFACTS": "s3://bucket/p",
        "HPO_S3_SECONDS": "1",
        "COLUMNS": "200",
    }
    said = ""
    for arguments in (
        "run --space ann_digits --workers 1 --device cpu --trials 3",
        "export ann_digits -o best.toml",
        "studies copy ann_digits --name other",
        "studies delete other --yes",
    ):
        began = time.monotonic()
        ended = command.hpo(*arguments.split(), folder=tmp_path, environment=environment, code=None)
        assert ended.returncode == 0, (arguments, ended.stderr)
        assert time.monotonic() - began < 30, arguments
        said += ended.stdout + ended.stderr
    assert "Traceback" not in said and SECRET not in said and "fault of hpo" not in said
    log = "".join(path.read_text() for path in (tmp_path / "runs").rglob("worker-*.log"))
    assert log.count("no checkpoints can be written") == 1 and "no whole answer within 2 s" in log, log
    assert "Traceback" not in log and SECRET not in log and TOKEN not in log
    assert server.requests


@pytest.mark.slow
def test_a_run_with_wrong_settings_is_a_line(server: HostileS3, tmp_path: Path) -> None:
    shorten(tmp_path, epochs=3)
    environment = {**os.environ, "HPO_STORAGE": f"sqlite:///{tmp_path}/studies.db", "COLUMNS": "200"}
    changed = environment | {"HPO_ARTIFACTS": "s3://bucket/p", "AWS_PROFILE": "none\x1b[31m"}
    for artifacts, message in (
        ("s3://a\x1b[31mb/x", "HPO_ARTIFACTS: a bucket's name must be"),
        ("s3://bucket/p", "HPO_ARTIFACTS: s3:// needs settings of AWS that are right: The config profile"),
    ):
        arguments = ["run", "--space", "ann_digits", "--workers", "1", "--device", "cpu", "--trials", "1"]
        ended = command.hpo(*arguments, folder=tmp_path, environment=changed | {"HPO_ARTIFACTS": artifacts}, code=None)
        assert ended.returncode in (1, 2) and message in ended.stderr, ended.stderr
        assert "Traceback" not in ended.stderr and "\x1b[31m" not in ended.stdout + ended.stderr
