"""`label-corpus submit`: the job on a Ray cluster, by Ray's Job Submission API. follow.py shows its log."""

import hashlib
import os
import re
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cluster.jobs_api import Cluster, ClusterError, Submission
from cluster.session import jobs_address
from jobs.config import JobConfig, load_job
from jobs.remote.follow import ask_about, follow
from jobs.remote.runtime_env import SubmitOptions, packed
from pipeline_ops.output.lease import LeaseError
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.paths import full_path, is_local

TICK, TICK_WITH_SECONDS = "%Y%m%dT%H%MZ", "%Y%m%dT%H%M%SZ"
METADATA_JOB_FILE, METADATA_OUTPUT = "job_file", "output"


def submit(
    job_file: str,
    overrides: list[str],
    options: SubmitOptions,
    *,
    tick: str | None = None,
    follow_it: bool = False,
) -> dict[str, Any]:
    """Submits the job unless it runs already; `follow_it`: shows its log, be it this submission's, until it has ended.

    Args:
        tick: ISO time, in UTC where it names no offset; None: now.

    Returns:
        submission_id, status and address; with `follow_it` what follow.follow returns.

    Raises:
        UserError: a mistake in the job or the options, no cluster at the address, or it refuses the job.
        LeaseError: another submission with this output has not ended, or this one has been made before.
        ClusterError: the cluster was lost on the way.
    """
    job = load_job(job_file, overrides)
    check_output(job)
    time = _time(tick).replace(second=0, microsecond=0)  # who submits twice in a minute submits once
    cluster = connect(options.address)
    running = running_submission(cluster, job)
    if running is not None:
        identity, accepted, status = running.id, False, running.status
    else:
        try:
            identity, accepted = submit_job(cluster, job_file, overrides, options, time)
        except ClusterError as error:
            raise UserError(str(error)) from error
        status = "PENDING" if accepted else ask_about(cluster, identity).status
    if not accepted:
        there = f"{identity} ({status}) is there already, with this output"
        if not follow_it:
            command = f"label-corpus jobs --address {cluster.address}"
            ended = "" if running is not None else "; for the same minute again, give another --tick"
            raise LeaseError(f"{there}: not submitted; follow it: {command} --follow {identity}{ended}")
        print(f"label-corpus: {there}: following it", file=sys.stderr, flush=True)
    else:
        print(f"label-corpus: submitted {identity} to {cluster.address}", file=sys.stderr, flush=True)
    if follow_it:
        return follow(cluster, identity)
    return {"submission_id": identity, "status": status, "address": cluster.address}


def connect(address: str | None) -> Cluster:
    """The cluster at `address`, or the one that the environment names as it does for Ray's own client.

    Raises:
        UserError: no address, no cluster there, or the token is wrong.
    """
    try:
        return Cluster(named_address(address))
    except ClusterError as error:
        raise UserError(f"--address: {error}") from error


def named_address(address: str | None) -> str:
    """`address`, or the environment's; raises UserError where there is none."""
    address = address or jobs_address()
    if address is None:
        raise UserError("--address: missing; give the cluster's dashboard, http://HEAD:8265, or set RAY_API_SERVER_ADDRESS")
    return address


def _time(tick: str | None) -> datetime:
    if tick is None:
        return datetime.now(UTC)
    try:
        time = datetime.fromisoformat(tick)
    except ValueError as error:
        raise UserError(f"--tick: {tick!r} is no ISO time; give one such as 2026-11-22T02:00Z") from error
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def output_key(job: JobConfig) -> str:
    """The same for all jobs with one output, part of their ids."""
    where = f"{job.storage.endpoint_url or ''} {full_path(job.output.path)}"
    return hashlib.sha256(where.encode()).hexdigest()[:8]


def submission_prefix(job_file: str, job: JobConfig) -> str:
    """What the ids of a job's submissions begin with, `reviews-1a2b3c4d-`: the job file's name and the output's key."""
    stem = os.path.splitext(os.path.basename(job_file))[0]
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', stem).strip('-') or 'job'}-{output_key(job)}-"


def submission_id(job_file: str, job: JobConfig, tick: datetime) -> str:
    """`reviews-1a2b3c4d-20261122T0200Z`; with seconds, where the tick has any."""
    return submission_prefix(job_file, job) + tick.astimezone(UTC).strftime(TICK_WITH_SECONDS if tick.second else TICK)


def running_submission(cluster: Cluster, job: JobConfig) -> Submission | None:
    """A submission with this job's output that has not ended, whatever its job file is called.

    Raises:
        ClusterError: the cluster is gone.
    """
    marker = f"-{output_key(job)}-"
    return next((one for one in cluster.list() if marker in one.id and not one.has_ended), None)


def submit_job(
    cluster: Cluster,
    job_file: str,
    overrides: list[str],
    options: SubmitOptions,
    tick: datetime,
) -> tuple[str, bool]:
    """Submits `label-corpus run JOB.yaml OVERRIDES`; does not ask whether another submission of the job still runs.

    Args:
        tick: the time this submission is for, with a time zone; to the second part of the id.

    Returns:
        The submission's id, and False where the cluster has one with this id already.

    Raises:
        UserError: a mistake in the job or the options; nothing has been sent.
        ClusterError: the cluster refuses it, or is gone.
    """
    job = load_job(job_file, overrides)
    check_output(job)
    identity = submission_id(job_file, job, tick)
    with packed(job_file, options) as (runtime_env, path):
        words = [options.python, "-m", "jobs.cli", "run", path, *overrides, *options.run_flags]
        entrypoint = shlex.join(words)
        if options.image is not None:  # Ray lets no folder travel beside an image
            entrypoint = f"printf %s {shlex.quote(Path(job_file).read_text(encoding='utf-8'))} | {entrypoint}"
        accepted = cluster.submit(
            identity,
            entrypoint,
            runtime_env=runtime_env,
            metadata={METADATA_JOB_FILE: os.path.basename(job_file), METADATA_OUTPUT: job.output.path},
            resources=options.resources,
        )
    return identity, accepted


def check_output(job: JobConfig) -> None:
    """Raises UserError for an output that would be lost with the folder in which Ray runs the job."""
    path = job.output.path
    if is_local(path) and not os.path.isabs(os.path.expanduser(path.split("://", 1)[-1])):
        raise UserError(
            f"output.path: {path!r} would be in a folder that the cluster removes after the job; give s3://..., or the absolute"
            f" path of a folder that all nodes share"
        )
