"""Networks and spaces in Python of the user's own: searched like any other, and run only where the user names them."""

import importlib.util
import json
import os
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hpo import user_code
from hpo.config import MLP, PythonNetwork
from hpo.errors import DocumentError, HpoError, ModelError, UsageError
from hpo.interpreter import python
from hpo.models import build_model, parameter_count
from hpo.space import load_space
from hpo.suggesters import FixedSuggester, RandomSuggester
from hpo.transfer import draws_for
from tests.helpers import command
from tests.helpers.documents import ROOT

NETWORK = """
from torch import nn

def build(params, input_shape, classes):
    features = 64
    layers = [nn.Flatten()]
    for _ in range(params["layers"]):
        layers += [nn.Linear(features, params["width"]), nn.ReLU(), nn.Dropout(params["rate"])]
        features = params["width"]
    return nn.Sequential(*layers, nn.Linear(features, classes))
"""
NETWORK_SPACE = """
data = "digits"
epochs = 3
batch_size = 32

[model]
python = "my_models.py:build"
[model.params]
layers = { choices = [1, 2] }
width = { low = 16, high = 64, step = 16 }
rate = { low = 0.0, high = 0.5 }

[optimizer]
name = "adam"
lr = { low = 1e-3, high = 1e-2, log = true }

[[baselines]]
name = "one layer"
[baselines.params]
model = { layers = 1, width = 32, rate = 0.0 }
optimizer = { lr = 1e-3 }
"""
SPACE = """
from hpo.config import MLP, Adam, TrialConfig

def space(suggester):
    first = suggester.suggest_int("first", 16, 64)
    second = suggester.suggest_int("second", 8, first)  # no wider than the first: a relation between ranges
    rate = suggester.suggest_float("lr", 1e-3, 1e-1, log=True)
    return TrialConfig("", MLP((first, second), (0.0, 0.0)), Adam(rate / first), batch_size=32, epochs=1)
"""


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(user_code.NAMED, "")
    user_code.load_function.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_models.py").write_text(NETWORK)
    (tmp_path / "mine.toml").write_text(NETWORK_SPACE)
    (tmp_path / "my_space.py").write_text(SPACE)
    (tmp_path / "related.toml").write_text('data = "digits"\nepochs = 3\npython = "my_space.py:space"\n')
    return tmp_path


def test_a_function_of_ones_own_is_searched(folder: Path) -> None:
    space = load_space(str(folder / "mine.toml"), trust_code=True)
    config = space.draw(RandomSuggester(3), seed=3)
    assert isinstance(config.model, PythonNetwork) and config.model.digest == user_code.digest_of(
        folder / "my_models.py"
    )
    assert list(config.model.params) == ["layers", "width", "rate"]
    assert isinstance(config.model.params["width"], int) and config.model.params["width"] % 16 == 0
    first, again = (build_model(config.model, (1, 8, 8), 10, seed=3).state_dict() for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    baseline = space.draw(FixedSuggester(space.baselines[0].values()), seed=0)
    assert parameter_count(build_model(baseline.model, (1, 8, 8), 10)) == 64 * 32 + 32 + 32 * 10 + 10
    assert space.draw(FixedSuggester(draws_for(space, config)), seed=3) == config


def test_a_space_of_ones_own_relates_what_ranges_cannot(folder: Path) -> None:
    space = load_space(str(folder / "related.toml"), trust_code=True)
    for seed in range(50):
        config = space.draw(RandomSuggester(seed), seed)
        assert isinstance(config.model, MLP) and config.model.widths[1] <= config.model.widths[0]
        assert (config.data, config.epochs, config.seed) == ("digits", 3, seed)


def test_reading_a_space_lets_no_code_run(folder: Path) -> None:
    network = load_space(str(folder / "mine.toml")).draw(RandomSuggester(0), 0).model
    with pytest.raises(UsageError, match="runs only if you name it"):
        build_model(network, (1, 8, 8), 10)
    with pytest.raises(UsageError, match="runs only if you name it"):
        load_space(str(folder / "related.toml")).draw(RandomSuggester(0), 0)
    assert os.environ[user_code.NAMED] == "" and user_code.SESSION.paths == []
    load_space(str(folder / "mine.toml"), trust_code=True)
    assert user_code.SESSION.paths == [folder / "my_models.py"], "the workers inherit it"
    build_model(network, (1, 8, 8), 10)


def test_trust_is_kept_in_the_environment_that_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("x = 1")
    environment: dict[str, str] = {}
    trusted = user_code.TrustedCode(environment)
    digest = trusted.trust(path)
    assert trusted.trust(path) == digest and environment == {"HPO_PYTHON": str(path)}
    assert user_code.TrustedCode(environment).path_of("a.py:f", digest) == path
    path.write_text("x = 2")
    with pytest.raises(UsageError, match="the unchanged file"):
        trusted.path_of("a.py:f", digest)
    with pytest.raises(UsageError, match="cannot be read"):
        trusted.trust(tmp_path / "none.py")


def test_code_runs_only_if_its_user_names_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = load_space(str(folder / "mine.toml"), trust_code=True).draw(RandomSuggester(0), 0).model
    monkeypatch.setenv(user_code.NAMED, "")  # as in another session, with the study from a store
    user_code.load_function.cache_clear()
    with pytest.raises(UsageError, match=r"my_models.py:build: is Python code .* Add --python my_models.py"):
        build_model(network, (1, 8, 8), 10)
    (folder / "my_models.py").write_text(NETWORK + "# changed\n")
    user_code.trust(folder / "my_models.py")
    with pytest.raises(UsageError, match="the unchanged file"):
        build_model(network, (1, 8, 8), 10)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def build(p, s, c): return 3", r"must return a torch.nn.Module, got int. Fix the function."),
        ("def build(p, s, c): 1 / 0", r"failed with ZeroDivisionError: division by zero for params"),
        (
            "from torch import nn\ndef build(p, s, c): return nn.Linear(9, c)",
            r"must take \[rows, 1, 8, 8\], got Runt",
        ),
        (
            "from torch import nn\ndef build(p, s, c): return nn.Sequential(nn.Flatten(), nn.Linear(64, 5))",
            r"must return logits \[2, 10\] for 2 rows, got \[2, 5\]. Fix the network.",
        ),
        ("import nonsense", r"cannot be imported: ModuleNotFoundError: No module named 'nonsense'"),
        ("def other(): pass", r"must have a function build, got none"),
    ],
)
def test_a_function_that_is_wrong_is_refused_in_one_line(folder: Path, source: str, message: str) -> None:
    (folder / "my_models.py").write_text(source)
    network = load_space(str(folder / "mine.toml"), trust_code=True).draw(RandomSuggester(0), 0).model
    with pytest.raises(ModelError, match=message) as caught:
        build_model(network, (1, 8, 8), 10)
    assert "\n" not in str(caught.value)


def test_references_are_checked(folder: Path) -> None:
    for wrong, message in (("my_models.build", "must be FILE.py:FUNCTION"), ("no.py:build", "no.py: no such file")):
        (folder / "mine.toml").write_text(NETWORK_SPACE.replace("my_models.py:build", wrong))
        with pytest.raises(DocumentError, match=message):
            load_space(str(folder / "mine.toml"), trust_code=True)
    document = 'data = "digits"\nepochs = 3\npython = "my_space.py:space"\n'
    (folder / "related.toml").write_text(document + "[mlp]\ndepth = 1\nwidth = 8\n")
    with pytest.raises(DocumentError, match=r"exactly one of \[mlp\], .* is required, got mlp and python"):
        load_space(str(folder / "related.toml"), trust_code=True)
    (folder / "my_space.py").write_text("def space(suggester): return suggester.suggest_int('a', 1)")
    (folder / "related.toml").write_text(document)
    with pytest.raises(HpoError, match=r"my_space\.py:space: failed with TypeError"):
        load_space(str(folder / "related.toml"), trust_code=True).draw(RandomSuggester(0), 0)


def hpo(*arguments: str, folder: Path, code: int = 0) -> command.Ended:
    environment = {k: v for k, v in os.environ.items() if k != "HPO_PYTHON"}
    environment["HPO_STORAGE"] = f"sqlite:///{folder}/studies.db"
    return command.hpo(*arguments, folder=folder, environment=environment, code=code)


@pytest.mark.slow
def test_a_network_of_ones_own_goes_from_run_to_predict(folder: Path) -> None:
    run = ["run", "--trials", "3", "--workers", "1", "--device", "cpu"]
    hpo(*run, "--space", "mine.toml", folder=folder)
    more = ["run", "--study", "mine", "--trials", "4", "--workers", "1", "--device", "cpu"]
    assert "Add --python my_models.py" in hpo(*more, folder=folder, code=2).stderr
    hpo(*more, "--python", "my_models.py", folder=folder)
    hpo("export", "mine", "-o", "best.toml", folder=folder)
    assert "Add --python my_models.py" in hpo("train", "best.toml", folder=folder, code=2).stderr
    hpo("train", "best.toml", "-o", "best", "--python", "my_models.py", folder=folder)
    assert (folder / "best" / "my_models.py").read_text() == NETWORK
    import numpy as np

    np.savez(folder / "rows.npz", x=np.zeros((3, 1, 8, 8), dtype=np.float32))
    said = hpo("predict", "best", "rows.npz", "--json", "--python", "best/my_models.py", folder=folder)
    assert len(json.loads(said.stdout)) == 3
    (folder / "my_models.py").write_text(NETWORK.replace("nn.Linear(features, classes)", "nn.Linear(features, 3)"))
    wrong = hpo(*run, "--space", "mine.toml", "--study", "wrong", folder=folder, code=1).stderr
    assert "must return logits [2, 10] for 2 rows, got [2, 3]" in wrong
    listed = hpo("studies", "list", "--json", folder=folder).stdout
    assert [study["name"] for study in json.loads(listed)] == ["mine"], "nothing is made of what is wrong"


@pytest.mark.slow
def test_a_space_of_ones_own_is_run(folder: Path) -> None:
    hpo("run", "--space", "related.toml", "--trials", "2", "--workers", "1", "--device", "cpu", folder=folder)
    shown = json.loads(hpo("trials", "show", "related", "0", "--json", folder=folder).stdout)
    assert {"first", "second", "lr"} == set(shown["params"])


# Code that is not what was named


def test_compiled_code_beside_the_source_does_not_run(folder: Path) -> None:
    """A .pyc that says of itself that it needs no check holds other code, of the file and of what it imports."""
    ran = folder / "ran"
    (folder / "my_helper.py").write_text("VALUE = 1\n")
    (folder / "my_models.py").write_text("import my_helper\n" + NETWORK)
    for name in ("my_models", "my_helper"):
        other = folder / "other.py"
        other.write_text(f"open({str(ran)!r}, 'w')\nVALUE = 2\n" + NETWORK)
        compiled = importlib.util.cache_from_source(str(folder / f"{name}.py"))
        py_compile.compile(str(other), compiled, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    network = load_space(str(folder / "mine.toml"), trust_code=True).draw(RandomSuggester(0), 0).model
    build_model(network, (1, 8, 8), 10)
    assert not ran.exists() and sys.modules.pop("my_helper").VALUE == 1
    assert sys.pycache_prefix is None and str(folder) not in sys.path
    importlib.invalidate_caches()


def test_a_file_that_is_exchanged_after_its_check_does_not_run(folder: Path) -> None:
    """The file is read once: whoever exchanges it when it is opened again comes too late."""
    path, ran, opened = folder / "my_models.py", folder / "ran", []
    network = load_space(str(folder / "mine.toml"), trust_code=True).draw(RandomSuggester(0), 0).model
    watching = True

    def exchange(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open" and str(arguments[0]) == str(path):
            opened.append(arguments[1])
            if len(opened) == 2:
                other = folder / "other.py"
                other.write_text(f"open({str(ran)!r}, 'w')\n" + NETWORK)
                other.replace(path)

    sys.addaudithook(exchange)
    build_model(network, (1, 8, 8), 10)
    watching = False
    assert len(opened) == 1 and not ran.exists()


def test_a_space_that_was_found_by_its_name_lets_no_code_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document in ./search_spaces hides the package's of the same name, in a folder that may be anyone's."""
    monkeypatch.chdir(folder)
    hidden = folder / "search_spaces"
    hidden.mkdir()
    (folder / "mine.toml").rename(hidden / "ann_digits.toml")
    (folder / "my_models.py").rename(hidden / "my_models.py")
    network = load_space("ann_digits", trust_code=True).draw(RandomSuggester(0), 0).model
    with pytest.raises(UsageError, match="runs only if you name it"):
        build_model(network, (1, 8, 8), 10)
    load_space("search_spaces/ann_digits.toml", trust_code=True)
    build_model(network, (1, 8, 8), 10)


def test_child_processes_import_nothing_from_the_working_folder(tmp_path: Path) -> None:
    """A file there named as a module of Python's or torch does not run."""
    for name in ("torch", "json", "numpy"):
        (tmp_path / f"{name}.py").write_text("print('ran')")
    for arguments in (["-c", "import json; print(json.dumps(1))"], ["-m", "json.tool", "--help"]):
        done = subprocess.run(python(*arguments), cwd=tmp_path, capture_output=True, text=True, check=True)
        assert "ran" not in done.stdout
    started = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "hpo").rglob("*.py")
        if "sys.executable" in path.read_text(encoding="utf-8")
    ]
    assert started == ["hpo/interpreter.py"], "all child processes are started by the same command"
