"""What is uploaded with a submitted job, as Ray's runtime environment: job file or folder, program, environment variables."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from cluster.session import environment_values
from jobs.config import load_config
from pipeline_ops.schema.errors import UserError

CODE = ("jobs", "pipeline_ops", "cluster")
STOP_SECONDS = 60  # from SIGTERM to SIGKILL; Ray's 3 are too few to end the actors and free the lease


@dataclass(frozen=True)
class SubmitOptions:
    """How a job travels to a cluster.

    Attributes:
        address: of the cluster's dashboard, http://HEAD:8265; None: what Ray's own client takes from the environment.
        working_dir: a folder that travels; the job file must be inside. None: the job file travels alone.
        image: that workers and job run in, by podman on the nodes; the job file travels in the command then.
        runtime_env: a YAML file with further keys of Ray's runtime environment.
        env: names of environment variables that travel.
        python: the interpreter on the cluster; the entrypoint is a shell command there.
        ship_code: this installed program travels too, for clusters that have only its dependencies.
        resources: of the driver, see entrypoint_request; none: it runs on the head.
        run_flags: options of `run`.
    """

    address: str | None
    working_dir: str | None = None
    image: str | None = None
    runtime_env: str | None = None
    env: tuple[str, ...] = ()
    python: str = "python"
    ship_code: bool = False
    resources: dict[str, Any] = field(default_factory=dict)
    run_flags: tuple[str, ...] = ()


class EntrypointConfig(BaseModel):
    """What Ray reserves for the driver; without any of these it runs on the head and takes no CPU."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="label-corpus resources")

    num_cpus: float | None = Field(default=None, ge=0)
    num_gpus: float | None = Field(default=None, ge=0)
    memory: int | None = Field(default=None, ge=0, description="bytes")
    resources: dict[str, Annotated[float, Field(ge=0)]] | None = Field(default=None, description="Ray's custom resources")


def entrypoint_request(path: str | None) -> dict[str, Any]:
    """The file of --entrypoint as arguments of Ray's Jobs API; empty without one.

    Raises:
        UserError: the file cannot be read, or a key or value in it is invalid.
    """
    if path is None:
        return {}
    try:
        wanted = load_config(EntrypointConfig, path, [])
    except UserError as error:
        raise UserError(f"--entrypoint: {error}") from error
    return {f"entrypoint_{name}": value for name, value in wanted if value}


@contextmanager
def packed(job_file: str, options: SubmitOptions) -> Iterator[tuple[dict[str, Any], str]]:
    """The runtime environment, and the job file's path in it; local folders in it last as long as the block.

    Raises:
        UserError: an option or the file of --runtime-env is invalid.
    """
    runtime_env = _further_keys(options)
    variables = dict(runtime_env.get("env_vars") or {})
    try:
        traveling = environment_values(options.env)
    except ValueError as error:
        raise UserError(f"--env {error}") from error
    runtime_env["env_vars"] = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), **variables, **traveling}
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
        keys = yaml.safe_load(Path(options.runtime_env).read_text(encoding="utf-8")) or {}
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
    """Folders of this program and of its version metadata, which is recorded with the labels."""
    release = version("label-corpus")
    information = os.path.join(folder, f"label_corpus-{release}.dist-info")
    os.mkdir(information)
    Path(information, "METADATA").write_text(f"Metadata-Version: 2.1\nName: label-corpus\nVersion: {release}\n")
    specs = [find_spec(name) for name in CODE]
    return [*(path for spec in specs if spec for path in spec.submodule_search_locations or ()), information]
