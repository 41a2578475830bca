"""What an output is made with: the settings that change results, and the refusal to mix others into it."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from jobs.config import ResolvedJob
from pipeline_ops.models.config import JobModel
from pipeline_ops.models.heads import head_settings
from pipeline_ops.schema.errors import UserError
from pipeline_ops.tokenizing.windows import window_settings

NON_RESULT_KEYS = ("path", "drop_removed", "lease_seconds")  # of the output's settings, these change no label


def result_settings(job: ResolvedJob, models: Sequence[JobModel]) -> dict[str, Any]:
    """All that changes results, by config key; a dtype is None where it is not known yet."""
    model_metadata: dict[str, Any] = {}
    for model in models:
        settings = {
            "model.path": model.facts.path,
            "model.revision": model.facts.revision,
            "model.weights": model.facts.weights,
            "model.tokenizer": model.facts.tokenizer_hash,
            "model.max_length": model.facts.max_length,
            **head_settings(model.facts.head),
            **window_settings(model.facts.windows),
            "model.dtype": (model.dtype or None) if model.config.dtype == "auto" else model.config.dtype,
        }
        if model.name:
            settings = {key.replace("model.", f"models.{model.name}.", 1): value for key, value in settings.items()}
        model_metadata |= settings
    reading = {f"input.{key}": value for key, value in job.input.model_dump(mode="json").items() if key != "path"}
    writing = {
        f"output.{key}": value for key, value in job.output.model_dump(mode="json").items() if key not in NON_RESULT_KEYS
    }
    return {**model_metadata, **reading, **writing}


def fingerprint(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def check_same_job(record: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raises UserError when the output holds labels made with other settings; names the keys that differ."""
    recorded = record["settings"]
    before, now = _model_names(recorded), _model_names(settings)
    if before != now:
        raise UserError(
            f"models: the output holds labels of {_shown(before)}, this job has {_shown(now)}: a document's labels are written"
            f" together; label with all of them into another output.path, or with the new ones alone"
        )
    differing = [
        f"{key} (was {recorded.get(key)!r}, is {settings.get(key)!r})"
        for key in sorted({*recorded, *settings})
        if recorded.get(key) != settings.get(key) and not (key.endswith(".dtype") and settings.get(key, "") is None)
    ]
    if differing:
        raise UserError(
            f"output.path: holds labels made with other settings: {'; '.join(differing)};"
            f" change them back, or give another output.path"
        )


def _model_names(settings: dict[str, Any]) -> list[str]:
    """The models of a job, in alphabetical order; of a job with one, which has no name, none."""
    return sorted({key.split(".")[1] for key in settings if key.startswith("models.")})


def _shown(names: list[str]) -> str:
    return ", ".join(names) if names else "one model without a name"
