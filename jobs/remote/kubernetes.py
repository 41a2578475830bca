"""A schedule as Kubernetes manifests: what `schedule --kubernetes` prints."""

import os
import re
from importlib.resources import files
from pathlib import Path

import yaml

from cluster.manifests import KUBECTL_IMAGE, NAME_LENGTH, cronjob, raycluster, rayjob_kueue
from jobs.config import JobConfig, load_job, load_settings
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.paths import is_local

EXAMPLE = {"cron": "0 2 * * *", "timezone": "Etc/UTC", "image": "label-corpus:0.1.0"}  # of manifests/cronjob.yaml
PREFIX = "label-corpus-"


def kubernetes_manifests(
    job_file: str,
    overrides: list[str] | None,
    cron: str,
    timezone: str,
    image: str,
    *,
    name: str | None = None,
    namespace: str = "default",
    kubectl_image: str = KUBECTL_IMAGE,
    rayjob_file: str | None = None,
) -> str:
    """Manifests of a CronJob whose ticks run the job on a Ray cluster of their own, ready for `kubectl apply -f -`.

    Args:
        overrides: `key.sub=value`; they go into the job file that the pods see.
        image: made from cluster/Dockerfile, with its tag.
        name: of the schedule; default: label-corpus- and the job file's name.
        rayjob_file: a copy of cluster/manifests/rayjob.yaml made to fit a cluster; default: the one of this version.

    Raises:
        UserError: a file is invalid, or names a path that pods cannot read.
    """
    refuse_local_paths(load_job(job_file, overrides))
    settings = load_settings(JobConfig, job_file, overrides or [])
    rayjob = None
    if rayjob_file is not None:
        try:
            rayjob = Path(rayjob_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{rayjob_file}: cannot be read: {error}; give a RayJob manifest") from error
    try:
        return cronjob(
            name or name_of(job_file),
            yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
            cron,
            timezone,
            image,
            namespace=namespace,
            kubectl_image=kubectl_image,
            rayjob=rayjob,
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def name_of(job_file: str) -> str:
    """A name for the schedule of a job file, as Kubernetes has them: label-corpus-sst-2 for jobs/SST_2.yaml."""
    stem = os.path.splitext(os.path.basename(job_file))[0].lower()
    return (PREFIX + re.sub("[^a-z0-9]+", "-", stem))[:NAME_LENGTH].rstrip("-")


def refuse_local_paths(job: JobConfig) -> None:
    """Raises UserError for a path that only this machine has: pods come and go, each with a disk of its own."""
    paths = {"input.path": job.input.path, "output.path": job.output.path}
    for key, path in paths.items():
        if is_local(path):
            raise UserError(f"{key}: {path!r} is on this machine, where pods do not see it; give a path on object storage")
    for name, model in job.named_models().items():
        key = f"models.{name}.path" if name else "model.path"
        if is_local(model.path) and not _may_be_hub_id(model.path):
            raise UserError(
                f"{key}: {model.path!r} is on this machine, where pods do not see it; give a hub id, or a folder on object"
                f" storage"
            )


def _may_be_hub_id(path: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", path)) and not os.path.exists(path)


def made_manifests() -> dict[str, str]:
    """The files of cluster/manifests that are made from others, by their names."""
    example = str(files("jobs") / "sst2.yaml")
    return {
        "raycluster.yaml": raycluster(),
        "rayjob-kueue.yaml": rayjob_kueue(),
        "cronjob.yaml": kubernetes_manifests(example, None, **EXAMPLE),
    }


def write_manifests() -> None:
    """Makes them again, in this checkout."""
    folder = Path(str(files("cluster"))) / "manifests"
    for name, text in made_manifests().items():
        (folder / name).write_text(text, encoding="utf-8")
