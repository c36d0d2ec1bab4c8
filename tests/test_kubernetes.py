"""The Kubernetes manifests: valid by Kubernetes' own schemas, limited, without passwords, with hpo's real options."""

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
import yaml
from kubernetes_validate import ValidationError, validate

from hpo.cli.app import command_tree
from tests.helpers.documents import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
VERSION = "1.31"
RAY_JOB = {
    "backoffLimit",
    "entrypoint",
    "rayClusterSpec",
    "shutdownAfterJobFinishes",
    "submissionMode",
    "ttlSecondsAfterFinished",
}
RAY_GROUP = {"groupName", "maxReplicas", "minReplicas", "rayStartParams", "replicas", "template"}
"""Fields of a RayJob (ray.io/v1) that the manifest may use; its schema is in no package, that of its pods is."""


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


def groups() -> list[dict[str, Any]]:
    """Return the groups of pods of the RayJob."""
    [job] = documents("rayjob.yaml")
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def pods() -> Iterator[dict[str, Any]]:
    """Yield the spec of every pod."""
    yield documents("job.yaml")[1]["spec"]["template"]["spec"]
    yield from (group["template"]["spec"] for group in groups())


def test_the_job_is_valid() -> None:
    assert [document["kind"] for document in documents("job.yaml")] == ["ConfigMap", "Job"]
    for document in documents("job.yaml"):
        validate(document, VERSION, strict=True)


def test_the_ray_job_is_valid() -> None:
    [job] = documents("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(job["spec"]) <= RAY_JOB
    for group in groups():
        assert set(group) <= RAY_GROUP
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": group["template"]["spec"]}
        validate(pod, VERSION, strict=True)


def test_a_mistake_is_seen() -> None:
    document = documents("job.yaml")[1]
    document["spec"]["template"]["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(ValidationError):
        validate(document, VERSION, strict=True)


def test_every_container_is_limited_confined_and_has_its_secrets_from_a_secret() -> None:
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert set(container["resources"]["limits"]) >= {"cpu", "memory"}
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            secret = [entry["name"] for entry in container["env"] if "secretKeyRef" in entry.get("valueFrom", {})]
            assert secret == ["PGPASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
    settings = documents("job.yaml")[0]["data"]
    assert ":" not in settings["HPO_STORAGE"].partition("://")[2].partition("@")[0]


def test_the_commands_are_ones_that_hpo_has() -> None:
    pod = documents("job.yaml")[1]["spec"]["template"]["spec"]
    [ray_job] = documents("rayjob.yaml")
    commands = [each["args"] for each in (*pod["initContainers"], *pod["containers"])]
    commands.append(shlex.split(ray_job["spec"]["entrypoint"].removeprefix("hpo ")))
    tree = command_tree()
    for name, *options in commands:
        command = tree.commands[name]
        parameters = command.make_context(name, list(options), resilient_parsing=True).params
        assert parameters, name
        known = {option for parameter in command.params for option in parameter.opts}
        assert {option for option in options if option.startswith("--")} <= known
    assert isinstance(tree, typer.core.TyperGroup)
