"""The command line: its options, its errors - one line each - and what it leaves alone."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hpo import __version__
from hpo.cli import main
from hpo.cli.app import Commands, command_tree

Hpo = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hpo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Hpo:
    """Run `hpo` in an empty folder; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HPO_STORAGE", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hpo", *arguments])
        with pytest.raises(SystemExit) as exited:
            main()
        out, err = capsys.readouterr()
        code = exited.value.code
        return code if isinstance(code, int) else 0, out, err

    return run


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["studies", "--help"], ["run", "--target", "1"]]
)
def test_help_is_quick_because_it_imports_no_heavy_library(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['hpo', *{arguments}]\n"
        "from hpo.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = ('torch', 'optuna', 'sqlalchemy', 'sklearn', 'pandas', 'numpy')\n"
        "print([m for m in heavy if m in sys.modules])\n"
        "print([m for m in sys.modules if m.startswith('hpo.cli.commands.')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, commands = run.stdout.splitlines()[-2:]
    assert heavy == "[]"
    assert commands == ("[]" if arguments == ["--help"] else f"['hpo.cli.commands.{arguments[0]}']")
    assert "--target: is now" in run.stderr if "--target" in arguments else "Usage: hpo" in run.stdout


def test_the_list_of_commands_has_the_first_lines_of_their_helps() -> None:
    commands = command_tree().commands
    assert list(commands) == list(Commands.table)
    for name, lazy in Commands.table.items():
        assert " ".join((commands[name].help or "").partition("\n\n")[0].split()) == lazy.summary, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("hpo st", {"studies"}),
        ("hpo studies re", {"rename", "retry"}),
        ("hpo run --stop", {"--stop-at"}),
        ("hpo run --space ann_fa", {"ann_fashion"}),
        ("hpo train --include", {"--include-validation"}),
        ("hpo data fetch fash", {"fashion_mnist"}),
        ("hpo studies show ", set()),
    ],
)
def test_the_shell_completes(line: str, completions: set[str], tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "HPO_STORAGE"} | {
        "_HPO_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
    }
    command = [sys.executable, "-c", "from hpo.cli import main; main()"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert set(run.stdout.split()) == completions, run.stderr


OPTIONS = {
    ("run",): "--cpus --dashboard --data --device --engine --gpus --label --max-failures --objective --on --on-option "
    "--patience --python --recipe --revive --seed --space --stop-at --storage --study --timeout --trials --warm-from "
    "--workers",
    ("watch",): "--storage",
    ("worker",): "--device --engine --idle --python --storage --study",
    ("logs",): "--lines --storage",
    ("init",): "--data --label --recipe --space --storage --study --trials",
    ("dashboard",): "--allow-host --auth-file --host --make-auth --open --port --read-only --storage",
    ("confirm",): "--device --engine --json --python --same-cut --seeds --storage --top --workers",
    ("audit",): "--device --engine --json --python --storage --trials --workers",
    ("report",): "--output --storage",
    ("export",): "--as --format --output --storage --trial",
    ("train",): "--device --epochs --include-validation --json --output --python --seeds",
    ("predict",): "--csv --json --python --resize",
    ("export-model",): "--output --python --to",
    ("doctor",): "--device --json --space --storage",
    ("doctor", "resume"): "--device --json --seed --space",
    ("doctor", "store"): "--json --repair --storage",
    ("studies", "list"): "--json --storage",
    ("studies", "show"): "--json --storage --top",
    ("studies", "delete"): "--json --storage --yes",
    ("studies", "rename"): "--json --storage",
    ("studies", "copy"): "--json --name --storage --to",
    ("studies", "retry"): "--json --kind --storage",
    ("studies", "set-space"): "--json --storage",
    ("trials", "show"): "--json --storage",
    ("trials", "void"): "--json --storage --why",
    ("spaces", "list"): "--json",
    ("spaces", "show"): "",
    ("spaces", "check"): "",
    ("spaces", "new"): "--from",
    ("spaces", "diff"): "",
    ("recipes", "list"): "--json",
    ("recipes", "show"): "",
    ("data", "list"): "--json",
    ("data", "fetch"): "",
}


@pytest.mark.parametrize("command", OPTIONS, ids=" ".join)
def test_each_command_has_exactly_its_options(hpo: Hpo, command: tuple[str, ...]) -> None:
    code, out, _ = hpo(*command, "--help")
    assert code == 0
    found = set(re.findall(r"--[a-z][a-z-]+", out)) - {"--help"}
    # Help texts mention options of other commands' examples nowhere, so every one found is the command's own.
    assert sorted(found) == OPTIONS[command].split()


def test_there_are_no_other_commands(hpo: Hpo) -> None:
    def commands(*group: str) -> set[str]:
        _, out, _ = hpo(*group, "--help")
        listed = out.partition("Commands")[2]
        return set(re.findall(r"^│ ([a-z-]+) ", listed, re.MULTILINE))

    groups = {path[0] for path in OPTIONS if len(path) == 2}
    assert commands() == {path[0] for path in OPTIONS}
    for group in groups:
        assert commands(group) == {path[1] for path in OPTIONS if path[0] == group and len(path) == 2}


RUN = ["run", "--space", "ann_digits"]
ERRORS = [
    (["run"], 2, "run: a space or a study is required, got neither. For example: hpo run --space ann_fashion"),
    (["run", "--space", "ann_fashon"], 2, 'No space named "ann_fashon". Did you mean ann_fashion?'),
    (["run", "--space", "none.toml"], 2, "none.toml: no such file."),
    ([*RUN, "--recipe", "fast"], 2, 'No recipe named "fast".'),
    ([*RUN, "--engine", "fast"], 2, '--engine: must be auto, packed or solo, got "fast".'),
    ([*RUN, "--trials", "0"], 2, "--trials: must be at least 1, got 0."),
    ([*RUN, "--trials", "-5"], 2, "--trials: must be at least 1, got -5."),
    ([*RUN, "--trials", "many"], 2, "Invalid value for '--trials': "),
    ([*RUN, "--workers", "0"], 2, "--workers: must be at least 1, got 0."),
    ([*RUN, "--patience", "0"], 2, "--patience: must be at least 1, got 0."),
    ([*RUN, "--seed", "-1"], 2, "--seed: must be at least 0, got -1."),
    (
        ["run", "--space", "ann_digits", "--timeout", "soon"],
        2,
        "--timeout: must be a duration as 90s, 30m or 1h30m, got",
    ),
    ([*RUN, "--study", "a/b"], 2, 'study: must consist of letters, digits, "_" and "-"'),
    ([*RUN, "--study", "a.b"], 2, 'study: must consist of letters, digits, "_" and "-"'),
    (
        ["run", "--space", "ann_digits", "--storage", "x.db"],
        2,
        'storage: must be a URL, got "x.db". Did you mean sqlite',
    ),
    (
        ["run", "--space", "ann_digits", "--storage", "sqlite:////proc/x/a.db"],
        1,
        "sqlite:////proc/x/a.db: cannot be written",
    ),
    (["run", "--study", "nix"], 1, 'No study named "nix" in sqlite:///runs/studies.db.'),
    (["run", "--sapce", "x"], 2, "No such option: --sapce"),
    (["init", "--trials", "5"], 2, "init: --study, --recipe and --trials go with --space. Add it."),
    (["init", "--space", "ann_fashon"], 2, 'No space named "ann_fashon".'),
    (["rnu"], 2, "No such command 'rnu'. Did you mean 'run'? See `hpo --help`."),
    ([*RUN, "--stop-at", "high"], 2, "Invalid value for '--stop-at'"),
    ([*RUN, "--data", "none.csv"], 2, "--data: none.csv: no such file or folder."),
    ([*RUN, "--label", "x"], 2, "--label: goes with --data, which is missing. Add it."),
    ([*RUN, "--objective", "accuracy,size"], 2, '--objective: no cost named "size".'),
    (["export", "x", "--format", "xml"], 2, '--format: no format named "xml".'),
    (["export", "x", "--as", "picture"], 2, '--as: must be config or script, got "picture".'),
    (["export-model", "x", "--to", "keras"], 2, '--to: no format named "keras".'),
    (["confirm", "x", "--seeds", "1"], 2, "--seeds: must be at least 2, for one score says nothing of their spread"),
    (["confirm", "x", "--top", "0"], 2, "--top: must be at least 1, got 0."),
    (["audit", "x", "--trials", "-1"], 2, "--trials: must be at least 0, got -1."),
    (["confirm", "x", "--workers", "0"], 2, "--workers: must be at least 1, got 0."),
    (["dashboard", "--port", "70000"], 2, "--port: must be between 0 and 65535, got 70000."),
    (["worker", "--study", "x", "--engine", "fast"], 2, '--engine: must be auto, packed or solo, got "fast".'),
    (["studies", "copy", "x"], 2, "copy: --to URL or --name NAME is required, got neither."),
    (["studies", "list"], 1, "sqlite:///runs/studies.db: no such store. Make one with `hpo init` or `hpo run`"),
    (["studies", "show", "x", "--top", "0"], 2, "--top: must be at least 1, got 0."),
    (["export", "x"], 1, "sqlite:///runs/studies.db: no such store."),
    (["train", "none.toml"], 2, "none.toml: no such file. `hpo export STUDY -o none.toml` writes one."),
    (["data", "fetch", "mnits"], 2, 'No data set named "mnits".'),
    (["worker"], 2, "Missing option '--study'"),
    (
        ["worker", "--study", "x", "--storage", "postgresql://u:secret@127.0.0.1:1/d"],
        1,
        "postgresql://u:***@127.0.0.1:1/d: ",
    ),
]


RENAMED = [
    ([*RUN, "--target", "0.92"], "--target: is now --stop-at VALUE or --label COLUMN, got 0.92. Use --stop-at 0.92."),
    ([*RUN, "--target", "churn"], "--target: is now --stop-at VALUE or --label COLUMN, got churn. Use --label churn."),
    (["init", "--target", "a b"], "--target: is now --label COLUMN, got a b. Use --label 'a b'."),
    (
        ["train", "x.toml", "--data", "train+val"],
        "--data: is now --include-validation, got train+val. Use --include-validation.",
    ),
    (
        ["train", "x.toml", "--data", "train"],
        "--data: is now --include-validation, got train. Leave it out: it is the default.",
    ),
]


@pytest.mark.parametrize(("arguments", "text"), RENAMED, ids=[" ".join(r[0]) for r in RENAMED])
def test_an_old_spelling_is_answered_with_the_new_one(
    hpo: Hpo, tmp_path: Path, arguments: list[str], text: str
) -> None:
    assert hpo(*arguments) == (2, "", f"hpo: {text}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("arguments", "code", "text"), ERRORS, ids=[" ".join(e[0])[:50] for e in ERRORS])
def test_an_error_is_one_line_and_leaves_nothing_behind(
    hpo: Hpo, tmp_path: Path, arguments: list[str], code: int, text: str
) -> None:
    got, out, err = hpo(*arguments)
    assert (got, out) == (code, "")
    assert err.startswith(f"hpo: {text}") and len(err.splitlines()) == 1
    assert "secret" not in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_space_with_a_mistake_is_named_with_its_file(hpo: Hpo, tmp_path: Path) -> None:
    _, text, _ = hpo("spaces", "show", "ann_digits")
    (tmp_path / "my.toml").write_text(text.replace("low = 16, high = 128", "low = 128, high = 16"))
    for command in (["run", "--space", "my.toml"], ["spaces", "check", "my.toml"]):
        code, _, err = hpo(*command)
        assert code == 1
        assert err == "hpo: my.toml: mlp.width: low must be <= high, got low=128, high=16.\n"
    assert [p.name for p in tmp_path.iterdir()] == ["my.toml"]


def test_a_space_that_does_not_fit_its_data_is_refused(hpo: Hpo, tmp_path: Path) -> None:
    _, text, _ = hpo("spaces", "show", "cnn_fashion")
    deep = text.replace("depth = { low = 2, high = 3 }", "depth = { low = 2, high = 6 }")
    (tmp_path / "deep.toml").write_text(deep)
    code, _, err = hpo("run", "--space", "deep.toml")
    assert code == 1 and err.startswith("hpo: deep.toml: cnn.depth: images must be at least 2**depth pixels")
    (tmp_path / "table.toml").write_text(text.replace('"fashion_mnist"', '"breast_cancer"'))
    code, _, err = hpo("spaces", "check", "table.toml")
    assert code == 1 and "cnn: inputs must be images, got rows of 30 numbers. Use [mlp]." in err
    (tmp_path / "unknown.toml").write_text(text.replace('"fashion_mnist"', '"fashion"'))
    code, _, err = hpo("run", "--space", "unknown.toml")
    assert code == 2 and 'No data set named "fashion". Did you mean fashion_mnist?' in err


def test_a_config_file_that_is_none_is_named(hpo: Hpo, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    for text, message in [
        ("x = 1", "c.toml: a table [config] is required."),
        (
            "[config]\nformat = 9",
            "c.toml: config: format must be <= 1, got 9. It was made by a newer hpo: upgrade hpo.",
        ),
        ("[config]\ndata = 'digits'", "c.toml: config: model: is required. Add it."),
        ("x =", "c.toml: is not valid TOML"),
    ]:
        file.write_text(text)
        code, _, err = hpo("train", "c.toml")
        assert code == 1 and err.startswith(f"hpo: {message}")


def test_init_makes_a_store_and_says_so(hpo: Hpo, tmp_path: Path) -> None:
    assert hpo("init")[2] == "sqlite:///runs/studies.db: made\n"
    assert hpo("init")[2] == "sqlite:///runs/studies.db: was there\n"
    assert (tmp_path / "runs" / "studies.db").exists()
    code, out, err = hpo("studies", "list")
    assert (code, out) == (0, "") and "no study yet" in err
    assert json.loads(hpo("studies", "list", "--json")[1]) == []


def test_lists_are_readable_by_programs(hpo: Hpo) -> None:
    assert {row["name"] for row in json.loads(hpo("spaces", "list", "--json")[1])} >= {"ann_fashion", "cnn_fashion"}
    assert {row["name"] for row in json.loads(hpo("recipes", "list", "--json")[1])} == {"default", "gp", "smoke"}
    assert {row["name"] for row in json.loads(hpo("data", "list", "--json")[1])} >= {"fashion_mnist", "digits"}
    assert "ann_fashion" in hpo("spaces", "list")[1]


def test_check_says_what_a_space_draws(hpo: Hpo) -> None:
    code, out, err = hpo("spaces", "check", "ann_fashion")
    assert (code, out) == (0, "") and err.startswith("ann_fashion: ok. For example: MLP ")


def test_version(hpo: Hpo) -> None:
    assert hpo("--version")[:2] == (0, f"{__version__}\n")


def test_a_reader_that_closes_the_pipe_is_no_error(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = f"{sys.executable} -m hpo spaces show ann_fashion | head -n 1"
    run = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    assert "Traceback" not in run.stderr
