"""Open the output that a command's argument names: a job file or the output's folder."""

import os

from pydantic import BaseModel, ConfigDict

from jobs.config import JobConfig, check_config, load_job, override
from jobs.run.prepare import trial_store
from pipeline_ops.joining.parts import open_parts, parts_of
from pipeline_ops.output.commit_log import read_job
from pipeline_ops.output.labeled_output import Labeled, open_labeled
from pipeline_ops.schema.errors import UserError, store_access
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.paths import did_you_mean, full_path, is_local
from pipeline_ops.storage.store import Store

EVALUATION = "_report/evaluation.json"  # the result of the last `label-corpus evaluate`
JOB_SUFFIXES = (".yaml", ".yml")
TABLE_SETTINGS = tuple(f"output.{key}" for key in ("table", "catalog", "publish_seconds", "keep_versions_days"))


class FolderConfig(BaseModel):
    """Settings that apply to a folder with labels."""

    model_config = ConfigDict(extra="forbid")

    storage: StorageConfig = StorageConfig()


def store_of(target: str, overrides: list[str] | None = None) -> Store:
    """The output's store.

    Args:
        target: a job file (.yaml, .yml) or the output's folder.
        overrides: `key.sub=value`; for a folder only `storage.*`.

    Raises:
        UserError: as load_job, or `target` is neither a job file nor a folder.
    """
    if target.endswith(JOB_SUFFIXES):
        return load_job(target, overrides).output_store
    settings: dict = {}
    for setting in overrides or []:
        override(settings, setting)
    storage = check_config(FolderConfig, settings).storage
    if is_local(target) and not os.path.isdir(full_path(target)):
        remedy = did_you_mean(target) or "; give the job file, or the output's folder"
        raise UserError(f"{target!r} is neither a job file (.yaml) nor a folder{remedy}")
    return Store(target, storage)


def job_at(target: str, overrides: list[str] | None = None) -> JobConfig:
    """The job that `target` names: a job file, or a folder with labels, by what is recorded there.

    Args:
        overrides: `key.sub=value`; for a folder only `storage.*` and those of its table.

    Raises:
        UserError: as load_job or find_labeled.
    """
    if target.endswith(JOB_SUFFIXES) or (is_local(target) and os.path.isfile(full_path(target))):
        return load_job(target, overrides)
    of_table = [setting for setting in overrides or () if setting.startswith(TABLE_SETTINGS)]
    labeled = find_labeled(target, [setting for setting in overrides or () if setting not in of_table])
    settings = {**labeled.record["config"], "storage": labeled.store.config.model_dump()}
    settings["output"] = {**settings["output"], "path": labeled.path}
    for setting in of_table:
        override(settings, setting)
    return check_config(JobConfig, settings)


def find_labeled(target: str, overrides: list[str] | None = None) -> Labeled:
    """A snapshot of the output that `target` names, of a split job all parts as one; arguments as store_of.

    Raises:
        UserError: as store_of, or the output has no labels, or not those of all its parts, or its documents twice (parts_of).
    """
    store, key = store_of(target, overrides), "output.path" if target.endswith(JOB_SUFFIXES) else "OUTPUT"
    with store_access(key, store.path, "read"):
        if parts := parts_of(store):
            return open_parts(store, parts)
    try:
        return open_labeled(store, key)
    except UserError as error:
        trial = trial_store(store)
        if trial is None:
            raise
        with store_access("output.path", trial.path, "read"):
            if read_job(trial) is None:
                raise
        raise UserError(f"{error}; a trial's labels are in {trial.path!r}") from error


def model_of(labeled: Labeled, model: str | None) -> tuple[str, OutputConfig]:
    """(name of the model in _job.json, its output columns), by `--model`.

    Raises:
        UserError: there is no such model, or there are several and `model` is None.
    """
    models = labeled.columns.by_model()
    if model is None and len(models) == 1:
        return next(iter(models.items()))
    known = ", ".join(map(repr, models))
    if "" in models:
        raise UserError(f"--model: invalid value {model!r}: the output has one unnamed model; leave the option out")
    if model is None:
        raise UserError(f"--model: the output has several models, {known}; name one")
    if model not in models:
        raise UserError(f"--model: {model!r} is not one of the output's models, {known}")
    return model, models[model]
