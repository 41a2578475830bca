"""What a scheduler does about a tick, with a clock and a cluster that the test moves; records in a local folder."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from cluster.jobs_api import Cluster, ClusterError, ClusterUnreachable, Submission
from jobs.remote.cron_trigger import cron_trigger
from jobs.remote.schedule_status import describe, health, history
from jobs.remote.scheduler import Schedule, Target
from pipeline_ops.output import schedule_records
from pipeline_ops.output.lease import acquire, check_free
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.store import Store
from tests.support.running import make_job

KEY = "-0a1b2c3d-"
NOON = datetime(2025, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class FakeCluster:
    """Jobs run until the test ends them. What `error` holds is raised instead of an answer."""

    def __init__(self) -> None:
        self.jobs: dict[str, Submission] = {}
        self.error: Exception | None = None
        self.refusal: Exception | None = None
        self.asked: list[str] = []

    def list(self, prefix: str = "") -> list[Submission]:
        if self.error is not None:
            raise self.error
        return [job for job in self.jobs.values() if job.id.startswith(prefix)]

    def submit(self, submission_id: str) -> bool:
        self.asked.append(submission_id)
        if self.refusal is not None:
            raise self.refusal
        if submission_id in self.jobs:
            return False
        self.jobs[submission_id] = Submission(submission_id, "RUNNING", None, "", NOON, None, {})
        return True

    def end(self, submission_id: str, status: str = "SUCCEEDED", exit_code: int | None = 0) -> None:
        self.jobs[submission_id] = replace(
            self.jobs[submission_id], status=status, exit_code=exit_code, message=f"it is {status}", ended=NOON
        )


class World:
    """An output, a cluster and a clock; schedulers come and go."""

    def __init__(self, output: Path) -> None:
        self.output, self.cluster, self.now = str(output), FakeCluster(), NOON

    def scheduler(self, cron: str = "0 * * * *") -> Schedule:
        """One that has just been started."""
        target = Target(
            Store(self.output),
            KEY,
            "http://head:8265",
            lambda: cast(Cluster, self.cluster),
            name,
            lambda cluster, tick: (name(tick), self.cluster.submit(name(tick))),
        )
        scheduler = Schedule(target, cron_trigger(cron, "UTC"), lambda: self.now)
        scheduler.recover()
        scheduler.begin()
        return scheduler

    def recorded(self) -> list[tuple[str, str, str | None, int | None]]:
        """(tick, decision, outcome, exit code) of each tick on storage."""
        known = [describe(tick) for tick in schedule_records.read_ticks(Store(self.output), 100)]
        return [(tick["tick"][11:16], tick["decision"], tick["outcome"], tick["exit_code"]) for tick in known]

    def reasons(self) -> list[str | None]:
        return [tick.decision.reason for tick in schedule_records.read_ticks(Store(self.output), 100)]


def name(tick: datetime) -> str:
    return f"job{KEY}{tick:%H%M}"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "out")


def test_ticks_are_submitted_when_they_are_due_and_followed_to_their_end(world: World) -> None:
    scheduler = world.scheduler()
    scheduler.attend()
    assert world.recorded() == [], "12:00 was before it began"
    world.now += HOUR
    scheduler.attend()
    scheduler.attend()
    assert world.recorded() == [("13:00", "submit", None, None)]
    world.cluster.end(name(world.now))
    scheduler.attend()
    world.now += HOUR
    scheduler.attend()
    world.cluster.end(name(world.now), "FAILED", 1)
    world.now += HOUR
    scheduler.attend()
    assert world.recorded() == [
        ("13:00", "submit", "SUCCEEDED", 0),
        ("14:00", "submit", "FAILED", 1),
        ("15:00", "submit", None, None),
    ], "after a failed run the next tick is as any other"
    assert world.cluster.asked == [name(NOON + number * HOUR) for number in (1, 2, 3)]


def test_tick_at_which_the_last_run_goes_on_is_skipped(world: World) -> None:
    scheduler = world.scheduler()
    for _ in range(2):
        world.now += HOUR
        scheduler.attend()
    assert [decision for _, decision, _, _ in world.recorded()] == ["submit", "skip"]
    (_, reason) = world.reasons()
    assert name(NOON + HOUR) in str(reason)
    world.cluster.end(name(NOON + HOUR))
    world.now += HOUR
    scheduler.attend()
    assert [decision for _, decision, _, _ in world.recorded()] == ["submit", "skip", "submit"]


def test_tick_at_which_another_job_file_of_the_output_runs_is_skipped_and_one_of_another_output_is_not(world: World) -> None:
    scheduler = world.scheduler()
    world.cluster.submit("job-99999999-1200")
    world.now += HOUR
    scheduler.attend()
    world.cluster.end(name(world.now))
    world.cluster.submit(f"by-hand{KEY}1330")
    world.now += HOUR
    scheduler.attend()
    assert [decision for _, decision, _, _ in world.recorded()] == ["submit", "skip"]


def test_tick_at_which_a_run_outside_the_cluster_holds_the_lease_is_skipped(world: World) -> None:
    scheduler = world.scheduler()
    lease = acquire(Store(world.output), 7200, check_free(Store(world.output)), lambda: world.now.timestamp())
    world.now += HOUR
    scheduler.attend()
    lease.release()
    world.now += HOUR
    scheduler.attend()
    assert [decision for _, decision, _, _ in world.recorded()] == ["skip", "submit"]
    assert "is being written by" in str(world.reasons()[0])


def test_start_catches_up_the_newest_missed_tick_only(world: World) -> None:
    world.scheduler()
    world.now += HOUR / 2
    scheduler = world.scheduler()
    scheduler.attend()
    assert world.recorded() == [], "none was missed"
    world.now += 5 * HOUR
    scheduler = world.scheduler()
    scheduler.attend()
    assert world.recorded() == [("17:00", "submit", None, None)]
    world.cluster.end(name(NOON + 5 * HOUR))
    world.now += 3 * HOUR
    for _ in range(2):
        scheduler = world.scheduler()
        scheduler.attend()
    known = schedule_records.read_ticks(Store(world.output), 10)
    assert [tick.name[9:13] for tick in known] == ["1700", "2000"]
    assert known[1].decision.missed_after == known[0].name


def test_first_start_catches_nothing_up(world: World) -> None:
    world.scheduler("* * * * *").attend()
    assert world.recorded() == []


def test_scheduler_that_slept_attends_the_newest_tick_only(world: World) -> None:
    scheduler = world.scheduler()
    world.now += 4 * HOUR + HOUR / 3
    scheduler.attend()
    assert world.recorded() == [("16:00", "submit", None, None)]


def test_cluster_that_is_away_is_asked_until_the_next_tick(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    scheduler = world.scheduler()
    world.now += HOUR
    for error in (ClusterUnreachable("nobody answers"), ClusterError("does not let us in")):
        world.cluster.error = error
        for _ in range(3):
            scheduler.attend()
            world.now += HOUR / 12
    assert world.recorded() == []
    assert len(capsys.readouterr().err.splitlines()) == 2, "a line for each trouble, not for each try"
    world.cluster.error = None
    scheduler.attend()
    assert world.recorded() == [("13:00", "submit", None, None)]
    world.cluster.end(name(NOON + HOUR))
    world.cluster.error = ClusterUnreachable("nobody answers")
    world.now += 2 * HOUR
    scheduler.attend()
    world.cluster.error = None
    scheduler.attend()
    assert world.recorded() == [("13:00", "submit", "SUCCEEDED", 0), ("15:00", "submit", None, None)]


def test_cluster_that_goes_away_while_it_is_submitted_to_gets_the_run_later(world: World) -> None:
    scheduler = world.scheduler()
    world.now += HOUR
    world.cluster.refusal = ClusterUnreachable("nobody answers")
    scheduler.attend()
    assert world.cluster.jobs == {}
    world.cluster.refusal = None
    scheduler.attend()
    assert list(world.cluster.jobs) == [name(world.now)]
    assert world.recorded() == [("13:00", "submit", None, None)]


@pytest.mark.parametrize("error", [UserError("job.yaml: no such key"), ClusterError("the cluster refuses: no such image")])
def test_run_that_is_refused_is_recorded_and_the_next_tick_tries_again(world: World, error: Exception) -> None:
    scheduler = world.scheduler()
    world.cluster.refusal = error
    world.now += HOUR
    scheduler.attend()
    scheduler.attend()
    assert world.recorded() == [("13:00", "submit", "NOT_SUBMITTED", None)]
    assert len(world.cluster.asked) == 1
    (tick,) = schedule_records.read_ticks(Store(world.output), 10)
    assert tick.ending is not None
    assert tick.ending.message == str(error)
    world.cluster.refusal = None
    world.now += HOUR
    scheduler.attend()
    assert list(world.cluster.jobs) == [name(world.now)]


def test_restart_between_decision_and_submission_submits_once(world: World) -> None:
    scheduler = world.scheduler()
    world.now += HOUR
    scheduler.decide(world.now)
    assert world.cluster.asked == []
    world.scheduler().attend()
    assert list(world.cluster.jobs) == [name(world.now)]
    scheduler.follow()  # the first was not dead after all
    world.scheduler().attend()
    assert world.cluster.asked == [name(world.now)]
    assert world.recorded() == [("13:00", "submit", None, None)]


def test_restart_between_submission_and_its_record_does_not_submit_again(world: World) -> None:
    scheduler = world.scheduler()
    world.now += HOUR
    scheduler.decide(world.now)
    world.cluster.submit(name(world.now))
    world.cluster.end(name(world.now))
    world.scheduler().attend()
    assert world.recorded() == [("13:00", "submit", "SUCCEEDED", 0)]
    assert len(world.cluster.asked) == 1


def test_restart_after_the_next_tick_gives_up_what_was_decided_and_not_submitted(world: World) -> None:
    scheduler = world.scheduler()
    world.now += HOUR
    scheduler.decide(world.now)
    world.now += HOUR
    world.scheduler().attend()
    assert world.recorded() == [("13:00", "submit", "NOT_SUBMITTED", None), ("14:00", "submit", None, None)]
    assert list(world.cluster.jobs) == [name(world.now)]


def test_restart_follows_the_runs_of_the_scheduler_before(world: World) -> None:
    scheduler = world.scheduler()
    world.now += HOUR
    scheduler.attend()
    world.now += HOUR / 2
    world.cluster.end(name(NOON + HOUR), "STOPPED", None)
    world.scheduler().attend()
    assert world.recorded() == [("13:00", "submit", "STOPPED", None)]


def test_run_that_the_cluster_has_lost_is_not_submitted_again(world: World) -> None:
    scheduler = world.scheduler()
    world.now += HOUR
    scheduler.attend()
    world.cluster.jobs.clear()
    for starter in (lambda: scheduler, world.scheduler):
        cast(Callable[[], Schedule], starter)().attend()
    assert world.recorded() == [("13:00", "submit", "LOST", None)]
    assert len(world.cluster.asked) == 1


def test_two_schedulers_decide_each_tick_once(world: World) -> None:
    schedulers = [world.scheduler(), world.scheduler()]
    for _ in range(3):
        world.now += HOUR
        for scheduler in schedulers:
            scheduler.attend()
        world.cluster.end(name(world.now))
        for scheduler in schedulers:
            scheduler.attend()
    assert world.recorded() == [(f"{hour}:00", "submit", "SUCCEEDED", 0) for hour in (13, 14, 15)]
    assert len(world.cluster.asked) == 3
    assert [scheduler.counts["submitted"] for scheduler in schedulers] == [3, 0]


def test_health_is_what_the_last_heartbeat_says(world: World, tmp_path: Path) -> None:
    job = make_job(tmp_path / "in", tmp_path / "model", world.output)
    never = health(job)
    assert (never["healthy"], never["heartbeat"]) == (False, None)
    scheduler = world.scheduler()
    scheduler.beat()
    assert not health(job)["healthy"], "the clock of the test is long past"
    world.now = datetime.now(UTC)
    scheduler.beat()
    report = health(job)
    assert report["healthy"]
    assert datetime.fromisoformat(report["heartbeat"]["next"]) > world.now
    world.now -= timedelta(minutes=10)
    scheduler.beat()
    report = health(job)
    assert not report["healthy"]
    assert "\n" not in report["reason"]
    world.now = datetime.now(UTC)
    scheduler.beat(ends=True)
    assert not health(job)["healthy"], "it is fresh, and the last word of one that was to end"


def test_history_tells_every_tick_with_its_run(world: World, tmp_path: Path) -> None:
    scheduler = world.scheduler()
    world.now += HOUR
    scheduler.attend()
    world.now += HOUR
    scheduler.attend()
    world.cluster.end(name(NOON + HOUR), "FAILED", 1)
    scheduler.attend()
    report: dict[str, Any] = json.loads(json.dumps(history(make_job(tmp_path / "in", tmp_path / "model", world.output))))
    first, second = report["ticks"]
    assert (first["tick"], first["decision"]) == ("2025-11-22T13:00:00Z", "submit")
    assert (first["submission_id"], first["outcome"], first["exit_code"]) == (name(NOON + HOUR), "FAILED", 1)
    assert first["ended"] == "2025-11-22T12:00:00Z"
    assert (second["decision"], second["submission_id"], second["outcome"]) == ("skip", None, None)
    assert name(NOON + HOUR) in second["reason"]
