"""A schedule's pod on Kubernetes: what its container runs, run here by `sh` against a stand-in for kubectl."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.manifests import cronjob
from tests.support import REPOSITORY

FAKE_KUBECTL = REPOSITORY / "tests" / "servers" / "fake_kubectl.py"
JOB_NAME, JOB_UID = "label-corpus-reviews-29000000", "8f2f1bd4-95a8-4b2f-9c7e-0d3ad2a2a6a1"
LABELS = {"app.kubernetes.io/name": "label-corpus", "app.kubernetes.io/instance": "label-corpus-reviews"}
OVER = ("Complete/SUCCEEDED", "Complete/STOPPED", "Failed/FAILED", "ValidationFailed")
NOT_OVER = ("", "Initializing", "Running/RUNNING", "Suspended", "Retrying", "Waiting")


@dataclass(frozen=True)
class Pod:
    """The tick's container on this machine: its volumes and command as the CronJob gives them, and a kubectl of ours."""

    folder: Path

    def __post_init__(self) -> None:
        documents = list(yaml.safe_load_all(cronjob("label-corpus-reviews", "a: 1\n", "0 2 * * *", "Etc/UTC", "it:1")))
        by_kind = {document["kind"]: document for document in documents}
        pod = by_kind["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        [container], [volume] = pod["containers"], pod["volumes"]
        [mount] = container["volumeMounts"]
        assert volume["configMap"]["name"] == by_kind["ConfigMap"]["metadata"]["name"]
        for item in volume["configMap"]["items"]:
            path = self.path(mount["mountPath"]) / item["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(by_kind["ConfigMap"]["data"][item["key"]])
        self.path("bin").mkdir()
        kubectl = self.path("bin/kubectl")
        kubectl.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE_KUBECTL}" "$@"\n')
        kubectl.chmod(0o755)
        self.path("rayjobs").mkdir()
        (self.path("container.json")).write_text(json.dumps(container))

    def path(self, path: str) -> Path:
        return self.folder / path.lstrip("/")

    def runs(self) -> tuple[int, str]:
        """Runs the container's command; returns its exit code and all it says."""
        container = json.loads(self.path("container.json").read_text())
        labels = {"job-name": JOB_NAME, "controller-uid": JOB_UID}
        environment = {"PATH": f"{self.path('bin')}:/usr/bin:/bin", "RAYJOBS": str(self.path("rayjobs"))}
        for variable in container["env"]:
            if "value" in variable:
                value = variable["value"]
                environment[variable["name"]] = str(self.path(value)) if value.startswith("/") else value
            else:
                label = variable["valueFrom"]["fieldRef"]["fieldPath"].split("/")[1].rstrip("']")
                environment[variable["name"]] = labels[label]
        environment["POLL_SECONDS"] = "0"
        command = [str(self.path(part)) if part.startswith("/") else part for part in container["command"]]
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, cwd=os.sep)
        return finished.returncode, finished.stdout + finished.stderr

    def has(self, name: str, status: str, *, uid: str = "another", labels: dict[str, str] | None = None) -> None:
        """There is a RayJob already."""
        rayjob: dict[str, Any] = {"metadata": {"name": name, "labels": labels or LABELS, "ownerReferences": [{"uid": uid}]}}
        if status:
            rayjob["status"] = dict(zip(("jobDeploymentStatus", "jobStatus"), status.split("/"), strict=False))
        (self.path("rayjobs") / f"{name}.json").write_text(json.dumps(rayjob))

    def will(self, file: str, *lines: str) -> None:
        (self.path("rayjobs") / file).write_text("".join(f"{line}\n" for line in lines))

    def rayjobs(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.path("rayjobs").glob("*.json"))]


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


def test_tick_creates_one_rayjob_that_belongs_to_its_job_and_ends_with_it(pod: Pod) -> None:
    pod.will("statuses", "Initializing", "Running/RUNNING", "Complete/SUCCEEDED")
    code, said = pod.runs()
    assert (code, "succeeded" in said) == (0, True)
    [rayjob] = pod.rayjobs()
    assert rayjob["metadata"]["name"].startswith("label-corpus-reviews-")
    assert LABELS.items() <= rayjob["metadata"]["labels"].items()
    assert rayjob["metadata"]["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": JOB_NAME, "uid": JOB_UID}
    ]


@pytest.mark.parametrize("status", NOT_OVER)
def test_tick_while_a_rayjob_of_the_schedule_runs_is_skipped(pod: Pod, status: str) -> None:
    pod.has("label-corpus-reviews-aaaaa", "Complete/SUCCEEDED")
    pod.has("label-corpus-reviews-bbbbb", status)
    code, said = pod.runs()
    assert (code, len(pod.rayjobs())) == (0, 2)
    assert "skipped" in said
    assert "label-corpus-reviews-bbbbb" in said


@pytest.mark.parametrize("status", OVER)
def test_tick_after_a_rayjob_that_is_over_creates_another(pod: Pod, status: str) -> None:
    pod.has("label-corpus-reviews-aaaaa", status)
    pod.will("statuses", "Complete/SUCCEEDED")
    code, _ = pod.runs()
    assert (code, len(pod.rayjobs())) == (0, 2)


def test_tick_while_another_schedule_runs_is_not_skipped(pod: Pod) -> None:
    pod.has("label-corpus-news-aaaaa", "Running/RUNNING", labels=LABELS | {"app.kubernetes.io/instance": "label-corpus-news"})
    pod.will("statuses", "Complete/SUCCEEDED")
    code, _ = pod.runs()
    assert (code, len(pod.rayjobs())) == (0, 2)


@pytest.mark.parametrize("status", OVER[1:])
def test_tick_whose_rayjob_does_not_succeed_fails_for_good(pod: Pod, status: str) -> None:
    pod.will("statuses", "Running/RUNNING", status)
    code, said = pod.runs()
    assert (code, len(pod.rayjobs())) == (1, 1)
    assert status.split("/")[0] in said


def test_tick_whose_rayjob_is_deleted_fails_for_good(pod: Pod) -> None:
    pod.will("statuses", "Running/RUNNING", "deleted")
    code, said = pod.runs()
    assert (code, pod.rayjobs()) == (1, [])
    assert "gone" in said


@pytest.mark.parametrize(
    ("status", "expected"), [("Running/RUNNING", 0), ("", 0), ("Complete/SUCCEEDED", 0), ("Failed/FAILED", 1)]
)
def test_tick_in_a_second_pod_waits_for_the_first_ones_rayjob(pod: Pod, status: str, expected: int) -> None:
    pod.has("label-corpus-reviews-aaaaa", "Failed/FAILED")
    pod.has("label-corpus-reviews-bbbbb", status, uid=JOB_UID)
    pod.will("statuses", status, status if status in OVER else "Complete/SUCCEEDED")
    code, _ = pod.runs()
    assert (code, len(pod.rayjobs())) == (expected, 2)


@pytest.mark.parametrize("answers", [["refused"], ["", "refused"]], ids=["asking", "creating"])
def test_tick_that_kubernetes_refuses_is_to_be_tried_again(pod: Pod, answers: list[str]) -> None:
    pod.will("answers", *answers)
    code, said = pod.runs()
    assert (code, pod.rayjobs()) == (2, [])
    assert "unable to handle" in said
    pod.will("statuses", "Complete/SUCCEEDED")
    assert (pod.runs()[0], len(pod.rayjobs())) == (0, 1)


def test_tick_goes_on_waiting_when_kubernetes_does_not_answer(pod: Pod) -> None:
    pod.will("answers", "", "", "refused", "refused")
    pod.will("statuses", "Running/RUNNING", "Complete/SUCCEEDED")
    code, said = pod.runs()
    assert (code, len(pod.rayjobs())) == (0, 1)
    assert "unable to handle" in said
