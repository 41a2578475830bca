"""`label-corpus jobs`: list, stop and follow the jobs of a cluster."""

import sys
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from cluster.jobs_api import Submission
from jobs.remote.follow import exit_code, follow, stop_and_wait
from jobs.remote.submit import METADATA_JOB_FILE, METADATA_OUTPUT, connect

WIDTH = 140


def list_jobs(address: str | None) -> dict[str, Any]:
    """All submissions that the cluster remembers, oldest first; other programs' have no job file.

    Raises:
        UserError: no cluster at the address, or the token is wrong.
        ClusterError: the cluster was lost on the way.
    """
    return {"jobs": [_described(job) for job in connect(address).list()]}


def stop_job(address: str | None, submission_id: str) -> dict[str, Any]:
    """Ends a job as SIGTERM does, and waits until it has ended; raises as list_jobs, and UserError for an unknown id."""
    return {"jobs": [_described(stop_and_wait(connect(address), submission_id))]}


def follow_job(address: str | None, submission_id: str) -> dict[str, Any]:
    """Shows a job's log until it has ended; returns and raises as follow.follow."""
    return follow(connect(address), submission_id)


def print_jobs(result: dict[str, Any]) -> None:
    """A table on stderr."""
    if not result["jobs"]:
        print("no jobs have been submitted to this cluster", file=sys.stderr)
        return
    widest = max([0, *(len(job["submission_id"]) for job in result["jobs"])])
    table = Table(Column("id", min_width=widest), "status", "exit code", "started", "ended", "job file")
    for job in result["jobs"]:
        code = "" if job["exit_code"] is None else str(job["exit_code"])
        row = (job["submission_id"], job["status"], code, _short(job["started"]), _short(job["ended"]), job["job_file"] or "")
        table.add_row(*row)
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)  # a file has no width: rich takes 80
    console.print(table)


def _described(job: Submission) -> dict[str, Any]:
    """Without the runtime environment: it holds values of environment variables."""
    return {
        "submission_id": job.id,
        "status": job.status,
        "exit_code": exit_code(job),
        "started": job.started.isoformat(timespec="seconds") if job.started else None,
        "ended": job.ended.isoformat(timespec="seconds") if job.ended else None,
        "job_file": job.metadata.get(METADATA_JOB_FILE),
        "output": job.metadata.get(METADATA_OUTPUT),
    }


def _short(time: str | None) -> str:
    return (time or "").removesuffix("+00:00").replace("T", " ")
