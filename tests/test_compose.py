"""The compose file, without a Docker engine: it fits the specification, and its services do their work.

Each service's own command runs with its own environment against a local Postgres, in the order that
`depends_on` gives, until a small study is done and the dashboard answers.
"""

import base64
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers import command
from tests.helpers.postgres import PASSWORD, Postgres

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
FILE = ROOT / "docker-compose.yml"


def interpolated(value: Any, environment: dict[str, str]) -> Any:
    """Fill in ${NAME}, ${NAME:-default} and ${NAME:?error} as the specification says. Raises: KeyError."""
    if isinstance(value, dict):
        return {key: interpolated(entry, environment) for key, entry in value.items()}
    if isinstance(value, list):
        return [interpolated(entry, environment) for entry in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if environment.get(name):
            return environment[name]
        if kind == ":-":
            return rest
        raise KeyError(f"{name}: {rest}")

    return re.sub(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}", fill, value)


def services(**environment: str) -> dict[str, Any]:
    found: dict[str, Any] = interpolated(yaml.safe_load(FILE.read_text())["services"], environment)
    return found


def test_the_file_fits_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    check = subprocess.run(command, capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout


def test_no_password_has_a_default() -> None:
    for given in ({}, {"POSTGRES_PASSWORD": "x"}, {"HPO_DASHBOARD_AUTH": "a:b"}):
        with pytest.raises(KeyError, match=r"set (POSTGRES_PASSWORD|HPO_DASHBOARD_AUTH)"):
            services(**given)
    assert "x" not in services(POSTGRES_PASSWORD="x", HPO_DASHBOARD_AUTH="a:b")["worker"]["environment"]["HPO_STORAGE"]


def test_nothing_is_published_beyond_this_machine() -> None:
    for service in services(POSTGRES_PASSWORD="x", HPO_DASHBOARD_AUTH="a:b").values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_services_start_in_order_and_again_after_a_fault() -> None:
    found = services(POSTGRES_PASSWORD="x", HPO_DASHBOARD_AUTH="a:b")
    assert found["postgres"]["healthcheck"]["test"][1].startswith("pg_isready")
    assert any(volume.endswith(":/var/lib/postgresql/data") for volume in found["postgres"]["volumes"])
    assert found["init"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    for name in ("worker", "dashboard"):
        assert found[name]["depends_on"]["init"]["condition"] == "service_completed_successfully"
        assert found[name]["restart"] in ("on-failure", "unless-stopped")
    [gpu] = found["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert gpu["capabilities"] == ["gpu"]
    assert "container_name" not in found["worker"] and "ports" not in found["worker"]  # so that it scales


def test_the_image_has_what_the_services_call() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["hpo"]' in text and "USER hpo" in text
    for copied in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        for name in copied.split():
            assert (ROOT / name).exists()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    running = Postgres()
    yield running
    running.remove()


def test_the_services_do_their_work(server: Postgres, tmp_path: Path) -> None:
    auth = "ann:" + "word"
    found = services(POSTGRES_PASSWORD=PASSWORD, HPO_DASHBOARD_AUTH=auth, HPO_SPACE="ann_digits", HPO_TRIALS="4")
    (tmp_path / "runs").mkdir()

    def start(name: str, *more: str) -> command.Process:
        """What the container would do, with its paths and the database's address on this machine."""
        service = found[name]
        environment = {
            key: value.replace("@postgres:5432", f"@127.0.0.1:{server.port}")
            .replace("/data", str(tmp_path / "data"))
            .replace("/runs", str(tmp_path / "runs"))
            for key, value in service["environment"].items()
        }
        path = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        return command.start(*service["command"], *more, folder=tmp_path / "runs", environment=path | environment)

    def finish(process: command.Process) -> str:
        assert process.wait(120) == 0, process.stderr
        err = process.stderr
        assert PASSWORD not in err and "word" not in err
        return err

    assert 'made study "ann_digits": up to 4 trials' in finish(start("init"))
    assert 'study "ann_digits" was there' in finish(start("init"))  # `docker compose up` a second time
    workers = [start("worker", "--device", "cpu") for _ in range(2)]
    assert all("done: all 4 trials are finished" in finish(worker) for worker in workers)

    dashboard = start("dashboard", "--port", "0")
    try:
        address = dashboard.first_error_line().partition("is shown at ")[2].split("/dashboard")[0]
        assert address.startswith("http://localhost:")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{address}/api/studies", timeout=20)
        token = base64.b64encode(auth.encode()).decode()
        request = urllib.request.Request(f"{address}/api/studies", headers={"Authorization": f"Basic {token}"})
        for _ in range(20):
            with urllib.request.urlopen(request, timeout=20) as answer:
                names = [study["study_name"] for study in json.loads(answer.read())["study_summaries"]]
            if names:
                break
            time.sleep(0.5)
        assert names == ["ann_digits"]
    finally:
        dashboard.terminate()
        dashboard.wait(20)
