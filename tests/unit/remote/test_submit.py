"""What a submission is called, what travels with it, and the log of a job over connections that break."""

import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import job_log
from cluster.jobs_api import ClusterError, Submission
from cluster.session import WORKER_ENVIRONMENT, environment_values, jobs_address, jobs_address_is, worker_environment
from jobs.config import load_job
from jobs.console.signals import Interrupted
from jobs.remote.follow import exit_code, follow, result_in
from jobs.remote.runtime_env import SubmitOptions, entrypoint_request
from jobs.remote.submit import submission_id as identity_of
from jobs.remote.submit import submission_prefix, submit_job
from pipeline_ops.schema.errors import UserError
from tests.support.running import write_job_file

TICK = datetime(2026, 11, 22, 2, 0, 30, tzinfo=UTC)
SETTINGS = {"input": {"path": "s3://corpus/in"}, "model": {"path": "some/model"}, "output": {"path": "s3://corpus/out"}}


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    return write_job_file(tmp_path / "jobs of mine" / "reviews (new).yaml", SETTINGS)


class ShellCluster:
    """Runs an entrypoint as Ray does: by the shell, in the working folder if one travels."""

    def __init__(self) -> None:
        self.runtime_env: dict[str, Any] = {}
        self.received: dict[str, Any] = {}
        self.modules: list[str] = []

    def submit(self, submission_id: str, entrypoint: str, *, runtime_env: dict[str, Any], **_: Any) -> bool:
        self.runtime_env = runtime_env
        output = subprocess.run(entrypoint, shell=True, capture_output=True, check=True, cwd=runtime_env.get("working_dir"))
        self.received = json.loads(output.stdout)
        self.modules = [Path(path).name for path in runtime_env.get("py_modules", [])]
        return True


@pytest.fixture
def python(tmp_path: Path) -> str:
    """An interpreter that tells what it has been asked to run, and the job file it finds."""
    path = tmp_path / "my python"
    program = "import json, sys; print(json.dumps({'arguments': sys.argv[1:], 'job': open(sys.argv[4]).read()}))"
    path.write_text(f"#!{sys.executable}\n{program}\n")
    path.chmod(0o755)
    return str(path)


def submitted(job_file: Path, options: SubmitOptions, *overrides: str) -> tuple[str, ShellCluster]:
    cluster = ShellCluster()
    submission_id, _ = submit_job(cluster, str(job_file), [*overrides], options, TICK)  # pyright: ignore[reportArgumentType]
    return submission_id, cluster


def test_submission_is_called_by_job_file_output_and_tick(job_file: Path, python: str) -> None:
    submission_id, _ = submitted(job_file, SubmitOptions("", python=python))
    prefix = submission_prefix(str(job_file), load_job(str(job_file)))
    assert submission_id == f"{prefix}20261122T020030Z"
    assert identity_of(str(job_file), load_job(str(job_file)), TICK.replace(second=0)) == f"{prefix}20261122T0200Z"
    assert prefix.startswith("reviews-new-")


def test_prefix_is_that_of_the_output(job_file: Path) -> None:
    def prefix(*overrides: str) -> str:
        return submission_prefix(str(job_file), load_job(str(job_file), [*overrides]))

    assert prefix() == prefix("compute.batch_tokens=64") == prefix("output.path=s3://corpus/out/")
    others = {prefix("output.path=s3://corpus/other"), prefix("storage.endpoint_url=http://minio:9000")}
    assert len({prefix(), *others}) == 3


@pytest.mark.parametrize("how", ["alone", "in_a_folder", "beside_an_image"])
def test_entrypoint_runs_the_job_with_its_overrides_as_they_are(job_file: Path, python: str, how: str) -> None:
    options = {
        "alone": SubmitOptions("", python=python),
        "in_a_folder": SubmitOptions("", python=python, working_dir=str(job_file.parent.parent)),
        "beside_an_image": SubmitOptions("", python=python, image="registry/label-corpus:1"),
    }[how]
    options = replace(options, run_flags=("--retry-failed",))
    overrides = ("output.partition_by=[label, $(whoami)]", "input.text_column='it''s; the \"text\"'")
    _, cluster = submitted(job_file, options, *overrides)
    module, command, path, *rest = cluster.received["arguments"][1:]
    assert (module, command) == ("jobs.cli", "run")
    assert rest == [*overrides, "--retry-failed"]
    assert yaml.safe_load(cluster.received["job"]) == SETTINGS
    assert path == {"alone": job_file.name, "in_a_folder": f"jobs of mine/{job_file.name}"}.get(how, "/dev/stdin")
    assert ("image_uri" in cluster.runtime_env, "working_dir" in cluster.runtime_env) == (
        how[:6] == "beside",
        how[:6] != "beside",
    )


def test_environment_that_travels_is_the_files_and_the_named_variables(
    job_file: Path, python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "value")
    further = tmp_path / "environment.yaml"
    further.write_text("pip: [tiktoken]\nenv_vars: {MODE: fast}\n")
    options = SubmitOptions("", python=python, env=("SECRET",), runtime_env=str(further), ship_code=True)
    _, cluster = submitted(job_file, options)
    assert cluster.runtime_env["env_vars"].items() >= {"SECRET": "value", "MODE": "fast"}.items()
    assert cluster.runtime_env["pip"] == ["tiktoken"]
    assert {"jobs", "pipeline_ops", "cluster"} <= {*cluster.modules}
    assert any(name.startswith("label_corpus-") for name in cluster.modules), "the program's version is recorded with labels"


MISTAKES = {
    "variable that is not set": ({"env": ("NO_SUCH_VARIABLE",)}, "", "--env NO_SUCH_VARIABLE"),
    "variable given twice": ({"env": ("PATH",)}, "env_vars: {PATH: /bin}", "--env PATH"),
    "folder in the file": ({}, "working_dir: .", "--working-dir"),
    "image in the file": ({}, "image_uri: a", "--image"),
    "no keys in the file": ({}, "[pip]", "--runtime-env"),
    "no YAML in the file": ({}, "{", "--runtime-env"),
    "folder without the job file": ({"working_dir": "/usr"}, "", "--working-dir"),
    "no folder": ({"working_dir": "/no/such/folder"}, "", "--working-dir"),
    "image and folder": ({"image": "a", "working_dir": "."}, "", "--image"),
    "image and code": ({"image": "a", "ship_code": True}, "", "--image"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_option_that_does_not_do_is_named(job_file: Path, python: str, tmp_path: Path, mistake: str) -> None:
    settings, content, option = MISTAKES[mistake]
    further = tmp_path / "environment.yaml"
    further.write_text(content)
    options = SubmitOptions("", python=python, runtime_env=str(further), **settings)
    with pytest.raises(UserError, match=option) as raised:
        submitted(job_file, options)
    assert "\n" not in str(raised.value)


def test_driver_asks_for_what_is_given_only(tmp_path: Path) -> None:
    path = tmp_path / "entrypoint.yaml"

    def request(text: str) -> dict[str, Any]:
        path.write_text(text)
        return entrypoint_request(str(path))

    assert entrypoint_request(None) == request("") == request("{num_cpus: 0, resources: {}}") == {}
    wanted = {"entrypoint_num_cpus": 2, "entrypoint_memory": 2**30, "entrypoint_resources": {"driver": 1}}
    assert request("{num_cpus: 2, memory: 1073741824, resources: {driver: 1}}") == wanted


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("num_cpu: 1", "num_cpu"),
        ("num_cpus: many", "num_cpus"),
        ("memory: -1", "memory"),
        ("resources: driver", "resources"),
        ("resources: {driver: one}", "resources: invalid value 'one'"),
        ("[num_cpus]", "entrypoint.yaml"),
        ("num_cpus: [", "not valid YAML"),
        (None, "entrypoint.yaml"),
    ],
)
def test_mistake_in_what_the_driver_needs_is_one_line(tmp_path: Path, text: str | None, named: str) -> None:
    path = tmp_path / "entrypoint.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=r"^--entrypoint: ") as raised:
        entrypoint_request(str(path))
    assert named in str(raised.value)
    assert "\n" not in str(raised.value)


def job_in(status: str, code: int | None = None) -> Submission:
    return Submission("job-1", status, code, "", None, None, {})


@pytest.mark.parametrize(
    ("job", "code"),
    [
        (job_in("SUCCEEDED", 0), 0),
        (job_in("FAILED", 2), 2),
        (job_in("FAILED", -9), 137),
        (job_in("FAILED"), 1),
        (job_in("STOPPED"), 143),
        (job_in("RUNNING"), None),
    ],
)
def test_exit_code_is_as_a_shell_has_it(job: Submission, code: int | None) -> None:
    assert exit_code(job) == code


def test_result_of_a_run_is_told_from_what_else_a_log_holds() -> None:
    result = {"documents": 3, "labeled": 3, "rejected": 0, "units": 1, "output": "s3://corpus/out"}
    assert result_in(json.dumps(result)) == result
    for line in ("", "{not JSON", '{"documents": 3, "event": "unit committed"}', "60 documents, 1 of about 1 units"):
        assert result_in(line) is None


LOG = "one\ntwo\nзавтра\nfour\nfive\n"


class BrokenClient:
    """Ray's websocket: always from the log's beginning, ending for reasons of its own."""

    def __init__(self, *streams: list[str], ending: type[BaseException] | None):
        self.streams, self.ending = list(streams), ending

    async def tail_job_logs(self, _: str) -> AsyncIterator[str]:
        for text in self.streams.pop(0):
            yield text
        if self.ending is not None:
            raise self.ending("connection closed")


class BrokenCluster:
    """Runs one job for as long as there are streams left."""

    address = "http://head:8265"

    def __init__(self, client: BrokenClient):
        self.client = client

    def find(self, submission_id: str) -> Submission | None:
        if submission_id != "job-1":
            return None
        return job_in("RUNNING") if self.client.streams else job_in("SUCCEEDED", 0)

    def log(self, _: str) -> str:
        return LOG


@pytest.mark.parametrize("ending", [None, RuntimeError, ConnectionResetError])
def test_log_is_told_once_over_streams_that_break(monkeypatch: pytest.MonkeyPatch, ending: type[Exception] | None) -> None:
    monkeypatch.setattr(job_log, "IDLE_S", 0.01)
    client = BrokenClient(["one\ntw"], [], ["one\n", "two\nза", "втра\nfo"], ["one\ntwo\n"], ending=ending)
    assert "".join(job_log.read_log(BrokenCluster(client), "job-1")) == LOG  # pyright: ignore[reportArgumentType]


class Terminal(io.StringIO):
    """A person who has typed something."""

    def isatty(self) -> bool:
        return True


class StoppableCluster(BrokenCluster):
    """Its job runs until it is stopped."""

    status = "RUNNING"

    def find(self, submission_id: str) -> Submission | None:
        return job_in(self.status)

    def stop(self, submission_id: str) -> bool:
        self.status = "STOPPED"
        return True


@pytest.mark.parametrize(
    ("typed", "status"), [("y\n", "STOPPED"), ("n\n", "RUNNING"), ("\n", "RUNNING"), ("", "RUNNING"), (None, "RUNNING")]
)
def test_ctrl_c_stops_the_job_only_if_a_person_says_so(monkeypatch: pytest.MonkeyPatch, typed: str | None, status: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n") if typed is None else Terminal(typed))
    monkeypatch.setattr(sys, "stderr", Terminal())
    cluster = StoppableCluster(BrokenClient(["one\n"], ending=KeyboardInterrupt))
    with pytest.raises(Interrupted) as left:
        follow(cluster, "job-1")  # pyright: ignore[reportArgumentType]
    assert (cluster.status, left.value.code) == (status, 130)
    assert ("--stop job-1" in str(left.value)) == (status == "RUNNING"), "how to stop it later"


def test_log_of_no_job_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClusterError, match="job-2"):
        "".join(job_log.read_log(BrokenCluster(BrokenClient(ending=None)), "job-2"))  # pyright: ignore[reportArgumentType]


def test_workers_environment_leaves_out_what_the_submitted_jobs_has(monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(iter(WORKER_ENVIRONMENT))
    for submitted_with, left in (
        (None, set(WORKER_ENVIRONMENT)),
        ({}, set(WORKER_ENVIRONMENT)),
        ({"runtime_env": {}}, set(WORKER_ENVIRONMENT)),
        ({"runtime_env": {"env_vars": {name: "true", "OTHER": "x"}}}, set(WORKER_ENVIRONMENT) - {name}),
    ):
        if submitted_with is None:
            monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
        else:
            monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(submitted_with))
        assert set(worker_environment()) == left


def test_address_of_the_jobs_api_is_the_environments_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert jobs_address() is None
    monkeypatch.setenv("RAY_ADDRESS", "http://first:8265")
    assert jobs_address() == "http://first:8265"
    with jobs_address_is("http://named:8265"):
        assert jobs_address() == "http://named:8265"
    assert jobs_address() == "http://first:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://second:8265")
    with jobs_address_is("http://named:8265"):
        assert jobs_address() == "http://named:8265"
    assert jobs_address() == "http://second:8265"


def test_environment_variables_that_are_not_set_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY", "")
    assert environment_values(["EMPTY"]) == {"EMPTY": ""}
    with pytest.raises(ValueError, match="NO_SUCH_VARIABLE"):
        environment_values(["EMPTY", "NO_SUCH_VARIABLE"])
