"""The folder that a training publishes its model to: what it may replace, and what it holds.

Publishing is atomic for readers: a local folder is written under a temporary name and renamed; on object storage config.json,
without which a folder is no model, is put last.
"""

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline_ops.models.fetch import is_hub_id
from pipeline_ops.models.model_card import REVIEWED_SAMPLES
from pipeline_ops.output.commit_log import COMMITS_FOLDER, JOB_FILE
from pipeline_ops.output.lease import LEASE_FOLDER
from pipeline_ops.schema.errors import UserError, store_access
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.paths import check_apart, is_inside, real_path
from pipeline_ops.storage.store import TEMPORARY_PREFIX, Store, StoredFile

RECORD = "training.json"  # settings, versions and held-out accuracy, in the model's folder


def check_target(
    target: str, storage: StorageConfig, *, source: str | None, files: Iterable[str], start: str | None, overwrite: bool
) -> None:
    """Fail before an hour of training if its result could not be written, or would replace or become a corpus,
    labels or the model that it starts from.

    Args:
        target: the model's folder.
        source: `input.path`; None: training reads corrections alone.
        files: the input files that it gives, and those of the corrections.
        start: `model.path`; None: training starts from new weights.
        overwrite: replace what the folder holds.

    Raises:
        UserError: the folder cannot be written, or holds what it must keep.
    """
    if source is not None:
        check_apart(source, target, "the model's files")
    inside = next((path for path in files if is_inside(path, target)), None)
    if inside is not None:
        raise UserError(
            f"output.path: {target!r} holds the input file {inside!r}, which no training replaces; use another folder"
        )
    if start is not None and not is_hub_id(start) and is_inside(start, target):
        raise UserError(f"output.path: {target!r} holds model.path {start!r}, from which training starts; use another folder")
    with store_access("output.path", target, "written"):
        store = Store(target, storage)
        if store.is_local and os.path.isfile(target):
            raise UserError(f"output.path: {target!r} is a file; give a folder")
        existing = _replaceable_files(store)
        if existing and not overwrite:
            raise UserError(
                f"output.path: {target!r} holds {os.path.basename(existing[0].path)!r}; use another folder or"
                " output.overwrite=true"
            )
        store.check_writable()


def _replaceable_files(store: Store) -> list[StoredFile]:
    """The files of a folder; raises UserError if it holds labels of a job, itself or in a folder below it."""
    files = store.list_all()
    for file in files:
        if {JOB_FILE, COMMITS_FOLDER, LEASE_FOLDER} & {*store.relative(file.path).split("/")}:
            raise UserError(
                f"output.path: {store.path!r} holds the labels of a job ({store.relative(file.path)}), which no training"
                " replaces; use another folder"
            )
    return files


def publish(folder: str, store: Store) -> None:
    """Copy the files of the local `folder` to the store, replacing its content.

    Raises:
        UserError: a job has written labels there meanwhile.
    """
    _replaceable_files(store)
    if store.is_local:
        _publish_locally(folder, real_path(store.path))
        return
    contents = {name: Path(folder, name).read_bytes() for name in sorted(os.listdir(folder))}
    entry = "config.json"  # without it a folder is no model
    existing = [store.relative(file.path) for file in store.list_all()]
    store.delete(name for name in existing if name == entry)
    store.delete(name for name in existing if name not in contents)
    store.put_many({name: data for name, data in contents.items() if name != entry})
    store.put(entry, contents[entry])


def _publish_locally(folder: str, target: str) -> None:
    """publish() to a local folder, given by its real path: where that is a link, the folder that it leads to is replaced."""
    temporary = os.path.join(os.path.dirname(target), f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    outdated = f"{temporary}-outdated"
    try:
        os.makedirs(temporary)
        for name in os.listdir(folder):  # not copytree: it keeps the mode of a temporary folder, 0700
            shutil.copyfile(os.path.join(folder, name), os.path.join(temporary, name))
        if os.path.isdir(target):
            os.rename(target, outdated)  # rename cannot replace a folder that is not empty
        os.rename(temporary, target)
    except BaseException:  # a full disk, Ctrl-C: the target is as it was, and nothing is beside it
        if os.path.isdir(outdated) and not os.path.isdir(target):
            os.rename(outdated, target)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if os.path.isdir(outdated):
        shutil.rmtree(outdated)


def write_facts(
    folder: str,
    settings: Mapping[str, Any],
    versions: Mapping[str, str],
    report: Mapping[str, Any],
    reviewed_samples: Sequence[str],
) -> None:
    """Write how the model was trained into its local `folder`: training.json for programs, README.md as the model card.

    Args:
        settings: of the training file.
        report: the fields of the last JSON line.
        reviewed_samples: ids of the review samples that the model has learned from; labeling records them with the model, as
            these samples cannot say how good it is.
    """
    record = {"settings": settings, "versions": versions, "report": report}
    Path(folder, RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    start = settings["model"]["path"]
    head: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-classification"}
    if start is not None and is_hub_id(start):
        head["base_model"] = start
    if reviewed_samples:
        head[REVIEWED_SAMPLES] = [*reviewed_samples]
    rows = {
        "starts from": start or f"new weights: {settings['model']['architecture']['model_type']}",
        "parameters": f"{report['parameters']:,}, {report['trained_parameters']:,} of them trained",
        "documents": f"{report['train_documents']:,} trained on, {report['held_out_documents']:,} held out",
        "held-out accuracy": f"{report['accuracy']:.4f} (macro F1 {report['macro_f1']:.4f})",
        "steps, documents per step": f"{report['steps']:,}, {settings['training']['batch_size']:,}",
        "learning rate": f"{report['learning_rate']:g}",
        "max_length": f"{report['max_length']:,} tokens",
        "labels": f"{len(report['labels']):,}; config.json has their names",
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }
    lines = [
        *("---", yaml.safe_dump(head).strip(), "---", "", "# Text classifier", ""),
        *(f"Trained by `label-corpus train`; `{RECORD}` has all settings.", "", "| | |", "|---|---|"),
        *(f"| {name} | {' '.join(str(value).split()).replace('|', '&#124;')} |" for name, value in rows.items()),
    ]
    Path(folder, "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
