"""The scheduler on a cluster of real nodes: a growing input, a run that outlasts a tick, a scheduler that is killed."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cluster.jobs_api import Cluster
from pipeline_ops.output.schedule_records import Tick, read_ticks, tick_time
from pipeline_ops.storage.store import Store
from tests.support.corpora import real_documents, write_jsonl
from tests.support.invariant import Key, check_exactly_once
from tests.support.ray_nodes import Nodes, ray_nodes
from tests.support.running import (
    Finished,
    command,
    command_in_own_process,
    job_settings,
    keys,
    running_command,
    wait_for,
    write_job_file,
)

EVERY_TEN_SECONDS = "*/10 * * * * *"
RUN_TIMEOUT_S = 300  # of one run; 20 s on an idle machine
STOP_TIMEOUT_S = 120


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A head without CPUs and a node, which let in who has the tests' token."""
    folder = tmp_path_factory.mktemp("nodes")
    with ray_nodes(folder, token=os.environ["RAY_AUTH_TOKEN"], with_dashboard=True) as nodes:
        nodes.add_node(num_cpus=4)
        yield nodes


def on(nodes: Nodes) -> tuple[str, ...]:
    """Options: the cluster, and the interpreter on it."""
    return ("--address", nodes.dashboard, "--python", sys.executable)


def grow(source: Path, name: str, texts: list[str]) -> list[Key]:
    """A new file of the input, there at once; its keys."""
    hidden = write_jsonl(source / f"_{name}.jsonl", [{"text": text} for text in texts])
    return keys(hidden.rename(source / f"{name}.jsonl"), len(texts))


def ticks_of(output: Path) -> list[Tick]:
    return read_ticks(Store(str(output)), 1000)


def a_run_that_began_after(output: Path, moment: datetime) -> bool:
    """Whether one has succeeded."""
    return any(
        tick.ending is not None and tick.ending.status == "SUCCEEDED" and datetime.fromisoformat(tick.decision.at) > moment
        for tick in ticks_of(output)
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_three_ticks_over_a_growing_input_one_after_a_restart_label_each_document_once(
    nodes: Nodes, model: Path, tmp_path: Path
) -> None:
    """More than a minute: three runs, each of which starts a driver and its actors on the cluster."""
    source, output = tmp_path / "in", tmp_path / "out"
    texts = real_documents(90)
    expected = grow(source, "first", texts[:30])
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(source, model, output))
    arguments = ("schedule", job_file, "--cron", EVERY_TEN_SECONDS, "--timezone", "Europe/Berlin", *on(nodes))

    with running_command(*arguments) as process:
        began = datetime.now(UTC)
        wait_for(lambda: bool(ticks_of(output)) or process.poll() is not None, "a tick", RUN_TIMEOUT_S)
        assert process.poll() is None, process.communicate()[1]
        wait_for(lambda: a_run_that_began_after(output, began), "the first run", RUN_TIMEOUT_S)
        assert command("schedule", job_file, "--health").result["healthy"]
        # killed while a run is on the cluster, which nobody follows then
        expected += grow(source, "second", texts[30:60])
        wait_for(lambda: any(tick.is_open and tick.submitted for tick in ticks_of(output)), "a second run", RUN_TIMEOUT_S)
        process.kill()
        process.wait()
    before = ticks_of(output)
    expected += grow(source, "third", texts[60:])
    wait_for(lambda: datetime.now(UTC).timestamp() > tick_time(before[-1].name).timestamp() + 25, "missed ticks", 60)

    with running_command(*arguments) as process:
        restarted = datetime.now(UTC)
        wait_for(lambda: a_run_that_began_after(output, restarted), "a run after the restart", RUN_TIMEOUT_S)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=STOP_TIMEOUT_S)
        assert process.returncode == 143, stderr
    ended = Finished(process.returncode, stdout, stderr, 0)
    wait_for(lambda: all(job.has_ended for job in Cluster(nodes.dashboard).list()), "runs that go on", RUN_TIMEOUT_S)

    check_exactly_once(output, expected)
    known = ticks_of(output)
    decided_later = [tick for tick in known if tick.name > before[-1].name]
    assert decided_later[0].decision.missed_after == before[-1].name
    assert (tick_time(decided_later[0].name) - tick_time(before[-1].name)).total_seconds() >= 20, "only the newest is caught up"
    submitted = [tick.decision.submission_id for tick in known if tick.decision.submission_id]
    assert len(set(submitted)) == len(submitted) >= 3
    prefix = submitted[0].rpartition("-")[0]
    assert sorted(job.id for job in Cluster(nodes.dashboard).list() if job.id.startswith(prefix)) == sorted(submitted)
    skipped = [tick for tick in known if tick.decision.submission_id is None]
    assert skipped, "runs take longer than ten seconds"
    assert all(tick.ending is None for tick in skipped)
    assert not command("schedule", job_file, "--health").result["healthy"]
    result = ended.result
    assert result["submitted"] >= 1
    assert result["failed"] == 0
    assert datetime.fromisoformat(result["next"]) > restarted

    listed = command("schedule", job_file, "--list").result["ticks"]
    assert [tick["submission_id"] for tick in listed if tick["decision"] == "submit"] == submitted
    assert {tick["exit_code"] for tick in listed if tick["outcome"] == "SUCCEEDED"} == {0}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "--once"),
        (("--once", "--cron", "0 2 * * *"), "give one of"),
        (("--cron", "0 26 * * *"), "'0 26 * * *'"),
        (("--cron", "0 2 * * *", "--timezone", "Europe/Berln"), "'Europe/Berlin'"),
        (("--cron", "0 2 * * *"), "--address"),
        (("--cron", "0 2 * * *", "--address", "http://127.0.0.1:1"), "http://127.0.0.1:1"),
        (("--once", "--address", "http://127.0.0.1:1"), "http://127.0.0.1:1"),
        (("--once", "--address", "http://127.0.0.1:1", "--env", "NOT_SET_HERE"), "NOT_SET_HERE"),
        (("--cron", "0 2 * * *", "--address", "http://127.0.0.1:1", "output.pth=x"), "pth"),
    ],
)
def test_schedule_with_a_mistake_ends_at_once_with_a_line(
    model: Path, tmp_path: Path, options: tuple[str, ...], expected: str
) -> None:
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(tmp_path / "in", model, tmp_path / "out"))
    finished = command("schedule", job_file, *options)
    assert finished.code == 2, finished.stderr
    assert len(finished.error_lines) == 1, finished.stderr
    assert expected in finished.stderr
    assert not (tmp_path / "out").exists()


def test_health_of_an_output_without_a_scheduler_is_exit_1_with_a_line(model: Path, tmp_path: Path) -> None:
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(tmp_path / "in", model, tmp_path / "out"))
    finished = command("schedule", job_file, "--health")
    assert (finished.code, len(finished.error_lines), finished.result["healthy"]) == (1, 1, False)
    assert command("schedule", job_file, "--list").result["ticks"] == []


@pytest.mark.slow
def test_once_waits_for_the_run_and_ends_as_it_does(nodes: Nodes, model: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    expected = grow(source, "first", real_documents(20))
    job_file = write_job_file(tmp_path / "once.yaml", job_settings(source, model, output))
    finished = command_in_own_process("schedule", job_file, "--once", *on(nodes))
    assert finished.code == 0, finished.stderr
    assert (finished.result["outcome"], finished.result["exit_code"]) == ("SUCCEEDED", 0)
    check_exactly_once(output, expected)

    wrong = write_job_file(tmp_path / "wrong.yaml", job_settings(tmp_path / "gone", model, tmp_path / "none"))
    finished = command_in_own_process("schedule", wrong, "--once", *on(nodes))
    assert (finished.code, finished.result["outcome"], finished.result["exit_code"]) == (2, "FAILED", 2), finished.stderr


@pytest.mark.slow
def test_schedule_that_is_not_let_in_ends_at_once_with_a_line(
    nodes: Nodes, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(tmp_path / "in", model, tmp_path / "out"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    for mode in (("--cron", "0 2 * * *"), ("--once",)):
        finished = command_in_own_process("schedule", job_file, *mode, *on(nodes))
        assert finished.code == 2
        assert len(finished.error_lines) == 1, finished.stderr
        assert "RAY_AUTH_TOKEN" in finished.stderr
        assert "0" * 64 not in finished.stderr + finished.stdout
    assert ticks_of(tmp_path / "out") == []


@pytest.mark.slow
def test_once_beside_another_run_is_skipped_with_the_code_of_a_held_lease(nodes: Nodes, model: Path, tmp_path: Path) -> None:
    from pipeline_ops.output.lease import acquire

    output = tmp_path / "out"
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(tmp_path / "in", model, output))
    acquire(Store(str(output)), 600, None, time.time)
    finished = command_in_own_process("schedule", job_file, "--once", *on(nodes))
    assert finished.code == 3, finished.stderr
    assert finished.result["decision"] == "skip"
    assert str(os.getpid()) in finished.result["reason"]
