"""Damaged stores: any cell of any table may hold anything, and every command still ends with a plain message."""

import contextlib
import gc
import io
import os
import random
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

import hpo.cli
from hpo.artifacts import FolderFiles
from hpo.data import fingerprint, info
from hpo.recipe import Budget, StudyRecipe
from hpo.runner.checkpoint_retention import CheckpointRetention
from hpo.runner.loop import Loop
from hpo.runner.session import Session
from hpo.store import studies
from hpo.store.database.connect import Store, open_store
from hpo.store.database.damage import find
from hpo.store.database.outages import is_transient
from hpo.store.database.url import parse
from hpo.training.simulated import SimulatedEngine
from tests.helpers.studies import MakeStudy, small_space

CHANGES = int(os.environ.get("HPO_TESTS_DAMAGES", "36"))
"""Damages that the fuzzer tries; 2,000 for a thorough run."""
EACH = 7 if "HPO_TESTS_DAMAGES" in os.environ else 3
"""Commands that run on each damaged store, drawn from all."""
LONGEST = 10.0
"""Seconds that a command may wait."""
TRIALS = 6
VALUES: tuple[object, ...] = (
    *(None, 0, 1, -1, 7, 2**31, 2**62, -(2**63), 0.5, -0.0, 1e308, float("inf"), float("-inf")),
    *("", "x", "0", "[red]", "../..", "/", "\x1b]0;x\x07", "é" * 300, b"", b"\xff\xfe", b"{}"),
    *("null", "true", "[]", "{}", "[1]", '"a"', '{"name": "x"}', "1e999", "NaN", "Infinity", "9" * 400, "[" * 3000),
    *("COMPLETE", "RUNNING", "WAITING", "FAIL", "PRUNED", "INF_POS", "NAN"),
    *("2020-01-01 00:00:00", "9999-99-99 00:00:00"),
    *('{"trials": 1e99}', '{"kind": 3}', '{"name": "IntDistribution", "attributes": {}}'),
)
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("studies", "list"),
    ("studies", "list", "--json"),
    ("studies", "show", "s"),
    ("studies", "show", "s", "--json"),
    ("trials", "show", "s", "1"),
    ("trials", "void", "s", "2", "--why", "odd"),
    ("studies", "retry", "s"),
    ("studies", "copy", "s", "--name", "t"),
    ("studies", "rename", "s", "u"),
    ("studies", "delete", "s", "--yes"),
    ("export", "s", "-o", "best.toml"),
    ("report", "s", "-o", "report.html"),
    ("studies", "set-space", "s", "ann_digits"),
    ("init",),
)
SEARCHING = ("run", "--study", "s", "--engine", "solo", "--workers", "1", "--device", "cpu", "--trials", str(TRIALS))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of one study that is over, and its files."""
    root = tmp_path_factory.mktemp("sound")
    store = open_store(parse(f"sqlite:///{root}/studies.db"), create=True)
    recipe = StudyRecipe(budget=Budget(trials=TRIALS))
    assert studies.create(store, "s", "small", small_space(), recipe, fingerprint(info("digits"), small_space().split))
    study = studies.load_study(store, "s")
    with Session(store, study, {"device": "cpu", "host": "here"}) as session:
        Loop(session, SimulatedEngine(), CheckpointRetention(FolderFiles(root / study.uid), recipe.checkpoints)).run()
    store.dispose()
    with contextlib.closing(sqlite3.connect(root / "studies.db")) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return root


def with_worker(path: Path) -> None:
    """Add a worker that holds a trial, as one that was killed leaves it."""
    damage(path, 'INSERT INTO hpo_workers VALUES (\'w\', 1, 5, \'{"host": "a", "device": "cpu"}\')')
    damage(path, "INSERT INTO hpo_leases VALUES (1, 1, 'w')")


def cells(path: Path) -> Iterator[tuple[str, str, int]]:
    """Yield every cell of a store: table, column, row id."""
    with contextlib.closing(sqlite3.connect(path)) as raw:
        for (table,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall():
            columns = [row[1] for row in raw.execute(f"PRAGMA table_info({table})")]
            for (row,) in raw.execute(f"SELECT rowid FROM {table}").fetchall():
                yield from ((table, column, row) for column in columns)


def damage(path: Path, change: str, values: tuple[object, ...] = ()) -> bool:
    """Change a store behind everyone's back; return False where SQLite itself refuses the value."""
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA ignore_check_constraints=ON")
        try:
            raw.execute(change, values)
        except sqlite3.Error:
            return False
        raw.commit()
    return True


def ended(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Run `hpo` in this process; return its exit code and what it wrote to stderr."""
    monkeypatch.setattr("sys.argv", ["hpo", *arguments])
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
        hpo.cli.main()
    return int(end.value.code or 0), err.getvalue()


def tree(folder: Path) -> dict[str, object]:
    """Return what lies in a folder: the content of each file by its name."""
    return {path.name: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}


@pytest.fixture
def root(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder, as the working directory."""
    shutil.copytree(sound, tmp_path / "root")
    monkeypatch.chdir(tmp_path / "root")
    monkeypatch.setenv("HPO_STORAGE", "sqlite:///studies.db")
    return tmp_path / "root"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("trials SET datetime_start = 'soon'", 'study "s", trial 1: trials.datetime_start must be a time, got "soon"'),
        ("trials SET state = 'ODD'", 'study "s", trial 1: trials.state must be one of RUNNING, COMPLETE'),
        (
            "trial_params SET param_value = 'abc'",
            'study "s", trial 1: trial_params.param_value must be a finite number',
        ),
        ("trial_params SET param_value = 1e9", 'study "s", trial 1: trial_params.param_value must be between'),
        (
            "trial_user_attributes SET value_json = '{' WHERE key = 'config' AND",
            'study "s", trial 1: trial_user_attributes.value_json of "config" must be valid JSON, got "{"',
        ),
        (
            "trial_user_attributes SET value_json = '3' WHERE key = 'curves' AND",
            'study "s", trial 1: trial_user_attributes.value_json of "curves" must be valid (',
        ),
        ("trials SET number = 99", 'study "s": trials.number must count from 0 without gaps, got 2 for 1'),
        (
            "trial_intermediate_values SET step = X'ff' WHERE step = 1 AND",
            'study "s", trial 1: trial_intermediate_values.step must be',
        ),
    ],
)
def test_the_damaged_cell_is_named(root: Path, change: str, said: str) -> None:
    where = change if change.endswith(("AND", "WHERE")) else f"{change} WHERE"
    assert damage(root / "studies.db", f"UPDATE {where} trial_id = 2")
    with open_store(parse("sqlite:///studies.db")).read() as connection:
        found = find(connection)
    assert found is not None and found.startswith(said)


def test_a_sound_store_has_no_damage(sound: Path, store: Store, make_study: MakeStudy) -> None:
    """On both databases; the trials of one that is being searched are not damage either."""
    with open_store(parse(f"sqlite:///{sound}/studies.db")).read() as connection:
        assert find(connection) is None
    study = make_study(trials=3, pruner="successive_halving")
    with Session(store, study, {"device": "cpu"}) as session:
        session.claim(2)
        with store.read() as connection:
            assert find(connection) is None


def test_a_value_that_fails_only_when_it_is_shown_is_named_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(parse(f"sqlite:///{root}/gone.db"), create=True).dispose()
    (root / "gone.db").unlink()  # a store that this process had open before
    assert damage(root / "studies.db", "UPDATE studies SET study_name = X'fffe'")
    code, said = ended(("studies", "list"), monkeypatch)
    assert code == 1 and "studies.study_name must be a text in UTF-8, got b'\\xff\\xfe'" in said


def test_a_search_on_a_damaged_store_says_so_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only a worker reads ends the run too, with the worker's message: it is no outage that passes."""
    damage(root / "studies.db", "UPDATE trials SET datetime_start = 'soon' WHERE trial_id = 2")
    more = (*SEARCHING[:-1], str(TRIALS + 2))
    start = time.monotonic()
    code, said = ended(more, monkeypatch)
    assert code == 1 and time.monotonic() - start < 10
    [line] = [line for line in said.splitlines() if line.startswith("hpo: ")]
    assert 'trial 1: trials.datetime_start must be a time, got "soon". Mend it' in line


def test_flipped_bytes_are_damage_and_no_outage(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray((root / "studies.db").read_bytes())
    with contextlib.closing(sqlite3.connect(root / "studies.db")) as raw:
        [(page,)] = raw.execute("SELECT rootpage FROM sqlite_master WHERE name = 'trials'").fetchall()
        [(size,)] = raw.execute("PRAGMA page_size").fetchall()
    for place in range((page - 1) * size, page * size):
        content[place] ^= 0x55
    (root / "studies.db").write_bytes(content)
    for command in (("studies", "list"), (*SEARCHING[:-1], str(TRIALS + 2))):
        code, said = ended(command, monkeypatch)
        assert code == 1 and "is damaged: database disk image is malformed. Restore a backup" in said


def test_only_what_is_known_to_pass_is_tried_again(root: Path) -> None:
    with contextlib.closing(sqlite3.connect("studies.db")) as holder:
        holder.execute("BEGIN IMMEDIATE")
        busy = sa.create_engine("sqlite:///studies.db", connect_args={"timeout": 0})
        with pytest.raises(sa.exc.OperationalError) as caught, busy.connect() as connection:
            connection.execute(sa.text("UPDATE trials SET number = number"))
        assert is_transient(caught.value)
    for broken in ("SELECT * FROM nowhere", "UPDATE trials SET nothing = 1", "ATTACH '/nowhere/at/all' AS other"):
        with pytest.raises(sa.exc.OperationalError) as caught, busy.connect() as connection:
            connection.execute(sa.text(broken))
        assert not is_transient(caught.value), broken


@pytest.mark.slow
def test_no_damage_makes_a_command_crash_hang_or_touch_what_is_not_its_own(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(sound, tmp_path / "with worker")
    with_worker(tmp_path / "with worker" / "studies.db")
    chance, everything = random.Random(CHANGES), list(cells(tmp_path / "with worker" / "studies.db"))
    shutil.rmtree(tmp_path / "with worker")
    tables = sorted({table for table, _, _ in everything})
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "precious").write_text("as it was")
    monkeypatch.setenv("HPO_STORAGE", "sqlite:///studies.db")
    for command in COMMANDS:  # all work on the sound store; from here on they have imported what they need
        shutil.copytree(sound, tmp_path / "root")
        monkeypatch.chdir(tmp_path / "root")
        code, said = ended(command, monkeypatch)
        assert code == (1 if "set-space" in command else 0), (command, said)
        shutil.rmtree(tmp_path / "root")
    faults, ran = list[str](), 0
    for number in range(CHANGES):
        table, column, row = chance.choice([c for c in everything if c[0] == tables[number % len(tables)]])
        value, some = chance.choice(VALUES), chance.sample(COMMANDS, EACH)
        held = table in ("hpo_workers", "hpo_leases")  # else commands would wait for the worker
        for command in (*some, SEARCHING) if number % 20 == 0 and not held else some:
            what = f"{table}.{column}[{row}] = {value!r:.40}: {' '.join(command)}"
            for _ in range(2):  # one that only a busy machine slows down is quick the next time
                root = tmp_path / "root"
                shutil.copytree(sound, root)
                if held:
                    with_worker(root / "studies.db")
                monkeypatch.chdir(root)
                start, code, said = time.monotonic(), 0, ""
                if damage(root / "studies.db", f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, row)):
                    code, said = ended(command, monkeypatch)
                    ran += 1
                took = time.monotonic() - start
                gc.collect()  # a connection that is collected later would remove its files while the folder is deleted
                touched = tree(tmp_path).keys() - {"root"} != {"beside"} or tree(beside) != {"precious": b"as it was"}
                shutil.rmtree(root)
                if took <= LONGEST:
                    break
            if code not in (0, 1, 2) or took > LONGEST or touched:
                faults.append(f"{what}: exit {code} after {took:.1f} s: {said[-1500:]}")
    print(f"{CHANGES} damages, {ran} commands, {len(faults)} faults")
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults)
