"""The steps of a scheduler at a tick: decide, submit, follow to the end. Each is recorded on storage (schedule_records.py).

So it may be killed and started again, or run twice, and decides no tick twice. At a tick at which the output's last
run still goes on, or anybody holds the output's lease, no run is submitted.
"""

import os
import socket
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cluster.jobs_api import Cluster, ClusterError, ClusterUnreachable, Submission
from jobs.remote.cron_trigger import CronTrigger, newest_due, next_tick
from pipeline_ops.output import schedule_records
from pipeline_ops.output.lease import LeaseError, check_free, this_holder
from pipeline_ops.output.schedule_records import Decision, Ending, Tick, tick_name, tick_time
from pipeline_ops.schema.errors import UserError, store_errors
from pipeline_ops.schema.units import iso
from pipeline_ops.storage.store import Store

POLL_S = 10  # how soon the end of a run is noticed, and how often a cluster that does not answer is asked again
KEPT_TICKS = 1000  # records of earlier ones are deleted
FOLLOWED_TICKS = 20  # of the newest, those whose runs have not ended are followed after a start
NOT_SUBMITTED, LOST = "NOT_SUBMITTED", "LOST"


@dataclass(frozen=True)
class Target:
    """The job that is submitted at each tick, and the cluster."""

    store: Store  # of the output
    key: str  # stands in the submission ids of all runs of this output, and of no others
    address: str  # of the cluster
    connect: Callable[[], Cluster]
    submission_id: Callable[[datetime], str]
    submit: Callable[[Cluster, datetime], tuple[str, bool]]  # as submit.submit_job


class Follower:
    """Decides ticks and follows their runs to the end; one step at a time, each of which may be repeated.

    Attributes:
        open: ticks whose runs have not ended, by name.
        last: the newest tick that is decided; None: there has been none.
        counts: of the decisions of this process, and of the endings that it has seen.
    """

    def __init__(self, target: Target, clock: Callable[[], datetime] = lambda: datetime.now(UTC)):
        self.target, self.clock = target, clock
        self.open: dict[str, Tick] = {}
        self.last: Tick | None = None
        self.counts: Counter[str] = Counter()

    def recover(self) -> None:
        """Reads the ticks whose runs had not ended when the last scheduler did."""
        known = schedule_records.read_ticks(self.target.store, FOLLOWED_TICKS)
        self.open = {tick.name: tick for tick in known if tick.is_open}
        self.last = known[-1] if known else None

    def decide(self, tick: datetime, missed_after: str | None = None) -> Tick:
        """Decides the tick, unless it is decided already: submit, or skip while another run is on.

        Raises:
            ClusterError, OSError: nothing is decided.
        """
        store = self.target.store
        jobs = self._jobs(self.target.connect())
        submission_id = self.target.submission_id(tick)
        reason = None if any(job.id == submission_id for job in jobs) else self._busy(jobs)
        decision = Decision(
            tick_name(tick), None if reason else submission_id, reason, missed_after, this_holder(), iso(self.clock())
        )
        found = Tick(decision)
        if schedule_records.decide(store, decision):
            self.counts["skipped" if reason else "submitted"] += 1
            if reason:
                say(f"tick {iso(tick)} is skipped: {reason}")
        else:
            found = schedule_records.read_tick(store, decision.tick)
            say(f"tick {iso(tick)} has been decided by {found.decision.by}")
        self.last = found
        if found.is_open:
            self.open[found.name] = found
        return found

    def follow(self) -> None:
        """Submits what is decided and not yet submitted, and records what has ended.

        Raises:
            ClusterUnreachable, OSError: it may be called again.
        """
        if not self.open:
            return
        cluster = self.target.connect()
        jobs = {job.id: job for job in self._jobs(cluster)}
        for name, tick in list(self.open.items()):
            job = jobs.get(tick.decision.submission_id or "")
            if job is None and not tick.submitted:
                self._submit(cluster, tick, list(jobs.values()))
            elif job is None:
                self._end(tick, LOST, None, "the cluster no longer knows the run: it was started anew")
            else:
                if not tick.submitted:
                    schedule_records.note_submitted(self.target.store, name, self.clock())
                    self.open[name] = replace(tick, submitted=True)
                if job.has_ended:
                    self._end(tick, job.status, job.exit_code, job.message, job.ended)

    def _jobs(self, cluster: Cluster) -> list[Submission]:
        return [job for job in cluster.list() if self.target.key in job.id]

    def _submit(self, cluster: Cluster, tick: Tick, jobs: list[Submission]) -> None:
        if self.last is not None and tick.name < self.last.name:
            return self._end(tick, NOT_SUBMITTED, None, "the next tick came first")
        reason = self._busy(jobs)
        if reason:
            return self._end(tick, NOT_SUBMITTED, None, reason)
        try:
            submission_id, is_new = self.target.submit(cluster, tick_time(tick.name))
        except ClusterUnreachable:
            raise
        except (ClusterError, UserError) as error:  # asking again changes nothing; the next tick may find it mended
            return self._end(tick, NOT_SUBMITTED, None, str(error))
        schedule_records.note_submitted(self.target.store, tick.name, self.clock())
        self.open[tick.name] = replace(tick, submitted=True)
        say(f"tick {iso(tick_time(tick.name))}: {submission_id} is {'submitted' if is_new else 'on the cluster already'}")

    def _end(self, tick: Tick, status: str, exit_code: int | None, message: str, ended: datetime | None = None) -> None:
        ending = Ending(status, exit_code, message, iso(ended) if ended else None, iso(self.clock()))
        schedule_records.note_ending(self.target.store, tick.name, ending)
        self.counts["succeeded" if status == "SUCCEEDED" else "failed"] += 1
        del self.open[tick.name]
        if self.last is not None and self.last.name == tick.name:
            self.last = replace(tick, submitted=status != NOT_SUBMITTED, ending=ending)
        code = "" if exit_code is None else f", exit code {exit_code}"
        why = "" if status == "SUCCEEDED" else f": {message}"
        say(f"tick {iso(tick_time(tick.name))}: {tick.decision.submission_id} has ended, {status}{code}{why}")

    def _busy(self, jobs: list[Submission]) -> str | None:
        """Why no run may be submitted now; None: one may."""
        for job in jobs:
            if not job.has_ended:
                return f"{job.id} is still {job.status}"
        try:
            check_free(self.target.store, lambda: self.clock().timestamp())
        except LeaseError as error:
            return str(error)
        return None


class Schedule(Follower):
    """A follower that decides the ticks of a cron."""

    def __init__(self, target: Target, trigger: CronTrigger, clock: Callable[[], datetime] = lambda: datetime.now(UTC)):
        super().__init__(target, clock)
        self.trigger = trigger
        self.trouble: str | None = None
        self.begun = clock()

    def begin(self) -> None:
        """Records when the output's first schedule began, unless that is recorded: ticks before it are not caught up."""
        self.begun = schedule_records.begin(self.target.store, self.clock())

    def attend(self) -> None:
        """Decides the newest tick that is due and not decided, and follows the runs; the next call mends trouble."""
        try:
            after = max(self.begun, tick_time(self.last.name)) if self.last else self.begun
            tick = newest_due(self.trigger, after, self.clock())
            if tick is not None:
                missed = next_tick(self.trigger, after) != tick
                if missed:
                    say(f"ticks after {iso(after)} were missed: the newest, {iso(tick)}, is caught up")
                self.decide(tick, tick_name(after) if missed else None)
            self.follow()
        except (ClusterError, *store_errors()) as error:
            self._say_trouble(" ".join(str(error).split()) or type(error).__name__)
        else:
            self._say_trouble(None)

    def _say_trouble(self, trouble: str | None) -> None:
        if trouble != self.trouble:
            say(f"{trouble}; tried again every {POLL_S} s, until the next tick" if trouble else "it works again")
        self.trouble = trouble

    def beat(self, *, ends: bool = False) -> None:
        """Writes the heartbeat that `schedule --health` reads; `ends`: the last one."""
        now = iso(self.clock())
        health = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "at": now,
            "ended": now if ends else None,
            "next": None if ends else self.next(),
            "trouble": self.trouble,
        }
        try:
            schedule_records.beat(self.target.store, health)
        except store_errors() as error:
            say(f"the heartbeat cannot be written: {' '.join(str(error).split())}")

    def forget(self) -> None:
        """Deletes the records of old ticks."""
        try:
            schedule_records.forget_ticks(self.target.store, KEPT_TICKS)
        except store_errors() as error:
            say(f"records of old ticks cannot be deleted: {' '.join(str(error).split())}")

    def next(self) -> str | None:
        tick = next_tick(self.trigger, self.clock())
        return iso(tick) if tick else None

    def seconds_to_next(self) -> float:
        """From now to the next tick."""
        tick = next_tick(self.trigger, self.clock())
        return max((tick - self.clock()).total_seconds(), 0.0) if tick else float("inf")


def say(event: str) -> None:
    """One line on stderr."""
    print(f"{iso(datetime.now(UTC))} {event}", file=sys.stderr, flush=True)
