"""`hpo doctor store`: damage of a store and of its files is found, and mended after a copy."""

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from hpo.artifacts import FolderFiles
from hpo.doctor.findings import Finding
from hpo.doctor.store_checks import check_whole_store
from hpo.errors import StoreError
from hpo.recipe import Budget, StudyRecipe
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.loop import Loop
from hpo.runner.session import Session
from hpo.store import studies
from hpo.store.database import schema
from hpo.store.database.connect import Store, open_store
from hpo.store.database.url import parse
from hpo.store.leases.stopping import count_finished
from hpo.store.record import State
from hpo.store.repair.store_repair import examine, repair
from hpo.training.simulated import SimulatedEngine
from tests.helpers.studies import small_space, trials_of, work

TRIALS = 6


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of one study that is over, and its files."""
    root = tmp_path_factory.mktemp("sound")
    store = open_store(parse(f"sqlite:///{root}/studies.db"), create=True)
    recipe = StudyRecipe(budget=Budget(trials=TRIALS))
    assert studies.create(store, "s", "small", small_space(), recipe, "f" * 64)
    study = studies.load_study(store, "s")
    files = FolderFiles(root / "artifacts" / study.uid)
    with Session(store, study, {"device": "cpu"}) as session:
        Loop(session, SimulatedEngine(), CheckpointRetention(files, recipe.checkpoints)).run()
    store.dispose()
    with contextlib.closing(sqlite3.connect(root / "studies.db")) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return root


@pytest.fixture
def root(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder."""
    monkeypatch.delenv("HPO_ARTIFACTS", raising=False)
    shutil.copytree(sound, tmp_path / "root")
    return tmp_path / "root"


def damage(root: Path, *changes: str) -> None:
    """Change a store behind everyone's back."""
    with contextlib.closing(sqlite3.connect(root / "studies.db")) as raw:
        raw.execute("PRAGMA ignore_check_constraints=ON")
        for change in changes:
            raw.execute(change)
        raw.commit()


def checked(root: Path, *, mend: bool = False) -> list[Finding]:
    return list(check_whole_store(f"sqlite:///{root}/studies.db", mend=mend))


def failures(findings: list[Finding]) -> list[str]:
    return [finding.text for finding in findings if finding.status == "failure"]


def copies(root: Path) -> list[Path]:
    return list(root.glob("studies.db.before-repair-*"))


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """An open store of the folder."""
    opened = open_store(parse(f"sqlite:///{request.getfixturevalue('root')}/studies.db"))
    yield opened
    opened.dispose()


def test_a_sound_store_is_not_touched(root: Path) -> None:
    before = (root / "studies.db").read_bytes()
    assert [f.status for f in checked(root, mend=True)] == ["ok", "ok"]
    assert (root / "studies.db").read_bytes() == before and not copies(root)


@pytest.mark.parametrize(
    ("change", "found", "failed"),
    [
        ("UPDATE trials SET state = 'ODD' WHERE trial_id = 2", "trials.state must be one of", [1]),
        ("UPDATE trials SET datetime_complete = 'soon' WHERE trial_id = 2", "datetime_complete must be a time", []),
        ("UPDATE trials SET number = 'x' WHERE trial_id = 2", "trials.number must be a whole number", []),
        ("UPDATE trials SET number = 99 WHERE trial_id = 2", "trials.number must rise with trial_id", []),
        ("UPDATE trials SET number = 2147483648 WHERE trial_id = 6", "trials.number must rise with trial_id", []),
        ("DELETE FROM trials WHERE trial_id = 3", "rows must belong to a trial, got", [2]),
        ("UPDATE trial_params SET param_value = 1e9 WHERE trial_id = 2", "param_value must be between", [1]),
        ("UPDATE trial_params SET distribution_json = '{' WHERE trial_id = 2", "must be valid JSON", [1]),
        ("DELETE FROM trial_values WHERE trial_id = 2", "trial_values.value must be there", [1]),
        ("UPDATE trial_user_attributes SET value_json = '3' WHERE trial_id = 2 AND key = 'curves'", "curves", []),
        ("UPDATE trial_user_attributes SET value_json = '3' WHERE trial_id = 2 AND key = 'config'", "config", [1]),
        ("UPDATE trial_user_attributes SET trial_id = 777 WHERE trial_id = 2 AND key = 'curves'", "that belong to", []),
        ("UPDATE trials SET state = 'RUNNING' WHERE trial_id = 2", "a running trial must have a worker, got none", []),
        ("INSERT INTO hpo_leases VALUES (3, 1, 'nobody')", "a lease must be of a running trial", []),
        pytest.param(  # waits until the worker is known to be none
            "INSERT INTO hpo_workers VALUES ('w', 1, 5, '{')",
            "hpo_workers.state_json must be valid JSON",
            [],
            marks=pytest.mark.slow,
        ),
        ("UPDATE hpo_studies SET budget_json = '[]', active_seconds = 'x'", "budget_json must be valid", []),
        ("UPDATE hpo_studies SET uid = '../..'", "hpo_studies.uid must be 32 hexadecimal digits", []),
        ("UPDATE hpo_schema SET last_trial_id = 'x'", "last_trial_id must be a whole number", []),
        ("UPDATE studies SET study_name = X'fffe'", "studies.study_name must be a text in UTF-8", []),
        ("UPDATE study_directions SET direction = 'UP'", "direction must be one of", []),
        ("UPDATE study_user_attributes SET value_json = '{' WHERE key = 'hpo_version'", "hpo_version", []),
    ],
)
def test_damage_is_named_and_mended_after_a_copy(root: Path, change: str, found: str, failed: list[int]) -> None:
    """Only trials without a sound record fail; all else keeps its place, and the study goes on to its budget."""
    damage(root, change)
    before = sqlite_rows(root / "studies.db")
    said = failures(checked(root))
    assert said and found in said[0], said
    assert before == sqlite_rows(root / "studies.db") and not copies(root)
    findings = checked(root, mend=True)
    assert not failures(findings) and found in next(f.text for f in findings if "mended" in f.text)
    [copy] = copies(root)
    assert before == sqlite_rows(copy)
    assert not failures(checked(root))
    store = open_store(parse(f"sqlite:///{root}/studies.db"))
    with store.read() as connection:
        name = connection.execute(sa.select(schema.studies.c.study_name)).scalar_one()
    trials = trials_of(store, name)
    assert [trial.number for trial in trials if trial.state.name == State.FAIL] == failed
    assert [trial.number for trial in trials] == list(range(TRIALS))
    study = studies.load_study(store, name)
    work(store, study, SimulatedEngine(), root / "elsewhere")
    with store.read() as connection:
        assert count_finished(connection, study.study_id) == TRIALS
    store.dispose()


def sqlite_rows(path: Path) -> list[str]:
    """Return what a database contains, as SQL."""
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.text_factory = lambda content: content.decode(errors="backslashreplace")
        tables = [row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        return [f"{table}: {row}" for table in tables for row in raw.execute(f"SELECT * FROM {table}")]


def test_what_cannot_be_mended_is_said(root: Path) -> None:
    damage(root, "UPDATE study_user_attributes SET value_json = '{' WHERE key = 'space'")
    [finding] = checked(root, mend=True)
    assert finding.status == "failure" and finding.remedy == "Restore a backup." and '"space" must' in finding.text
    assert not copies(root)


@pytest.mark.parametrize("table", ["trial_user_attributes", "trials"])
def test_rows_are_moved_out_of_a_file_with_flipped_bytes(root: Path, table: str) -> None:
    content = bytearray((root / "studies.db").read_bytes())
    with contextlib.closing(sqlite3.connect(root / "studies.db")) as raw:
        [(page,)] = raw.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchall()
        [(size,)] = raw.execute("PRAGMA page_size").fetchall()
    for place in range((page - 1) * size, page * size):
        content[place] ^= 0x55
    (root / "studies.db").write_bytes(content)
    assert "SQLite's own check found" in failures(checked(root))[0]
    findings = checked(root, mend=True)
    assert any("rows were moved into a new file" in finding.text for finding in findings)
    [copy] = copies(root)
    assert copy.read_bytes()[100:] == content[100:]  # but for the counters in the header
    assert not failures(checked(root))
    store = open_store(parse(f"sqlite:///{root}/studies.db"))
    study = studies.load_study(store, "s")
    work(store, study, SimulatedEngine(), root / "elsewhere")
    with store.read() as connection:
        assert count_finished(connection, study.study_id) == TRIALS
    store.dispose()


def test_a_damaged_index_is_built_anew(root: Path) -> None:
    with contextlib.closing(sqlite3.connect(root / "studies.db")) as raw:
        found = raw.execute("SELECT name, rootpage FROM sqlite_master WHERE name = 'hpo_trials_by_state'").fetchall()
        [(size,)] = raw.execute("PRAGMA page_size").fetchall()
    content = bytearray((root / "studies.db").read_bytes())
    end = found[0][1] * size
    content[end - 8] ^= 0x03  # an id in the last cells of the index's page
    (root / "studies.db").write_bytes(content)
    rows = sqlite_rows(root / "studies.db")
    assert failures(checked(root))
    findings = checked(root, mend=True)
    assert not failures(findings) and not any("were moved" in finding.text for finding in findings)
    assert sqlite_rows(root / "studies.db")[:5] == rows[:5] and len(copies(root)) == 1


def test_a_file_that_is_no_database_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "studies.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match=r"nothing can be read"):
        checked(tmp_path, mend=True)
    assert (tmp_path / "studies.db").read_bytes() == b"not a database" * 1000
    with pytest.raises(StoreError, match="no such store"):
        checked(tmp_path / "nowhere", mend=True)


def test_files_that_are_damaged_missing_or_foreign_are_found(root: Path) -> None:
    [study] = [path for path in (root / "artifacts").iterdir() if len(path.name) == 32]
    kept = sorted((study / "checkpoints").iterdir())
    kept[0].write_bytes(kept[0].read_bytes()[:-3])
    (study / "checkpoints" / "77.safetensors").write_bytes(b"x")
    (root / "artifacts" / ("0" * 32)).mkdir()
    key = "artifacts:" + study.name + "-1-2"
    damage(root, f"INSERT INTO trial_system_attributes (trial_id, key, value_json) VALUES (1, '{key}', '\"{{}}\"')")
    pictures = root / "artifacts" / "dashboard"
    pictures.mkdir(exist_ok=True)
    (pictures / f"{study.name}-ff-2").write_bytes(b"a picture")
    said = [finding.text for finding in checked(root) if finding.status != "ok"]
    for expected in (
        f"trial {kept[0].stem}: {kept[0]}: must be a checkpoint written by hpo, got a damaged file",
        "77.safetensors must be the checkpoint of one of its trials, got another file",
        "the pictures of its trials must be in",
        f"{study.name}-ff-2 must be of one of its trials",
        f"{'0' * 32} belongs to no study of this store",
    ):
        assert any(expected in text for text in said), expected
    assert len(said) == 5
    checked(root, mend=True)
    assert {path.name for path in (study / "set-aside").iterdir()} == {kept[0].name, "77.safetensors"}
    left = [finding for finding in checked(root) if finding.status != "ok"]
    assert [finding.text.split(": ")[1][:32] for finding in left] == ["0" * 32]  # it may be another store's


def test_checkpoints_in_s3_are_said_to_be_not_examined(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_ARTIFACTS", "s3://bucket/prefix")
    [rows, files] = checked(root)
    assert (rows.status, files.status) == ("ok", "warning")
    assert files.text == "s3://bucket/prefix: checkpoints there are not examined"


@pytest.mark.slow
def test_a_store_at_work_is_not_mended(root: Path, store: Store) -> None:
    with Session(store, studies.load_study(store, "s"), {"device": "cpu"}):
        damage(root, "DELETE FROM trial_values WHERE trial_id = 2")
        with pytest.raises(StoreError, match=r"must be at rest, got 1 worker\(s\) at work"):
            repair(store)
    assert not copies(root)


@pytest.mark.slow
def test_a_damaged_postgres_store_is_mended_after_a_copy(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres takes no values of wrong types, but documents, numbers, states and rows without an owner."""
    from tests.helpers.studies import new_database

    opened = open_store(
        parse(new_database(request.getfixturevalue("postgres"), request.getfixturevalue("postgres_tables")))
    )
    recipe = StudyRecipe(budget=Budget(trials=TRIALS))
    assert studies.create(opened, "s", "small", small_space(), recipe, "f" * 64)
    study = studies.load_study(opened, "s")
    work(opened, study, SimulatedEngine(), tmp_path)
    assert examine(opened) == []
    with opened.write() as connection:
        for change in (
            "UPDATE trial_user_attributes SET value_json = '{' WHERE trial_id = 2 AND key = 'config'",
            "UPDATE trials SET number = 99 WHERE trial_id = 3",
            "UPDATE trials SET state = 'RUNNING' WHERE trial_id = 4",
            "INSERT INTO hpo_leases VALUES (5, 1, 'nobody')",
            "UPDATE hpo_studies SET budget_json = '[]'",
        ):
            connection.execute(sa.text(change))
    done = repair(opened)
    assert not done.left and len(done.mended) == 5 and done.copy.startswith("schema before_repair_")
    with opened.read() as connection:
        copied = sa.text(f"SELECT number FROM {done.copy.split()[1]}.trials WHERE trial_id = 3")
        assert connection.execute(copied).scalar_one() == 99
    work(opened, study, SimulatedEngine(), tmp_path)
    trials = trials_of(opened, study)
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert [trial.number for trial in trials if trial.state.name == State.FAIL] == [1]
    with opened.read() as connection:
        assert count_finished(connection, study.study_id) == TRIALS
    opened.dispose()


def test_the_command_ends_with_1_while_there_is_damage(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.test_damage import ended

    monkeypatch.setenv("HPO_STORAGE", f"sqlite:///{root}/studies.db")
    damage(root, "UPDATE trials SET state = 'ODD' WHERE trial_id = 2")
    assert ended(("doctor", "store"), monkeypatch)[0] == 1
    assert ended(("doctor", "store", "--repair"), monkeypatch)[0] == 0
    assert ended(("doctor", "store", "--json"), monkeypatch)[0] == 0
