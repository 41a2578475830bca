"""Result settings of a job, their fingerprint, and the check that an output holds labels of one set of them only."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from jobs.config import ResolvedJob
from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.joining.parts import recorded_part
from pipeline_ops.models.adapters import adapted_settings
from pipeline_ops.models.config import JobModel
from pipeline_ops.models.heads import head_settings
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.paths import base_folder
from pipeline_ops.tokenizing.windows import window_settings

# keys of `output` that change no label
NON_RESULT_KEYS = ("path", "drop_removed", "lease_seconds", "table", "catalog", "publish_seconds", "keep_versions_days")
NON_RESULT_INPUT_KEYS = ("path", "max_reject_share", "part")  # keys of `input` that change no label
# as settings are recorded where they were renamed since: fingerprints, and with them the ids of units, stay the same
RECORDED_NAMES = {"output.label_name": "output.label_column"}
# keys of `input` that came later: not in the settings while they have their defaults
LATER_KEYS = ("encoding", "escape", "header")
HALF_DTYPES = ("bfloat16", "float16")


def result_settings(job: ResolvedJob, models: Sequence[JobModel]) -> dict[str, Any]:
    """All settings that change results.

    Args:
        models: those of the job, in its order; with their dtypes once the classifiers have resolved them.

    Returns:
        {config key, as recorded: JSON value}; keys of named models begin with `models.NAME.`. A dtype of `auto` that is not
        resolved yet is None.
    """
    model_settings: dict[str, Any] = {}
    for model in models:
        settings = {
            "model.path": model.facts.path,
            "model.revision": model.facts.revision,
            "model.weights": model.facts.weights,
            **adapted_settings(model.facts.adapted),
            "model.tokenizer": model.facts.tokenizer_hash,
            "model.max_length": model.facts.max_length,
            **head_settings(model.facts.head),
            **window_settings(model.facts.windows),
            "model.dtype": _arithmetic(model.dtype if model.config.dtype == "auto" else model.config.dtype),
        }
        if model.name:
            settings = {key.replace("model.", f"models.{model.name}.", 1): value for key, value in settings.items()}
        model_settings |= settings
    later = {key for key in LATER_KEYS if getattr(job.input, key) == type(job.input).model_fields[key].default}
    input_settings = {
        f"input.{key}": value
        for key, value in job.input.model_dump(mode="json").items()
        if key not in (*NON_RESULT_INPUT_KEYS, *later)
    }
    output_settings = {
        RECORDED_NAMES.get(f"output.{key}", f"output.{key}"): value
        for key, value in job.output.model_dump(mode="json").items()
        if key not in NON_RESULT_KEYS
    }
    return {**model_settings, **input_settings, **output_settings}


def _arithmetic(dtype: str) -> str | None:
    """A dtype with the one that heads have behind it, see pipeline_ops/loading/float32_head.py; None if it is not resolved.

    Earlier versions had heads in the same dtype, and recorded it alone: their labels and later ones do not mix.
    """
    return f"{dtype}, head float32" if dtype in HALF_DTYPES else dtype or None


def fingerprint(settings: dict[str, Any]) -> str:
    """SHA-256 (hexadecimal) of the result settings as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def check_same_job(record: dict[str, Any], settings: dict[str, Any]) -> None:
    """Check that the settings of a job are those of the labels in its output.

    Args:
        record: the output's `_job.json`.
        settings: result_settings() of the job; an unresolved dtype matches any.

    Raises:
        UserError: settings differ; the message names each key with both values.
    """
    recorded = record["settings"]
    if "join" in record:
        raise UserError("output.path: holds rows that `label-corpus join` has joined, and continues; give another output.path")
    recorded_names, names = _model_names(recorded), _model_names(settings)
    if recorded_names != names:
        raise UserError(
            f"models: the output holds labels of {_joined(recorded_names)}, this job has {_joined(names)}: labels of a document"
            f" are written together; label with the new models alone into another output.path, then `label-corpus join` makes"
            f" one table of both outputs"
        )
    differing = [
        f"{current_name(key)} (was {recorded.get(key)!r}, is {settings.get(key)!r})"
        for key in differing_settings(recorded, settings)
    ]
    if differing:
        as_recorded = "".join(
            f" ({key}: {recorded[key]})"  # the model's own counts from a later version on, so that nobody may have changed it
            for key in differing_settings(recorded, settings)
            if key.endswith(".activation") and key in recorded
        )
        has_old_heads = any(
            key.endswith(".dtype") and recorded.get(key) in HALF_DTYPES for key in differing_settings(recorded, settings)
        )
        remedy = (
            "an earlier version computed heads in that dtype, which no setting restores; give another output.path"
            if has_old_heads
            else f"restore them{as_recorded}, or give another output.path"
        )
        raise UserError(f"output.path: holds labels written with other settings: {'; '.join(differing)}; {remedy}")


def check_trial(record: dict[str, Any] | None, limit: int | None, job: ResolvedJob) -> None:
    """Check that a trial writes to no labels but a trial's, and a run to none of a trial.

    Args:
        record: the output's `_job.json`.
        limit: of the trial; None: a run of all documents.

    Raises:
        UserError: it is the other one, or a trial of a part, which would be among the parts.
    """
    path = job.output.path
    if limit is not None and job.input.part is not None:
        raise UserError(f"limit: the job is of {job.input.part} of the input; try the job that was split")
    if record is None or (limit is None) == ("trial" not in record):
        return
    if limit is None:
        raise UserError(f"output.path: {path!r} holds a trial, of the first documents only; give another folder")
    raise UserError(f"output.path: {path!r}, where a trial would go, holds labels that are no trial's; rename that folder")


def check_same_part(record: dict[str, Any], source: InputConfig, path: str) -> None:
    """Check that an output holds labels of the part of the input that a job labels, or of all of it if the job does.

    Args:
        record: the output's `_job.json`.
        source: of the job, with a full path.
        path: of the output.

    Raises:
        UserError: it holds those of another part, or parts of another folder, in which other files are.
    """
    earlier, part = record["config"]["input"], recorded_part(record)
    if part != source.part:
        was, wanted = (one or "the whole input" for one in (part, source.part))
        raise UserError(f"output.path: {path!r} holds labels of {was}, and this job is of {wanted}; give another output.path")
    if part is not None and base_folder(earlier["path"]) != base_folder(source.path):
        raise UserError(
            f"input.path: {path!r} holds labels of {part} of {earlier['path']!r}, by paths below it; split {source.path!r}"
            f" as a job of its own"
        )


def differing_settings(recorded: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """The keys, sorted, with other values in `settings` than are recorded; an unresolved dtype matches any."""
    return [
        key
        for key in sorted({*recorded, *settings})
        if recorded.get(key) != settings.get(key) and not (key.endswith(".dtype") and settings.get(key, "") is None)
    ]


def current_name(recorded: str) -> str:
    """The key that a job file has for a recorded setting."""
    return next((name for name, earlier in RECORDED_NAMES.items() if earlier == recorded), recorded)


def _model_names(settings: dict[str, Any]) -> list[str]:
    """Names of the models, sorted; empty for a job with `model`, which has no name."""
    return sorted({key.split(".")[1] for key in settings if key.startswith("models.")})


def _joined(names: list[str]) -> str:
    return ", ".join(names) if names else "one model without a name"
