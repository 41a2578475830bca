"""`label-corpus submit` and `jobs` against a cluster with token and Jobs API: a head without CPUs and a node, as processes."""

import secrets
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline_ops.output.commit_log import read_ledger
from pipeline_ops.output.lease import check_free
from pipeline_ops.storage.store import Store
from tests.conftest import Bucket
from tests.servers.s3_proxy import Rule
from tests.servers.s3_server import S3Server
from tests.support.corpora import real_documents, write_parquet
from tests.support.invariant import check_exactly_once
from tests.support.ray_nodes import Nodes, ray_nodes
from tests.support.running import (
    Finished,
    command,
    command_in_own_process,
    job_settings,
    keys,
    kill_group,
    make_job,
    start_command,
    wait_for,
    write_job_file,
)

TIMEOUT_S = 240
NOBODY = "http://127.0.0.1:1"
pytestmark = pytest.mark.timeout(3 * TIMEOUT_S)


@dataclass(frozen=True)
class Submitting:
    """The commands that go to a cluster, from a machine that has its token."""

    nodes: Nodes
    token: str

    def _arguments(self, name: str, *arguments: object) -> tuple[object, ...]:
        python = ("--python", sys.executable) if name == "submit" else ()
        return (name, *arguments, "--address", self.nodes.dashboard, *python)

    def command(self, name: str, *arguments: object, **environment: str) -> Finished:
        variables = self.nodes.environment | environment
        return command_in_own_process(*self._arguments(name, *arguments), environment=variables, timeout_s=TIMEOUT_S)

    def start(self, name: str, *arguments: object) -> Any:
        return start_command(*self._arguments(name, *arguments), environment=self.nodes.environment)

    def jobs_of(self, output: str) -> list[dict[str, Any]]:
        listed = self.command("jobs")
        assert listed.code == 0, listed.stderr
        return [job for job in listed.result["jobs"] if job["output"] == output]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Submitting]:
    token = secrets.token_hex(32)
    with ray_nodes(tmp_path_factory.mktemp("nodes"), token=token, with_dashboard=True) as nodes:
        nodes.add_node(num_cpus=4)
        yield Submitting(nodes, token)


@pytest.mark.slow
def test_job_submitted_and_followed_labels_with_secrets_that_travel_and_show_nowhere(
    cluster: Submitting, s3_server_with_checks: S3Server, model: Path, tmp_path: Path
):
    store = s3_server_with_checks
    source = write_parquet(tmp_path / "in.parquet", [{"text": text} for text in real_documents(60, seed=3)], row_group_size=20)
    filesystem = store.filesystem()
    filesystem.mkdir("submitted")
    filesystem.put(str(source), "submitted/in/in.parquet")
    settings = job_settings("s3://submitted/in", model, "s3://submitted/out", f"storage.endpoint_url={store.endpoint_url}")
    job_file = write_job_file(tmp_path / "nightly" / "reviews of mine.yaml", settings)
    # TOKENIZERS_PARALLELISM is one that the job itself gives its workers
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "TOKENIZERS_PARALLELISM")
    traveling = [option for name in names for option in ("--env", name)]
    finished = cluster.command(
        "submit",
        *(job_file, "output.scores=true", "--follow", "--check", "--working-dir", job_file.parent, *traveling),
        AWS_ACCESS_KEY_ID=store.access_key,
        AWS_SECRET_ACCESS_KEY=store.secret_key,  # the nodes have another, which this server refuses
        TOKENIZERS_PARALLELISM="false",
    )
    assert finished.code == 0, finished.stderr
    result = finished.result
    assert (result["labeled"] + result["rejected"], result["status"], result["exit_code"]) == (60, "SUCCEEDED", 0)
    assert result["submission_id"].startswith("reviews-of-mine-")
    assert result["address"] == cluster.nodes.dashboard
    assert len(finished.stdout.splitlines()) == 1, "stdout holds the JSON line alone"
    labeled, _ = check_exactly_once("submitted/out", keys("s3://submitted/in/in.parquet", 60), filesystem)
    assert "scores" in labeled.column_names, "overrides travel"

    again = cluster.command("jobs", "--follow", result["submission_id"])
    assert (again.code, again.result) == (0, result), "the log of a job that has ended"
    listed = cluster.command("jobs")
    (job,) = [job for job in listed.result["jobs"] if job["output"] == "s3://submitted/out"]
    assert (job["submission_id"], job["status"], job["exit_code"]) == (result["submission_id"], "SUCCEEDED", 0)
    assert job["job_file"] == job_file.name
    for shown in (finished, again, listed):
        assert store.secret_key not in shown.stdout + shown.stderr
        assert cluster.token not in shown.stdout + shown.stderr


@pytest.mark.slow
def test_mistake_that_the_job_finds_ends_the_command_with_2_and_check_finds_it_before(
    cluster: Submitting, model: Path, tmp_path: Path
):
    output = str(tmp_path / "out")
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(tmp_path / "nowhere", model, output))
    checked = cluster.command("submit", job_file, "--check", "--follow")
    assert (checked.code, checked.stdout, len(checked.error_lines)) == (2, "", 1), checked.stderr
    assert cluster.jobs_of(output) == []

    finished = cluster.command("submit", job_file, "--follow")
    assert finished.code == 2, finished.stderr
    assert (finished.result["status"], finished.result["exit_code"]) == ("FAILED", 2)
    assert "input.path" in finished.stderr, "the job's own line"
    assert "Traceback" not in finished.stderr


@pytest.mark.slow
def test_environment_that_cannot_be_made_is_one_line_and_exit_1(cluster: Submitting, model: Path, tmp_path: Path):
    source = write_parquet(tmp_path / "in.parquet", [{"text": "a"}])
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(source, model, tmp_path / "out"))
    further = tmp_path / "environment.yaml"
    further.write_text("conda: no-such-environment\n")
    finished = cluster.command(
        "submit", job_file, "--follow", "--runtime-env", further, "--env", "SECRET", SECRET="not-for-eyes"
    )
    assert finished.code == 1, finished.stderr
    assert (finished.result["status"], finished.result["exit_code"]) == ("FAILED", 1)
    assert "runtime_env" in finished.error_lines[-1], "what Ray says"
    assert "not-for-eyes" not in finished.stdout + finished.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_job_is_submitted_once_survives_its_follower_and_is_stopped_in_order(
    cluster: Submitting, s3: Bucket, model: Path, tmp_path: Path
):
    documents = 30
    texts = [{"text": text[:300]} for text in real_documents(documents, seed=4)]
    source = write_parquet(tmp_path / "in" / "good.parquet", texts, row_group_size=1)
    target = f"{s3.url}/out"
    storage = f"storage.endpoint_url={s3.endpoint_url}"
    # nobody takes over a lease that a job leaves behind
    settings = job_settings(tmp_path / "in", model, target, "compute.unit_bytes=1", "output.lease_seconds=3600", storage)
    job_file = write_job_file(tmp_path / "job.yaml", settings)
    job = make_job(tmp_path / "in", model, target, storage)

    def committed() -> int:
        return len(read_ledger(Store(target, job.storage)).current)

    with s3.proxy.faults(Rule("delay", "PutObject", "out/_commits/.*", times=None, seconds=5)):
        followers = [cluster.start("submit", job_file, "--follow", "--tick", "2026-11-22T02:00Z")]
        try:
            wait_for(lambda: committed() > 0 or followers[0].poll() is not None, "a commit", TIMEOUT_S)
            assert followers[0].poll() is None, followers[0].communicate()[1]
            (running,) = cluster.jobs_of(target)
            assert (running["status"], running["submission_id"][-14:]) == ("RUNNING", "20261122T0200Z")

            twice = cluster.command("submit", job_file)
            assert (twice.code, twice.stdout, len(twice.error_lines)) == (3, "", 1), twice.stderr
            assert running["submission_id"] in twice.stderr

            followers[0].send_signal(signal.SIGINT)
            _, said = followers[0].communicate(timeout=TIMEOUT_S)
            assert followers[0].returncode == 130, said
            assert f"--stop {running['submission_id']}" in said.splitlines()[-1]
            assert cluster.jobs_of(target)[0]["status"] == "RUNNING"

            followers.append(cluster.start("submit", job_file, "--follow"))
            assert followers[1].stderr is not None
            assert running["submission_id"] in followers[1].stderr.readline(), "it says which job it follows"
            assert committed() < documents, "it has been stopped in the middle"
            stopped = cluster.command("jobs", "--stop", running["submission_id"])
            assert (stopped.code, [job["status"] for job in stopped.result["jobs"]]) == (0, ["STOPPED"]), stopped.stderr
            stdout, said = followers[1].communicate(timeout=TIMEOUT_S)
            assert followers[1].returncode == 143, said
            assert '"status": "STOPPED"' in stdout
        finally:
            for follower in followers:
                kill_group(follower)
                follower.communicate()

    # it has ended by itself, not by SIGKILL
    lease = check_free(Store(target, job.storage))
    assert lease is not None
    assert lease.released
    finished = cluster.command("submit", job_file, "compute.unit_bytes=auto", "--follow", "--tick", "2026-11-22T02:01Z")
    assert finished.code == 0, finished.stderr
    assert finished.result["status"] == "SUCCEEDED"
    assert 0 < finished.result["units_skipped"] < documents
    check_exactly_once(f"{s3.name}/out", keys(source, documents), s3.filesystem)
    # an id is used once
    same = cluster.command("submit", job_file, "--tick", "2026-11-22T02:01Z")
    assert (same.code, same.stdout, len(same.error_lines)) == (3, "", 1), same.stderr
    assert cluster.command("jobs", "--stop", finished.result["submission_id"]).result["jobs"][0]["status"] == "SUCCEEDED"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["submit", "jobs"])
def test_wrong_token_and_unknown_job_are_one_line_and_exit_2(cluster: Submitting, model: Path, tmp_path: Path, name: str):
    source = write_parquet(tmp_path / "in.parquet", [{"text": "a"}])
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(source, model, tmp_path / "out"))
    arguments = (job_file, "--follow") if name == "submit" else ("--stop", "no-such-job")
    refused = cluster.command(name, *arguments, RAY_AUTH_TOKEN=secrets.token_hex(32))
    assert (refused.code, refused.stdout, len(refused.error_lines)) == (2, "", 1), refused.stderr
    assert "RAY_AUTH_TOKEN" in refused.stderr
    assert cluster.jobs_of(str(tmp_path / "out")) == []
    if name == "jobs":
        unknown = cluster.command("jobs", "--stop", "no-such-job")
        assert (unknown.code, unknown.stdout, len(unknown.error_lines)) == (2, "", 1), unknown.stderr


@pytest.mark.slow
def test_address_that_is_named_wins_over_the_environments(cluster: Submitting):
    listed = cluster.command("jobs", RAY_API_SERVER_ADDRESS=NOBODY, RAY_ADDRESS=NOBODY)
    assert listed.code == 0, listed.stderr
    found = command_in_own_process("jobs", environment=cluster.nodes.environment | {"RAY_ADDRESS": cluster.nodes.dashboard})
    assert (found.code, found.result) == (0, listed.result)


def test_nobody_at_the_address_is_one_line_and_exit_2_and_the_jobs_mistakes_come_first(model: Path, tmp_path: Path):
    source = write_parquet(tmp_path / "in.parquet", [{"text": "a"}])
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(source, model, tmp_path / "out"))
    for arguments, expected in (
        ((job_file, "--address", NOBODY), NOBODY),
        ((job_file,), "--address"),
        ((job_file, "compute.batch_token=9", "--address", NOBODY), "compute.batch_token:"),
        ((job_file, "output.path=labels", "--address", NOBODY), "output.path:"),
    ):
        finished = command("submit", *arguments)
        assert (finished.code, finished.stdout, len(finished.error_lines)) == (2, "", 1), finished.stderr
        assert expected in finished.stderr
