"""A submitted job's log on stderr while it runs, and its end as the end of the command here."""

import json
import sys
import time
from typing import Any

import typer

from cluster.job_log import read_log
from cluster.jobs_api import Cluster, ClusterError, Submission
from jobs.console import signals
from jobs.console.signals import INTERRUPTED, TERMINATED, Interrupted
from pipeline_ops.schema.errors import UserError

RESULT = {"documents", "labeled", "rejected", "units", "output"}  # what the JSON line of `run` has at least
MESSAGE_ENDS = 200, 800  # characters of Ray's message about a job that did not run: a traceback's point is at its end
POLL_S = 0.5
STOP_TIMEOUT_S = 180  # Ray kills what has not ended by then


def follow(cluster: Cluster, submission_id: str) -> dict[str, Any]:
    """Shows the job's log on stderr until it has ended.

    Returns:
        The job's JSON line, if it has printed one, with submission_id, status, address and exit_code.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the job goes on, unless a person at a terminal answers to stop it.
        UserError: there is no such job.
        ClusterError: the cluster was lost.
    """
    ask_about(cluster, submission_id)
    result: dict[str, Any] = {}
    line = ""
    try:
        for text in read_log(cluster, submission_id):
            signals.raise_pending()
            sys.stderr.write(text)
            sys.stderr.flush()
            *lines, line = f"{line}{text}".split("\n")
            for whole in lines:
                result = result_in(whole) or result
    except (KeyboardInterrupt, SystemExit) as stop:
        raise _left(cluster, submission_id, stop) from None
    if line:
        print(file=sys.stderr)
    job = ask_about(cluster, submission_id)
    if job.exit_code is None:
        print(f"label-corpus: {job.id} {job.status}: {_shortened(job.message)}", file=sys.stderr, flush=True)
    return {
        **result,
        "submission_id": submission_id,
        "status": job.status,
        "address": cluster.address,
        "exit_code": exit_code(job),
    }


def exit_code(job: Submission) -> int | None:
    """As a shell has it: 128 + N after signal N, SIGTERM if it was stopped; 1 if it never ran; None while it has not ended."""
    if not job.has_ended:
        return None
    if job.exit_code is None:
        return TERMINATED if job.status == "STOPPED" else 1
    return job.exit_code if job.exit_code >= 0 else 128 - job.exit_code


def result_in(line: str) -> dict[str, Any] | None:
    """The JSON object that `run` prints at its end, if this line of the log is it."""
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return None
    return found if found.keys() >= RESULT else None


def ask_about(cluster: Cluster, submission_id: str) -> Submission:
    """The job of this id; raises UserError when there is none, ClusterError when the cluster is gone."""
    job = cluster.find(submission_id)
    if job is None:
        raise UserError(f"{submission_id!r}: no such job at {cluster.address}; `label-corpus jobs` lists them")
    return job


def stop_and_wait(cluster: Cluster, submission_id: str) -> Submission:
    """Stops a job by SIGTERM and waits for its end.

    Raises:
        UserError: there is no such job.
        ClusterError: the cluster is gone, or the job has not ended in time.
    """
    ask_about(cluster, submission_id)
    cluster.stop(submission_id)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while not (job := ask_about(cluster, submission_id)).has_ended:
        if time.monotonic() > deadline:
            raise ClusterError(f"{submission_id} has been asked to stop, but is still {job.status}")
        time.sleep(POLL_S)
    return job


def _shortened(message: str) -> str:
    first, last = MESSAGE_ENDS
    return message if len(message) <= first + last else f"{message[:first]} ... {message[-last:]}"


def _left(cluster: Cluster, submission_id: str, stop: BaseException) -> Interrupted:
    code = INTERRUPTED if isinstance(stop, KeyboardInterrupt) else TERMINATED
    if code == INTERRUPTED and sys.stdin.isatty() and sys.stderr.isatty():
        try:
            wanted = typer.confirm(f"\nStop {submission_id} on the cluster, too?", default=False, err=True)
        except (typer.Abort, KeyboardInterrupt):  # Ctrl-C once more
            wanted = False
        if wanted:
            job = stop_and_wait(cluster, submission_id)
            return Interrupted(f"{submission_id} has ended ({job.status}); submit it again to continue", code)
    command = f"label-corpus jobs --address {cluster.address}"
    return Interrupted(
        f"{submission_id} goes on; follow it again: {command} --follow {submission_id};"
        f" stop it: {command} --stop {submission_id}",
        code,
    )
