"""`label-corpus submit`: the job on a Ray cluster, by Ray's Job Submission API. What follows it is in jobs/following.py."""

import hashlib
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import yaml

from cluster.session import environment_values
from cluster.submission import Cluster, Submission
from jobs.config import JobConfig, load_job
from pipeline_ops.schema import UserError
from pipeline_ops.storage import full_path, is_local

CODE = ("jobs", "pipeline_ops", "cluster")
STOP_SECONDS = 60  # from SIGTERM to SIGKILL; Ray's 3 are too few to end the actors and free the lease
TICK, TICK_WITH_SECONDS = "%Y%m%dT%H%MZ", "%Y%m%dT%H%M%SZ"
METADATA_JOB_FILE, METADATA_OUTPUT = "job_file", "output"


@dataclass(frozen=True)
class SubmitOptions:
    """How a job travels to a cluster.

    Attributes:
        address: of the cluster's dashboard, http://HEAD:8265.
        working_dir: a folder that travels; the job file must be inside. None: the job file travels alone.
        image: that workers and job run in, by podman on the nodes; the job file travels in the command then.
        runtime_env: a YAML file with further keys of Ray's runtime environment.
        env: names of environment variables that travel.
        python: the interpreter on the cluster; the entrypoint is a shell command there.
        ship_code: this installed program travels too, for clusters that have only its dependencies.
        resources: entrypoint_num_cpus, entrypoint_num_gpus, entrypoint_memory (bytes), entrypoint_resources; none: the driver
            runs on the head.
    """

    address: str
    working_dir: str | None = None
    image: str | None = None
    runtime_env: str | None = None
    env: tuple[str, ...] = ()
    python: str = "python"
    ship_code: bool = False
    resources: dict[str, Any] = field(default_factory=dict)


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
    *,
    run_flags: Sequence[str] = (),
) -> tuple[str, bool]:
    """Submits `label-corpus run JOB.yaml OVERRIDES`; does not ask whether another submission of the job still runs.

    Args:
        tick: the time this submission is for, with a time zone; to the second part of the id.
        run_flags: options of `run`.

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
        words = [options.python, "-m", "jobs.cli", "run", path, *overrides, *run_flags]
        entrypoint = shlex.join(words)
        if options.image is not None:  # Ray lets no folder travel beside an image
            entrypoint = f"printf %s {shlex.quote(_read(job_file))} | {entrypoint}"
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


@contextmanager
def packed(job_file: str, options: SubmitOptions) -> Iterator[tuple[dict[str, Any], str]]:
    """The runtime environment, and the job file's path in it; local folders in it last as long as the block."""
    runtime_env = _further_keys(options)
    variables = dict(runtime_env.get("env_vars") or {})
    try:
        travelling = environment_values(options.env)
    except ValueError as error:
        raise UserError(f"--env {error}") from error
    runtime_env["env_vars"] = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), **variables, **travelling}
    if options.image is not None:
        if options.working_dir is not None or options.ship_code:
            raise UserError("--image: Ray lets no folder travel beside an image; leave out --working-dir and --ship-code")
        yield {**runtime_env, "image_uri": options.image}, "/dev/stdin"
        return
    with tempfile.TemporaryDirectory(prefix="label-corpus-") as folder:
        if options.working_dir is None:
            working_dir, path = os.path.join(folder, "working_dir"), os.path.basename(job_file)
            os.mkdir(working_dir)
            shutil.copyfile(job_file, os.path.join(working_dir, path))
        else:
            working_dir, path = options.working_dir, _inside(job_file, options.working_dir)
        modules = [*(runtime_env.get("py_modules") or [])]
        if options.ship_code:
            modules += _code(folder)
            runtime_env["excludes"] = [*(runtime_env.get("excludes") or []), "__pycache__/"]
        yield {**runtime_env, "working_dir": working_dir, **({"py_modules": modules} if modules else {})}, path


def _further_keys(options: SubmitOptions) -> dict[str, Any]:
    if options.runtime_env is None:
        return {}
    try:
        keys = yaml.safe_load(_read(options.runtime_env)) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"--runtime-env: {options.runtime_env}: {' '.join(str(error).split())}") from error
    if not isinstance(keys, dict):
        raise UserError(f"--runtime-env: {options.runtime_env} holds a {type(keys).__name__}, not Ray's keys, such as pip")
    for key, option in {"working_dir": "--working-dir", "image_uri": "--image"}.items():
        if key in keys:
            raise UserError(f"--runtime-env: {key} stands in {options.runtime_env}; give {option} instead")
    twice = sorted({*options.env} & {*(keys.get("env_vars") or {})})
    if twice:
        raise UserError(f"--env {twice[0]}: stands in {options.runtime_env} too; give it once")
    return keys


def _inside(job_file: str, working_dir: str) -> str:
    if not os.path.isdir(working_dir):
        raise UserError(f"--working-dir: {working_dir!r} is no folder")
    path = os.path.relpath(os.path.realpath(job_file), os.path.realpath(working_dir))
    if path.split(os.sep)[0] == os.pardir:
        raise UserError(f"--working-dir: {job_file!r} is not inside {working_dir!r}; put it there: it travels with the folder")
    return path


def _code(folder: str) -> list[str]:
    """Folders of this program, and of what says its version: that is recorded with the labels."""
    release = version("label-corpus")
    information = os.path.join(folder, f"label_corpus-{release}.dist-info")
    os.mkdir(information)
    with open(os.path.join(information, "METADATA"), "w", encoding="utf-8") as file:
        file.write(f"Metadata-Version: 2.1\nName: label-corpus\nVersion: {release}\n")
    specs = [find_spec(name) for name in CODE]
    return [*(path for spec in specs if spec for path in spec.submodule_search_locations or ()), information]


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
