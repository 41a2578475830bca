"""`label-corpus split`: job files for parts of a job's input, which several drivers or clusters label side by side.

The parts are disjoint and complete whatever files the input has, also later: which part a file is in depends on its path below
input.path and the number of parts alone (pipeline_ops/inputs/part.py). Each part has an output, lease and commits of its own,
below the output of the job; pipeline_ops/joining/parts.py reads them as one.
"""

import os
from collections.abc import Sequence
from typing import Any

import yaml

from jobs.config import JobConfig, check_config, load_settings
from jobs.number_format import byte_size, counted, percent
from jobs.run.prepare import prepare
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.inputs.listing import find_inputs
from pipeline_ops.inputs.part import InputPart, part_named, path_hash
from pipeline_ops.joining.parts import parts_of
from pipeline_ops.models.config import JobModel
from pipeline_ops.output.commit_log import read_job
from pipeline_ops.schema.errors import UserError, store_access
from pipeline_ops.storage.paths import full_path, join, shown, some_shown
from pipeline_ops.storage.store import Store

UNEVEN = 1.25  # times the mean of the parts' bytes, from which on the largest is named


def split(path: str, count: int, folder: str | None = None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Writes FOLDER/part-00000-of-00004.yaml, ...: the job's settings, each with a part of the input and an output of its own.

    The job is checked as `plan` does it. Revisions of models on the hub are written into the files: all parts have the same.

    Args:
        path: of the job file.
        count: of parts, 2 or more.
        folder: None: JOB-parts beside the job file.

    Returns:
        parts: by name its job file, output, files and bytes (as stored). files, bytes: of the input. largest_file: its path and
        bytes. output: of all parts.

    Raises:
        UserError: as load_job and prepare; the job is a part already, its output has labels or parts of another number, the
            input has too few files, or the folder has job files of another split.
    """
    settings = load_settings(JobConfig, path, [*overrides])
    job = check_config(JobConfig, settings)
    if job.input.part is not None:
        raise UserError(f"input.part: {path} is {job.input.part} already; split the job that it is of")
    if count < 2:
        raise UserError(f"N: {counted(count, 'part')}; give 2 or more")
    folder = f"{os.path.splitext(path)[0]}-parts" if folder is None else folder
    _check_folder(folder, count)
    _check_output(job.output_store, count)
    store = Store(full_path(job.input.path), job.storage)
    with store_access("input.path", store.path, "read"):
        files, _ = find_inputs(job.input, store)
    members = _members(files, store.path, count)
    names = [InputPart(number=number, of=count) for number in range(count)]
    whole = job.output.path.rstrip("/")
    parts = [_part_settings(settings, part, f"{whole}/{part.name}") for part in names]
    prepared = prepare(check_config(JobConfig, parts[0]), leased=False)
    os.makedirs(folder, exist_ok=True)
    written: dict[str, dict[str, Any]] = {}
    for part, its, own in zip(names, parts, members, strict=True):
        _pin(its, prepared.models)
        target = os.path.join(folder, f"{part.name}.yaml")
        with open(target, "w", encoding="utf-8") as file:
            file.write(f"# Written by `label-corpus split`: {part} of {path}\n")
            yaml.safe_dump(its, file, sort_keys=False, allow_unicode=True)
        sizes = {"files": len(own), "bytes": sum(one.stored.size for one in own)}
        written[part.name] = {"job": target, "output": join(job.output_store.path, part.name), **sizes}
    largest = max(files, key=lambda file: file.stored.size)
    return {
        "parts": written,
        "files": len(files),
        "bytes": sum(file.stored.size for file in files),
        "largest_file": {"path": largest.path, "bytes": largest.stored.size},
        "job": path,
        "output": job.output_store.path,
    }


def _check_folder(folder: str, count: int) -> None:
    names = os.listdir(folder) if os.path.isdir(folder) else []
    others = [name for name in names if (part := part_named(os.path.splitext(name)[0])) is not None and part.of != count]
    if others:
        raise UserError(f"-o: {folder!r} has job files of another split, such as {min(others)}; delete them, or give another")


def _check_output(store: Store, count: int) -> None:
    with store_access("output.path", store.path, "read"):
        parts, record = parts_of(store), read_job(store)
    if record is not None:
        raise UserError(
            f"output.path: {store.path!r} holds labels already, whose documents the parts would label again; go on with `run`,"
            f" or give another output.path"
        )
    if parts and len(parts) != count:
        raise UserError(
            f"output.path: {store.path!r} holds labels of a split into {len(parts)}: with {count} a file would be in another"
            f" part; split into {len(parts)} again, or give another output.path"
        )


def _members(files: Sequence[InputFile], input_path: str, count: int) -> list[list[InputFile]]:
    """The files of each part.

    Raises:
        UserError: a part would have none; it names the largest number of parts with which none is empty.
    """

    hashes = [path_hash(file.path, input_path) for file in files]
    members: list[list[InputFile]] = [[] for _ in range(count)]
    for file, number in zip(files, hashes, strict=True):
        members[number % count].append(file)
    if all(members):
        return members
    most = next(
        among for among in range(min(count - 1, len(files)), 0, -1) if len({number % among for number in hashes}) == among
    )
    why = f"N: the input has {counted(len(files), 'file')}, and a file is in one part, by its path"
    if most < 2:
        raise UserError(f"{why}: it cannot be split; cut its files into smaller ones first")
    raise UserError(f"{why}: of {count} parts {sum(not own for own in members)} would have none; {most} is the most that works")


def _part_settings(settings: dict[str, Any], part: InputPart, output: str) -> dict[str, Any]:
    """The job's settings with the part and its output; sections that are a path alone become mappings."""
    sections = {name: _mapping(settings[name]) for name in ("input", "output")}
    return {
        **settings,
        "input": {**sections["input"], "part": part.model_dump()},
        "output": {**sections["output"], "path": output},
    }


def _mapping(section: Any) -> dict[str, Any]:
    return {"path": section} if isinstance(section, str) else dict(section)


def _pin(settings: dict[str, Any], models: Sequence[JobModel]) -> None:
    """Sets the revisions of models on the hub, in place."""
    sections = [_mapping(section) for section in settings.get("models") or [settings["model"]]]
    for section, model in zip(sections, models, strict=True):
        resolved = {"revision": model.config.revision, "base_revision": model.config.base_revision}
        section |= {key: value for key, value in resolved.items() if value is not None}
    settings |= {"models": sections} if settings.get("models") else {"model": sections[0]}


def split_lines(result: dict[str, Any]) -> list[str]:
    """The result for people: what was written, how even the parts are, and what to do next."""
    parts, whole = result["parts"], result["output"]
    first = next(iter(parts.values()))
    mean = result["bytes"] / len(parts)
    name, largest = max(parts.items(), key=lambda item: item[1]["bytes"])
    file = result["largest_file"]
    uneven = ""
    if mean and largest["bytes"] > UNEVEN * mean:
        uneven = f"; {name} has {largest['bytes'] / mean:.1f} times the mean"
        if file["bytes"] > mean:
            uneven += (
                f": {shown(file['path'])} alone is {byte_size(file['bytes'])}, {percent(file['bytes'] / result['bytes'])} of"
                f" the input, and no part is smaller than a file: cut it into several"
            )
    return [
        f"{len(parts)} job files, {some_shown([one['job'] for one in parts.values()])}: {counted(result['files'], 'file')},"
        f" {byte_size(result['bytes'])}{uneven}",
        f"next: `label-corpus run {first['job']}` or `submit`, and so the others; `status`, `verify` and `report"
        f" {result['job']}` go by all parts in {shown(whole)}",
    ]
