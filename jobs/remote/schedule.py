"""`label-corpus schedule`: submits the job to a Ray cluster at each tick of a cron, until Ctrl-C or SIGTERM.

This loop only wakes up; what is due, decided and finished is on storage (scheduler.py). All steps run one after the other, so
one that hangs stops the heartbeat too, which `--health` checks.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any

from cluster.jobs_api import Cluster, ClusterError, ClusterUnreachable
from jobs.config import load_job
from jobs.console import signals
from jobs.console.signals import INTERRUPTED, TERMINATED, Interrupted
from jobs.remote.cron_trigger import cron_trigger
from jobs.remote.runtime_env import SubmitOptions, packed
from jobs.remote.schedule_status import describe
from jobs.remote.scheduler import POLL_S, Follower, Schedule, Target, say
from jobs.remote.submit import check_output, named_address, output_key, submission_id, submit_job
from pipeline_ops.output import schedule_records
from pipeline_ops.output.schedule_records import Tick
from pipeline_ops.schema.errors import UserError, store_access, store_errors

ONCE_POLL_S = 2  # somebody waits
HEARTBEAT_S = 60
CLEAN_UP_S = 24 * 3600
ANOTHER_RUN = 3  # exit code


def schedule(
    job_file: str, overrides: list[str], options: SubmitOptions, cron: str, timezone: str
) -> tuple[dict[str, Any], int]:
    """Submits the job at each tick, until Ctrl-C or SIGTERM. Runs on the cluster go on then.

    Returns:
        The counts of this process, when the next tick would be, and the exit code: 130 or 143.

    Raises:
        UserError: the job, the cron, the time zone, the token or the address is invalid; nothing has been submitted.
    """
    trigger = cron_trigger(cron, timezone)
    target = _target(job_file, overrides, options)
    follower = Schedule(target, trigger)
    with store_access("output.path", target.store.path, "read or written"):
        follower.recover()
        _check_cluster(target, answered_before=follower.last is not None)
        follower.begin()
    say(f"schedules {job_file} at {cron!r} {timezone}, next {follower.next() or 'never'}; output {target.store.path}")
    code = _keep(follower)
    follower.beat(ends=True)
    for tick in follower.open.values():
        say(_goes_on(tick, target))
    return {
        **{key: follower.counts[key] for key in ("submitted", "skipped", "succeeded", "failed")},
        "next": follower.next(),
        "output": target.store.path,
    }, code


def _check_cluster(target: Target, *, answered_before: bool) -> None:
    try:
        target.connect()
    except ClusterError as error:
        if not isinstance(error, ClusterUnreachable) or not answered_before:
            raise UserError(f"--address: {error}") from error
        say(f"{error}; it has answered before: the ticks wait for it")


def _keep(follower: Schedule) -> int:
    """Attends to ticks and runs until a signal, and returns that signal's exit code; raises what a step raises."""
    beat_due = clean_up_due = 0.0
    # steps run in a thread: a signal interrupts the main one, and what a step has decided is still submitted
    with ThreadPoolExecutor(1) as steps:
        try:
            while True:
                if time.monotonic() >= beat_due:
                    steps.submit(follower.beat).result()
                    beat_due = time.monotonic() + HEARTBEAT_S
                if time.monotonic() >= clean_up_due:
                    steps.submit(follower.forget).result()
                    clean_up_due = time.monotonic() + CLEAN_UP_S
                steps.submit(follower.attend).result()
                signals.raise_pending()
                time.sleep(min(follower.seconds_to_next(), POLL_S))
        except KeyboardInterrupt:
            return INTERRUPTED
        except SystemExit:
            return TERMINATED


def run_once(job_file: str, overrides: list[str], options: SubmitOptions) -> tuple[dict[str, Any], int]:
    """One tick, this minute's: submits the job and waits for its end. Called twice in a minute, it submits once.

    Returns:
        The tick as describe() has it, and the run's exit code; 3: skipped because of another run; 1: it did not end by itself.

    Raises:
        UserError: the job, the token or the address is invalid.
        Interrupted: Ctrl-C or SIGTERM; the run goes on.
    """
    target = _target(job_file, overrides, options)
    follower = Follower(target)
    try:
        with store_access("output.path", target.store.path, "read or written"):
            follower.recover()
            tick = follower.decide(datetime.now(UTC).replace(second=0, microsecond=0))
            follower.follow()
    except ClusterError as error:
        raise UserError(f"--address: {error}") from error
    waiting = True
    while tick.name in follower.open:
        try:
            time.sleep(ONCE_POLL_S)
            follower.follow()
            waiting = True
        except (ClusterError, *store_errors()) as error:
            if waiting:
                say(f"{' '.join(str(error).split())}; still waiting")
            waiting = False
        except (KeyboardInterrupt, SystemExit) as stop:
            code = INTERRUPTED if isinstance(stop, KeyboardInterrupt) else TERMINATED
            raise Interrupted(_goes_on(tick, target), code) from None
    tick = schedule_records.read_tick(target.store, tick.name)
    return {**describe(tick), "output": target.store.path}, _exit_code(tick)


def _goes_on(tick: Tick, target: Target) -> str:
    identity = tick.decision.submission_id
    return f"{identity} goes on; to end it: label-corpus jobs --address {target.address} --stop {identity}"


def _exit_code(tick: Tick) -> int:
    if tick.ending is None:
        return ANOTHER_RUN
    if tick.ending.exit_code is not None:
        return tick.ending.exit_code
    return 0 if tick.ending.status == "SUCCEEDED" else 1


def _target(job_file: str, overrides: list[str], options: SubmitOptions) -> Target:
    job = load_job(job_file, overrides)
    check_output(job)
    address = named_address(options.address)
    with packed(job_file, options):  # a mistake in the options shows now, not at the first tick
        pass
    return Target(
        store=job.output_store,
        key=f"-{output_key(job)}-",
        address=address,
        connect=partial(Cluster, address),
        submission_id=partial(submission_id, job_file, job),
        submit=lambda cluster, tick: submit_job(cluster, job_file, overrides, options, tick),
    )
