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

from hpo.dashboard.credentials import hashed
from tests.helpers import command
from tests.helpers.documents import shorten
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

    return re.sub(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}", fill, value).replace("$$", "$")


def services(**environment: str) -> dict[str, Any]:
    found: dict[str, Any] = interpolated(yaml.safe_load(FILE.read_text())["services"], environment)
    return found


def test_the_file_fits_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    check = subprocess.run(command, capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout


def test_passwords_come_from_files_that_git_and_the_image_leave_out() -> None:
    secrets = yaml.safe_load(FILE.read_text())["secrets"]
    assert {name: entry["file"] for name, entry in secrets.items()} == {
        "postgres_password": "./secrets/postgres_password",
        "dashboard_auth": "./secrets/dashboard_auth",
    }
    found = services(POSTGRES_PASSWORD="x", HPO_DASHBOARD_AUTH="a:b", PGPASSWORD="x")
    for service in found.values():
        assert "postgres_password" in service["secrets"]
        assert {"x", "a:b"}.isdisjoint(service.get("environment", {}).values())
    assert found["postgres"]["environment"]["POSTGRES_PASSWORD_FILE"] == "/run/secrets/postgres_password"
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    kept = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines() and "!secrets" not in kept


def test_every_service_has_limits_and_what_serves_has_a_health_check() -> None:
    found = services()
    for name, service in found.items():
        assert {"cpus", "memory", "pids"} <= service["deploy"]["resources"]["limits"].keys(), name
    assert [name for name, service in found.items() if "healthcheck" in service] == ["postgres", "dashboard"]


def test_nothing_is_published_beyond_this_machine() -> None:
    for service in services().values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_services_start_in_order_and_again_after_a_fault() -> None:
    found = services()
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
    found = services(HPO_SPACE="ann_digits", HPO_TRIALS="4")
    for folder in ("runs", "secrets", "bin"):
        (tmp_path / folder).mkdir()
    shorten(tmp_path / "runs", epochs=10)
    (tmp_path / "secrets" / "postgres_password").write_text(f"{PASSWORD}\n")
    (tmp_path / "secrets" / "dashboard_auth").write_text(f"{hashed('ann', 'word')}\n")
    (tmp_path / "secrets" / "dashboard_auth").chmod(0o600)
    (tmp_path / "bin" / "hpo").write_text('#!/bin/sh\nprintf "%s" "$PGPASSWORD"\n')
    (tmp_path / "bin" / "hpo").chmod(0o755)

    def password_of(service: dict[str, Any]) -> str:
        """What the entrypoint gives to the program that it starts."""
        entrypoint = [part.replace("/run/secrets", str(tmp_path / "secrets")) for part in service["entrypoint"]]
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(entrypoint, env={"PATH": path}, capture_output=True, text=True, check=True).stdout

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
        environment |= path | {"PGPASSWORD": password_of(service)}
        arguments = [part.replace("/run/secrets", str(tmp_path / "secrets")) for part in service["command"]]
        return command.start(*arguments, *more, folder=tmp_path / "runs", environment=environment)

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
