"""`label-corpus init`: looks at a corpus and writes a job file for it, with the reason for each setting beside it.

Contacts the corpus only: a model on the hub is looked for by `plan`. What the file says of a setting is its description in
the pydantic models.
"""

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from statistics import quantiles
from typing import Any

import yaml

from jobs.config import JobConfig, check_config, load_job, override, section_of
from pipeline_ops.reading.column_guess import Guess, guess
from pipeline_ops.reading.corpus_profile import Corpus, look_at
from pipeline_ops.reading.inputs import InputConfig
from pipeline_ops.schema.errors import UserError, as_user_error, store_errors
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.files import StorageConfig, full_path, is_local, join

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
# of each section, the settings that most jobs think about; all others are in the README
SHOWN = {
    "input": ("format", "text_column", "text_unit", "min_characters"),
    "model": ("revision", "max_length", "long_documents", "dtype", "min_score"),
    "output": ("partition_by", "columns", "scores", "top_k", "embedding"),
    "storage": ("endpoint_url", "region", "anonymous", "path_style"),
    "compute": ("classifiers", "gpus_per_classifier", "batch_tokens", "unit_bytes", "max_failed_units"),
}
MULTI_LABEL = ("labels_column", "scores_column")  # added where a head gives several labels, which is not known here
COMMENT_COLUMN = 44
MOST_LABELS = 12


def init(
    path: str,
    job_file: str,
    model: str,
    output: str | None = None,
    overrides: Sequence[str] = (),
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Writes `job_file`; returns what the corpus seems to hold.

    Args:
        path: the corpus: a file, folder or glob.
        output: the output folder; None: beside the working folder, named after the input.
        overrides: `key.sub=value`, which go into the file.
        force: replace a job file that is there.

    Raises:
        UserError: no such corpus, no column with texts, no such model folder, or a job file that is there already.
    """
    if os.path.lexists(job_file) and not force:
        raise UserError(f"--job: {job_file!r} exists; give another name, or --force to replace it")
    labels = _labels_of(model)
    settings: dict[str, Any] = {"input": {"path": path}, "model": {"path": model}, "output": {"path": output or _beside(path)}}
    for setting in overrides:
        override(settings, setting)
    job = check_config(JobConfig, settings)
    corpus = _look(job.input.model_copy(update={"path": full_path(job.input.path)}), job.storage)
    if corpus.delimiter is not None:
        settings["input"].setdefault("delimiter", corpus.delimiter)
    guessed = guess([*corpus.columns], corpus.common_texts)
    column = settings["input"].get("text_column") or _text_column(job.input.path, corpus, guessed)
    settings["input"] = {"path": settings["input"].pop("path"), "text_column": column, **settings["input"]}
    clashes = _clashes(corpus, job.output)
    for key, name in clashes.items():
        settings["output"].setdefault(key, name)
    found = _found(corpus, guessed, column, clashes, labels)
    lines = [*_head(found, shlex.quote(job_file)), *_sections(settings, _notes(found, corpus, guessed, job_file))]
    try:
        with open(job_file, "w" if force else "x", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    except OSError as error:
        raise UserError(f"--job: {job_file!r} cannot be written: {error.strerror}") from error
    load_job(job_file)
    return {"job": job_file, "model": model, "output": settings["output"]["path"], **found}


def _look(config: InputConfig, storage: StorageConfig) -> Corpus:
    try:
        return look_at(config, storage)
    except store_errors() as error:
        raise as_user_error("input.path", config.path, "read", error) from error


def _labels_of(model: str) -> list[str]:
    """The labels of a local model; none of one that is elsewhere."""
    folder = os.path.expanduser(model)
    if not os.path.isdir(folder):
        if is_local(model) and not HUB_ID.fullmatch(model):
            raise UserError(f"--model: {model!r} is no folder here, and no hub id of the form user/name")
        return []
    try:
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--model: {model!r} holds no config.json that can be read; give a folder that save_pretrained or label-corpus"
            f" train wrote"
        ) from error
    named = config.get("id2label") if isinstance(config, dict) else None
    return [str(name) for name in named.values()] if isinstance(named, dict) else []


def _beside(path: str) -> str:
    """An output folder in the working folder, named after the input; beside the input where that would be inside it."""
    source = full_path(path)
    while any(character in source for character in "*?["):
        source = os.path.dirname(source)
    name = re.split(r"\.(?=\w)", os.path.basename(source) or "corpus")[0] or "corpus"
    target = f"{name}-labeled"
    if is_local(source):
        here = full_path(target)
        if join(here, "").startswith(join(source, "")):
            target = join(os.path.dirname(source), f"{name}-labeled")
        while join(source, "").startswith(join(full_path(target), "")):
            target += "-2"
    return target


def _text_column(path: str, corpus: Corpus, guessed: Guess) -> str:
    if guessed.texts:
        return guessed.texts[0]
    described = [
        f"{name!r} ({guessed.looks[name].form if name in guessed.looks else data_type})"
        for name, data_type in corpus.columns.items()
    ]
    if not described:
        raise UserError(f"input.path: {path!r} holds no documents to look at; name the column by input.text_column=NAME")
    raise UserError(
        f"input.path: no column of {path!r} looks like texts: {', '.join(described)}; name it by input.text_column=NAME"
    )


def _clashes(corpus: Corpus, output: OutputConfig) -> dict[str, str]:
    """{key of output: another name} for columns that labeling adds under a name that the input has."""
    kept, taken = output.input_columns(), {*corpus.columns, *output.added_columns().values()}
    added = output.added_columns() | {key: getattr(output, key) for key in MULTI_LABEL}
    renamed = {}
    for key, column in added.items():
        if column in corpus.columns and (kept is None or column in kept):
            name = f"job_{column}" if key.startswith("source_") else f"predicted_{column}"
            while name in taken:
                name += "_2"
            renamed[key] = name
            taken.add(name)
    return renamed


def _found(corpus: Corpus, guessed: Guess, column: str, clashes: Mapping[str, str], labels: Sequence[str]) -> dict[str, Any]:
    """The fields of the last line on stdout."""
    lengths = sorted(len(text) for text in corpus.texts.get(column, ()))
    tenths = quantiles(lengths, n=10, method="inclusive") if len(lengths) > 1 else lengths * 9
    return {
        "files": len(corpus.files),
        "bytes": corpus.bytes,
        "formats": corpus.formats,
        "compressions": corpus.compressions,
        "files_passed_over": len(corpus.passed_over),
        "documents_estimate": round(corpus.documents),
        "documents_counted": corpus.counted,
        "columns": corpus.columns,
        "text_column": column,
        "candidates": list(guessed.texts),
        "pair": list(guessed.pair) if guessed.pair else None,
        "text_characters": {"p50": round(tenths[4]), "p90": round(tenths[8])} if lengths else None,
        "id_columns": list(guessed.ids),
        "truth_columns": list(guessed.truths),
        "renamed": dict(clashes),
        "labels": list(labels),
    }


def summary_lines(found: Mapping[str, Any]) -> list[str]:
    """What was found, for people."""
    kinds = ", ".join(f"{count:,} {name}" for name, count in (found["formats"] | found["compressions"]).items())
    files = f"{found['files']:,} file{'s' if found['files'] > 1 else ''}, {_size(found['bytes'])} ({kinds})"
    about = "" if found["documents_counted"] else "about "
    lines = [
        f"{files}; {about}{found['documents_estimate']:,} documents",
        f"columns: {', '.join(f'{name!r} {kind}' for name, kind in found['columns'].items())}",
    ]
    lengths = found["text_characters"]
    if lengths:
        lines.append(
            f"texts: {found['text_column']!r}, half of {lengths['p50']:,} characters or less, 9 in 10 of {lengths['p90']:,}"
        )
    if found["files_passed_over"]:
        lines.append(
            f"{found['files_passed_over']:,} files have no known suffix and are passed over; input.format would read them"
        )
    return lines


def _size(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


def _head(found: Mapping[str, Any], job: str) -> Iterator[str]:
    yield "# Written by `label-corpus init` from a sample of the input:"
    for line in summary_lines(found):
        yield f"#   {line}"
    yield f"# Type next label-corpus plan {job}, then label-corpus run {job}"
    yield "# Settings that are commented out have the value that they have without being set."


def _notes(found: Mapping[str, Any], corpus: Corpus, guessed: Guess, job_file: str) -> dict[str, list[str]]:
    """{section: what to say at its end}."""
    column = found["text_column"]
    of_input = [f"other columns of texts: {name!r} ({guessed.looks[name].shape})" for name in guessed.texts if name != column]
    if guessed.pair:
        of_input.append("for a model of pairs: text_column {!r}, text_pair_column {!r}".format(*guessed.pair))
    if found["id_columns"]:
        of_input.append(f"ids: {', '.join(map(repr, found['id_columns']))}; they are kept beside the labels")
    if "text" in corpus.formats and found["files"] > 1:
        of_input.append("plain text: text_unit says whether each line or each file is a document")
    of_model = []
    if found["labels"]:
        shown = ", ".join(map(repr, found["labels"][:MOST_LABELS]))
        more = len(found["labels"]) - MOST_LABELS
        of_model.append(f"its labels: {shown}" + (f" and {more} more" if more > 0 else ""))
    of_output = [
        f"{key}: the input has a column {getattr(OutputConfig(path='-'), key)!r} of its own, which is kept"
        for key in found["renamed"]
    ]
    if found["truth_columns"]:
        truth = found["truth_columns"][0]
        compare = shlex.join(["label-corpus", "evaluate", job_file, "--truth", truth])
        of_output.append(f"if {truth!r} is the truth: {compare} says how often it is met")
    return {"input": of_input, "model": of_model, "output": of_output}


def _sections(settings: Mapping[str, Any], notes: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for section, field in JobConfig.model_fields.items():
        if section == "models" and settings.get("models") is None:
            continue
        given = settings.get(section)
        yield ""
        if section == "models" or (given is not None and not isinstance(given, dict)):
            yield f"{section}: {_inline(given)}"
            continue
        model = section_of(field.annotation)
        assert model is not None
        off = "" if given else "# "
        yield _with_comment(f"{off}{section}:", field.description)
        for key, value in (given or {}).items():
            yield _with_comment(f"  {_inline(key)}: {_inline(value)}", model.model_fields[key].description)
        for note in notes.get(section, ()):
            yield f"  # - {' '.join(note.split())}"
        for key in SHOWN[section]:
            if key not in (given or {}):
                setting = model.model_fields[key]
                yield _with_comment(f"  # {key}: {_inline(_plain(setting.default))}", setting.description)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _with_comment(line: str, comment: str | None) -> str:
    return f"{line.ljust(COMMENT_COLUMN)} # {' '.join(comment.split())}" if comment else line


def _inline(value: Any) -> str:
    """`value` as YAML on one line."""
    return yaml.safe_dump([value], default_flow_style=True, width=10**9, allow_unicode=True).strip()[1:-1]


def print_summary(found: Mapping[str, Any]) -> None:
    """Print the corpus profile and the next commands on stderr."""
    from rich.console import Console

    console = Console(file=sys.stderr, highlight=False, markup=False, soft_wrap=True)
    for line in summary_lines(found):
        console.print(line)
    if found["candidates"][1:]:
        console.print(f"other columns of texts: {', '.join(map(repr, found['candidates'][1:]))}")
    for key, name in found["renamed"].items():
        console.print(f"output.{key} is {name!r}: the input has a column of the usual name")
    job = shlex.quote(found["job"])
    console.print(f"wrote {job}; next:", style="bold")
    for command in ("plan", "run", "report"):
        console.print(f"  label-corpus {command} {job}" + (" --open" if command == "report" else ""))
