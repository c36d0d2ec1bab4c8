"""A store that someone else has written: what it holds leads to no file outside its folder, and to no code."""

import ast
import io
import json
import os
import shutil
import sqlite3
import subprocess
import tomllib
from pathlib import Path

import pytest
from rich.console import Group
from rich.live import Live
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from hpo.artifacts import FolderFiles, study_folder
from hpo.errors import StoreError
from hpo.recipe import Budget, Pruner, StudyRecipe
from hpo.service import admin, export
from hpo.store import studies
from hpo.store.database.connect import Store, open_store
from hpo.store.database.url import parse
from hpo.store.leases import claims
from hpo.terminal import TextConsole, text_column
from hpo.training.simulated import SimulatedEngine
from tests.helpers import command
from tests.helpers.fork_server import Forked
from tests.helpers.studies import small_space, work
from tests.helpers.terminal import Terminal


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, sqlite_tables: Path) -> Path:
    """A store with one study, whose three trials are finished."""
    here = tmp_path_factory.mktemp("template")
    shutil.copy(sqlite_tables, here / "studies.db")
    store = store_of(here)
    recipe = StudyRecipe(budget=Budget(trials=3), pruner=Pruner(name="none"))
    assert studies.create(store, "one", "small", small_space(), recipe, "f" * 64)
    work(store, studies.load_study(store, "one"), SimulatedEngine(), here / "work")
    store.dispose()
    return here / "studies.db"


@pytest.fixture
def folder(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a store of one study, made by hpo; beside it lies a file that is none of hpo's business."""
    monkeypatch.delenv("HPO_ARTIFACTS", raising=False)
    here = tmp_path / "here"
    (here / "artifacts").mkdir(parents=True)
    shutil.copy(template, here / "studies.db")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("three years of work")
    return here


def store_of(folder: Path) -> Store:
    return open_store(parse(f"sqlite:///{folder}/studies.db"))


def change(folder: Path, statement: str, *values: object) -> None:
    """Write to the store as anyone with sqlite3 can."""
    with sqlite3.connect(folder / "studies.db") as connection:
        connection.execute(statement, values)
    connection.close()


def hpo(*arguments: str, folder: Path, code: int | None) -> command.Ended:
    # Wide, so that no table breaks a text into lines.
    environment = os.environ | {"HPO_STORAGE": f"sqlite:///{folder}/studies.db", "COLUMNS": "200"}
    return command.hpo(*arguments, folder=folder, environment=environment, code=code)


# Paths


@pytest.mark.parametrize("uid", ["{mine}", "../../mine", ".", "", "0" * 31 + "\n", "A" * 32, 7, b"0" * 32])
def test_a_uid_that_is_a_path_deletes_and_copies_nothing(folder: Path, uid: object) -> None:
    mine = folder.parent / "mine"
    change(folder, "UPDATE hpo_studies SET uid = ?", str(mine) if uid == "{mine}" else uid)
    (folder / "artifacts" / "other").mkdir()
    before = sorted(folder.parent.rglob("*"))
    store = store_of(folder)
    refused = "hpo_studies: uid: must be 32 hexadecimal digits"
    with pytest.raises(StoreError, match=refused):
        admin.delete_study(store, "one")
    with pytest.raises(StoreError, match=refused):
        admin.copy_study(store, "one", new_name="two")
    with pytest.raises(StoreError, match=refused):
        studies.load_study(store, "one")
    with pytest.raises(StoreError, match=refused):
        study_folder(store.url, uid)  # type: ignore[arg-type]
    with store.read() as connection:
        assert studies.names(connection) == ["one"], "nothing was deleted before the uid was looked at"
    store.dispose()
    assert sorted(folder.parent.rglob("*")) == before
    assert (mine / "thesis.txt").read_text() == "three years of work"


def test_commands_name_a_uid_that_is_a_path(folder: Path) -> None:
    mine = folder.parent / "mine"
    change(folder, "UPDATE hpo_studies SET uid = ?", str(mine))
    for arguments in (["studies", "delete", "one", "--yes"], ["run", "--study", "one", "--workers", "1"]):
        said = hpo(*arguments, folder=folder, code=1).stderr
        assert said.startswith("hpo: hpo_studies: uid: must be 32 hexadecimal digits, got '/") and said.count("\n") == 1
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("worker", ["{mine}", "../{mine}", "é" * 300, "\0", b"a", "A" * 32, "0" * 31 + "\n"])
def test_a_workers_id_that_is_a_path_leads_to_no_file(folder: Path, worker: str | bytes) -> None:
    """A worker's id names a file that its worker keeps locked, and that goes when the worker is found dead."""
    mine = folder.parent / "mine" / "poetry.lock"
    mine.write_text("resolved for hours")
    if isinstance(worker, str):
        worker = worker.replace("../{mine}", os.path.relpath(mine, claims.presence_folder()).removesuffix(".lock"))
        worker = worker.replace("{mine}", str(mine).removesuffix(".lock"))
    change(folder, "INSERT INTO hpo_workers VALUES (?, 1, 5, '{}')", worker)
    store = store_of(folder)
    assert claims.reap_dead(store, studies.load_study(store, "one").study_id, claims.Watch()) == []
    store.dispose()
    assert mine.read_text() == "resolved for hours"


def test_links_in_the_artifact_folder_are_neither_read_nor_written_nor_deleted_through(folder: Path) -> None:
    mine, store = folder.parent / "mine", store_of(folder)
    study = studies.load_study(store, "one")
    own = study_folder(store.url, study.uid)
    (own / "logs").mkdir(parents=True)
    (own / "checkpoints").symlink_to(mine)
    (own / "logs" / "0.log").symlink_to(mine / "thesis.txt")
    kept = FolderFiles(own)
    for name in ("checkpoints/thesis.txt", "logs/0.log", "../../../mine/thesis.txt", str(mine / "thesis.txt"), "a/./b"):
        for use in (kept.read, kept.remove, lambda name: kept.write(name, b"x")):
            with pytest.raises(OSError, match="must"):
                use(name)
    copied = admin.copy_study(store, "one", new_name="two")
    assert copied.files_left is None
    copy = study_folder(store.url, studies.load_study(store, "two").uid)
    assert [path.name for path in copy.rglob("*")] == ["logs"], "what a link names is not copied"
    admin.delete_study(store, "one")
    assert not own.exists() and (mine / "thesis.txt").read_text() == "three years of work"
    copy.rename(folder / "elsewhere")
    copy.symlink_to(mine)
    with pytest.raises(StoreError, match="must not be a link"):
        study_folder(store.url, copy.name)
    admin.delete_study(store, "two")
    assert not copy.is_symlink() and (mine / "thesis.txt").exists()
    store.dispose()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_the_artifact_folder_holds_up_nobody(folder: Path) -> None:
    os.mkfifo(folder / "0.safetensors")
    (folder / "1.safetensors").mkdir()
    with pytest.raises(OSError, match="must be a file, got a pipe"):
        FolderFiles(folder).write("0.safetensors", b"")
    for name in ("0.safetensors", "1.safetensors"):
        with pytest.raises(OSError, match="must be a file, got something else"):
            FolderFiles(folder).read(name)
    assert FolderFiles(folder).read("2.safetensors") is None


def test_a_picture_is_not_drawn_through_a_link(folder: Path) -> None:
    thesis, link = folder.parent / "mine" / "thesis.txt", folder / "artifacts" / "picture"
    link.symlink_to(thesis)
    errors = folder / "errors"
    with errors.open("w") as stderr:
        drawing = Forked(["-m", "hpo.plots"], stdin=subprocess.PIPE, stderr=stderr, text=True)
        assert drawing.stdin is not None
        with drawing.stdin as jobs:
            for path in (link, folder / "artifacts" / "real"):
                jobs.write(json.dumps({"draw": "learning_curve", "to": str(path), "arguments": {"curves": {}}}) + "\n")
        assert drawing.wait(60) == 0
    assert thesis.read_text() == "three years of work" and "must not be a link" in errors.read_text()
    assert (folder / "artifacts" / "real").read_bytes().startswith(b"\x89PNG")


# Code


INJECTED = '"""\nimport pathlib; pathlib.Path("ran").touch()\n"""'


@pytest.mark.parametrize("kind", ["config", "script"])
@pytest.mark.parametrize("name", [INJECTED, "a\\", "a\n[config]\nseed = 7", "\x1b]0;title\x07", "; rm -rf ~"])
def test_a_studys_name_stays_a_text_in_what_is_exported(folder: Path, name: str, kind: str) -> None:
    store = store_of(folder)
    harmless = export.choose_winner(store, studies.load_study(store, "one"))
    change(folder, "UPDATE studies SET study_name = ?", name)
    hostile = export.choose_winner(store, studies.load_study(store, name))
    assert hostile.provenance["study"] == name and hostile.config == harmless.config
    before, after = (export.export_text(each, kind=kind) for each in (harmless, hostile))
    assert "\x1b" not in after
    if kind == "config":
        content = tomllib.loads(after)
        assert content["provenance"].pop("study") == name
        assert content["config"] == tomllib.loads(before)["config"]
    else:
        body = [ast.dump(statement) for statement in ast.parse(after).body]
        assert body[1:] == [ast.dump(statement) for statement in ast.parse(before).body][1:]
        assert "study" in str(ast.get_docstring(ast.parse(after)))
    store.dispose()


def test_a_trials_number_that_is_code_is_not_exported(folder: Path) -> None:
    change(folder, "UPDATE trials SET number = ?", "0" + INJECTED)
    for arguments in (["--as", "script"], []):
        ended = hpo("export", "one", *arguments, folder=folder, code=None)
        assert ended.returncode != 0 and ended.stdout == ""


# Terminals

MARKUP, ESCAPE = "[/red]x [bold] :smile:", "\x1b]0;owned\x07\x9b31m"
TEXT = f"{MARKUP}{ESCAPE}"
SHOWN = f"{MARKUP}\\x1b]0;owned\\x07\\x9b31m"


def annotated(folder: Path) -> None:
    """Put markup and escapes for terminals into every text of the study that is shown, but for its name."""
    with sqlite3.connect(folder / "studies.db") as connection:
        [(stored,)] = connection.execute("SELECT value_json FROM study_user_attributes WHERE key='space'")
        space = json.loads(stored)
        changes = {"space": space | {"title": TEXT}, "space_name": TEXT}
        for key, value in changes.items():
            connection.execute("UPDATE study_user_attributes SET value_json=? WHERE key=?", (json.dumps(value), key))
        ids = [row[0] for row in connection.execute("SELECT trial_id FROM trials ORDER BY number")]
        texts = {"baseline": TEXT, "failure": {"kind": TEXT, "message": TEXT}, TEXT: TEXT, "device": TEXT}
        for key, value in texts.items():
            connection.execute("DELETE FROM trial_user_attributes WHERE trial_id=? AND key=?", (ids[0], key))
            row = (ids[0], key, json.dumps(value))
            connection.execute("INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)", row)
        connection.execute("UPDATE trials SET state='FAIL' WHERE trial_id=?", (ids[1],))
        row = (ids[1], "failure", json.dumps({"kind": TEXT, "message": TEXT}))
        connection.execute("INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)", row)
    connection.close()


def is_plain(text: str) -> bool:
    return all(character.isprintable() or character in "\n\t" for character in text)


@pytest.mark.parametrize("arguments", [["studies", "list"], ["studies", "show", "one"], ["trials", "show", "one", "0"]])
def test_texts_of_a_store_are_shown_as_texts(folder: Path, arguments: list[str]) -> None:
    annotated(folder)
    ended = hpo(*arguments, folder=folder, code=0)
    assert is_plain(ended.stdout) and is_plain(ended.stderr)
    assert SHOWN in ended.stdout


def test_a_studys_name_in_an_error_is_a_text(folder: Path) -> None:
    change(folder, "UPDATE studies SET study_name = ?", TEXT)
    said = hpo("studies", "show", "two", folder=folder, code=1).stderr
    assert SHOWN in said and is_plain(said)
    assert is_plain(hpo("studies", "show", TEXT, folder=folder, code=0).stdout)


@pytest.mark.parametrize("arguments", [["studies", "show", "one"], ["export", "one"]])
def test_texts_of_a_store_send_nothing_to_a_terminal(folder: Path, arguments: list[str]) -> None:
    annotated(folder)
    environment = dict(os.environ) | {"HPO_STORAGE": f"sqlite:///{folder}/studies.db"}
    terminal = Terminal(200, 40, *arguments, folder=folder, environment=environment)
    assert terminal.end() == 0
    assert MARKUP in terminal.scrollback()
    assert b"\x1b]0;" not in terminal.raw and "\x9b".encode() not in terminal.raw


def test_every_kind_of_what_is_printed_is_text() -> None:
    """Tables, captions, styled text, pictures that change, progress bars: in a terminal, with its control sequences."""
    output = io.StringIO()
    console = TextConsole(file=output, force_terminal=True, width=200)
    table = Table(TEXT, title=TEXT, caption=TEXT)
    table.add_row(TEXT)
    table.add_row(Text(TEXT, style="bold"))
    console.print(TEXT, table, Text.assemble((TEXT, "red")), style="dim")
    console.log(TEXT)
    console.rule(TEXT)
    with Live(Group(TEXT, Text(TEXT)), console=console, auto_refresh=False) as live:
        live.refresh()
    with Progress(text_column("{task.description} {task.fields[best]}"), console=console) as bars:
        bars.add_task(TEXT, best=TEXT)
        bars.console.print(TEXT)
    written = output.getvalue()
    assert "\x1b]0;" not in written and "\x9b" not in written and "\x1b[" in written
    assert written.count(MARKUP) >= 10
