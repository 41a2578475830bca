"""`label-corpus init`: profile a corpus and write a commented job file for it, which `plan` accepts.

What `plan` would refuse is refused before anything is written. The comment of a setting is its description in the pydantic
models.
"""

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from statistics import quantiles
from typing import Any

import yaml
from pydantic import BaseModel

from jobs.checking.columns import read_only
from jobs.config import JobConfig, check_config, load_job, override, section_of
from jobs.number_format import byte_size, counted
from jobs.run.plan import stray_lines
from jobs.run.prepare import prepare
from pipeline_ops.inputs import passed_over
from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.models.fetch import HubUnreachable
from pipeline_ops.planning.stray_files import find_strays, glob_of_columns
from pipeline_ops.reading.column_guess import ColumnGuess, guess_columns
from pipeline_ops.reading.corpus_profile import CorpusProfile, profile_corpus
from pipeline_ops.reading.csv_guess import shown_setting
from pipeline_ops.reading.documents import is_text_type
from pipeline_ops.schema.errors import UserError, store_access
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.paths import full_path, is_local, join, shown
from pipeline_ops.tables.input_table import table_words

# {section: settings to list in the file, commented out}; the README has all
COMMON_SETTINGS = {
    "input": ("format", "text_column", "text_unit", "min_characters"),
    "model": ("revision", "max_length", "long_documents", "dtype", "min_score"),
    "output": ("partition_by", "columns", "scores", "top_k", "embedding", "table"),
    "storage": ("endpoint_url", "region", "anonymous", "path_style"),
    "compute": ("classifiers", "gpus_per_classifier", "batch_tokens", "unit_bytes", "max_failed_units"),
}
MULTI_LABEL = ("labels_column", "scores_column")  # added for multi-label heads; the kind of head is not known here
COMMENT_COLUMN = 44
MAX_LABELS = 12
MAX_COLUMNS, MAX_TYPE = 12, 60  # in lines for people: columns, and characters of a type


def init(
    path: str,
    job_file: str,
    model: str,
    output: str | None = None,
    overrides: Sequence[str] = (),
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Write `job_file`; returns the profile of the corpus.

    Args:
        path: the corpus: a file, folder or glob.
        output: the output folder; None: in the working folder, named after the input.
        overrides: `key.sub=value` settings to write into the file.
        force: replace an existing job file.

    Raises:
        UserError: no such corpus, no text column, the job file exists, or what plan() would refuse the job for; a model that
            cannot be looked for, as the hub cannot be reached, is accepted with a remark.
    """
    check_new(job_file, force=force)
    settings: dict[str, Any] = {
        "input": {"path": path},
        "model": {"path": model},
        "output": {"path": output or default_output(path)},
    }
    for setting in overrides:
        override(settings, setting)
    job = check_config(JobConfig, settings)
    source = job.input.model_copy(update={"path": full_path(job.input.path)})
    with store_access("input.path", source.path, "read"):
        corpus = profile_corpus(source, job.input_store)
        if corpus.encoding is not None:
            settings["input"]["encoding"] = corpus.encoding
            source = source.model_copy(update={"encoding": corpus.encoding})
        strays = stray_lines(find_strays(corpus.files, corpus.passed_over, source, job.input_store))
    settings["input"] |= {key: value for key, (value, _) in corpus.csv_settings.items()}
    guessed = guess_columns([*corpus.columns], corpus.common_texts)
    column = settings["input"].get("text_column") or text_column_of(source, corpus, guessed)
    settings["input"] = {"path": settings["input"].pop("path"), "text_column": column, **settings["input"]}
    check_column("input.text_column", column, source, corpus)
    clashes = _clashes(corpus, job.output)
    for key, name in clashes.items():
        settings["output"].setdefault(key, name)
    labels, not_checked = _labels_of(check_config(JobConfig, settings))
    summary = summary_of(corpus, guessed, column, clashes, labels) | {
        "remarks": [*strays, *corpus.notes_on_files(column), *corpus.encoding_notes, *corpus.csv_notes, *corpus.type_notes],
        "not_checked": not_checked,
    }
    lines = [
        *head(summary, f"Run label-corpus plan {shlex.quote(job_file)}, then label-corpus run {shlex.quote(job_file)}"),
        *sections(JobConfig, COMMON_SETTINGS, settings, _notes(summary, corpus, guessed, job_file)),
    ]
    write_file(job_file, lines, force=force)
    load_job(job_file)
    return {"job": job_file, "model": model, "output": settings["output"]["path"], **summary}


def check_new(path: str, *, force: bool) -> None:
    """Raises UserError for a configuration file that exists."""
    if os.path.lexists(path) and not force:
        raise UserError(f"--job: {path!r} exists; give another name, or --force to replace it")


def write_file(path: str, lines: Sequence[str], *, force: bool) -> None:
    """Write a configuration file; `force` replaces one that exists. Raises UserError if it cannot be written."""
    try:
        with open(path, "w" if force else "x", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    except OSError as error:
        raise UserError(f"--job: {path!r} cannot be written: {error.strerror}") from error


def _labels_of(job: JobConfig) -> tuple[Sequence[str], str | None]:
    """(the labels of the job's model, why they are not known); raises UserError for what plan() would refuse the job for."""
    try:
        (model,) = prepare(job, leased=False).models
    except HubUnreachable as error:
        return (), f"not checked: {error}"
    return model.facts.head.labels, None


def default_output(path: str, suffix: str = "labeled") -> str:
    """An output folder in the working folder, named after the input; beside the input if it would be inside the input."""
    source = full_path(path)
    while any(character in source for character in "*?["):
        source = os.path.dirname(source)
    name = re.split(r"\.(?=\w)", os.path.basename(source) or "corpus")[0] or "corpus"
    target = f"{name}-{suffix}"
    if is_local(source):
        here = full_path(target)
        if join(here, "").startswith(join(source, "")):
            target = join(os.path.dirname(source), f"{name}-{suffix}")
        while join(source, "").startswith(join(full_path(target), "")):
            target += "-2"
    return target


def text_column_of(source: InputConfig, corpus: CorpusProfile, guessed: ColumnGuess) -> str:
    """The guessed text column; raises UserError, with the columns there are, if none looks like one."""
    if guessed.texts:
        return guessed.texts[0]
    path = shown(source.path)
    described = [
        f"{name!r} ({guessed.forms[name].form if name in guessed.forms else data_type})"
        for name, data_type in corpus.columns.items()
    ]
    if not described:
        raise UserError(f"input.path: {path!r} has no documents to sample; name the column by input.text_column=NAME")
    raise UserError(
        f"input.path: no column of {path!r} looks like a text column: {', '.join(described)}; name it by"
        f" input.text_column=NAME{read_only(_format_with_texts(source, corpus))}"
    )


def _format_with_texts(source: InputConfig, corpus: CorpusProfile) -> str | None:
    """Of several formats a glob for one that has a text column, which the others do not have; None if there is none."""
    having = [
        file_format
        for file_format, types in corpus.types.items()
        if len(corpus.types) > 1
        and guess_columns([*types], {name: corpus.texts[name] for name in types if is_text_type(types[name])}).texts
    ]
    return next(filter(None, (glob_of_columns(corpus.files, corpus.passed_over, [name], source) for name in having)), None)


def check_column(key: str, column: str, source: InputConfig, corpus: CorpusProfile) -> None:
    """Raises UserError for a format of which no file has the column that `key` names, with a glob for the others."""
    having = [file_format for file_format, types in corpus.types.items() if column in types or file_format == "text"]
    for file_format, types in corpus.types.items():
        if types and file_format not in having:
            file = next(file for file in corpus.files if file.format == file_format and file.stored.size)
            glob = glob_of_columns(corpus.files, corpus.passed_over, having, source)
            raise UserError(
                f"{key}: there is no column {column!r} in {shown(file.path)}; it has"
                f" {', '.join(map(repr, types))}{read_only(glob)}"
            )


def _clashes(corpus: CorpusProfile, output: OutputConfig) -> dict[str, str]:
    """{key of output: new name} for added columns whose default name is a column of the input."""
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


def summary_of(
    corpus: CorpusProfile, guessed: ColumnGuess, column: str, clashes: Mapping[str, str], labels: Sequence[str]
) -> dict[str, Any]:
    """The fields of the last JSON line."""
    table = corpus.files[0].table
    lengths = sorted(len(text) for text in corpus.texts.get(column, ()))
    tenths = quantiles(lengths, n=10, method="inclusive") if len(lengths) > 1 else lengths * 9
    return {
        "files": len(corpus.files),
        "input_table": table.to_dict() if table is not None else None,
        "bytes": corpus.bytes,
        "formats": corpus.formats,
        "compressions": corpus.compressions,
        "files_passed_over": len(corpus.passed_over),
        "passed_over": passed_over.summary_of(corpus.passed_over),
        "documents_estimate": round(corpus.documents_with(column)),
        "documents_counted": corpus.counted,
        "csv": {key: {"value": value, "reason": reason} for key, (value, reason) in corpus.csv_settings.items()},
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
    """The profile in a few lines of text."""
    kinds = ", ".join(f"{count:,} {name}" for name, count in (found["formats"] | found["compressions"]).items())
    files = f"{counted(found['files'], 'file')}, {byte_size(found['bytes'])} ({kinds})"
    about = "" if found["documents_counted"] else "about "
    table = f"{table_words(found['input_table'])}: " if found["input_table"] else ""
    lines = [
        f"{table}{files}; {about}{counted(found['documents_estimate'], 'document')}",
        f"columns: {_some_columns(found['columns'])}",
    ]
    lines += [f"input.{key}={shown_setting(guess['value'])}: {guess['reason']}" for key, guess in found["csv"].items()]
    lengths = found["text_characters"]
    if lengths:
        half = f"half of {counted(lengths['p50'], 'character')} or less"
        lines.append(f"texts: {found['text_column']!r}, {half}, 9 in 10 of {lengths['p90']:,}")
    if found["files_passed_over"]:
        lines.append(passed_over.skipped_line(found["passed_over"]))
    return lines


def _some_columns(columns: Mapping[str, str]) -> str:
    """The first columns with their types, as lines for people have them; the JSON line has all, with their whole types."""
    first = [f"{name!r} {kind if len(kind) <= MAX_TYPE else kind[: MAX_TYPE - 1] + '…'}" for name, kind in columns.items()]
    more = len(first) - MAX_COLUMNS
    return ", ".join(first[:MAX_COLUMNS]) + (f" and {more} more" if more > 0 else "")


def head(found: Mapping[str, Any], next_commands: str) -> Iterator[str]:
    """The first lines of a configuration file: the profile of the corpus, and what to type next."""
    yield "# Written by `label-corpus init` from a sample of the input:"
    for line in summary_lines(found):
        yield f"#   {line}"
    yield f"# {next_commands}"
    yield "# Commented settings show their defaults."


def _notes(found: Mapping[str, Any], corpus: CorpusProfile, guessed: ColumnGuess, job_file: str) -> dict[str, list[str]]:
    """{section: remarks about the corpus or the model}."""
    column = found["text_column"]
    input_notes = [*found["remarks"]]
    input_notes += [
        f"other text columns: {name!r} ({guessed.forms[name].description})" for name in guessed.texts if name != column
    ]
    if guessed.pair:
        input_notes.append("for text pairs: text_column {!r}, text_pair_column {!r}".format(*guessed.pair))
    if found["id_columns"]:
        input_notes.append(f"ids: {', '.join(map(repr, found['id_columns']))}; kept in the output")
    if "text" in corpus.formats and found["files"] > 1:
        input_notes.append("plain text: text_unit selects whether a line or a file is a document")
    model_notes = [found["not_checked"]] if found["not_checked"] else []
    if found["labels"]:
        listed = ", ".join(map(repr, found["labels"][:MAX_LABELS]))
        more = len(found["labels"]) - MAX_LABELS
        model_notes.append(f"its labels: {listed}" + (f" and {more} more" if more > 0 else ""))
    output_notes = [
        f"{key}: the input has a column {getattr(OutputConfig(path='-'), key)!r}, which is kept" for key in found["renamed"]
    ]
    if found["truth_columns"]:
        truth = found["truth_columns"][0]
        command = shlex.join(["label-corpus", "evaluate", job_file, "--truth", truth])
        output_notes.append(f"if {truth!r} is the truth: {command} measures accuracy against it")
    return {"input": input_notes, "model": model_notes, "output": output_notes}


def sections(
    kind: type[BaseModel],
    listed: Mapping[str, Sequence[str]],
    settings: Mapping[str, Any],
    notes: Mapping[str, Sequence[str]],
) -> Iterator[str]:
    """The lines of a commented configuration file.

    Args:
        kind: its model.
        listed: {section: settings to list with their defaults, commented out}.
        settings: to be in the file.
        notes: {section: remarks}.
    """
    for section, field in kind.model_fields.items():
        if section == "models" and settings.get("models") is None:
            continue
        given = settings.get(section)
        yield ""
        if section == "models" or (given is not None and not isinstance(given, dict)):
            yield f"{section}: {inline(given)}"
            continue
        model = section_of(field.annotation)
        assert model is not None
        off = "" if given else "# "
        yield with_comment(f"{off}{section}:", field.description)
        for key, value in (given or {}).items():
            yield with_comment(f"  {inline(key)}: {inline(value)}", model.model_fields[key].description)
        for note in notes.get(section, ()):
            yield f"  # - {' '.join(note.split())}"
        for key in listed[section]:
            if key not in (given or {}):
                setting = model.model_fields[key]
                yield with_comment(f"  # {key}: {inline(_plain(setting.default))}", setting.description)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def with_comment(line: str, comment: str | None) -> str:
    return f"{line.ljust(COMMENT_COLUMN)} # {' '.join(comment.split())}" if comment else line


def inline(value: Any) -> str:
    """`value` as YAML on one line."""
    return yaml.safe_dump([value], default_flow_style=True, width=10**9, allow_unicode=True).strip()[1:-1]


def print_summary(found: Mapping[str, Any]) -> None:
    """Print the corpus profile and the next commands on stderr."""
    from rich.console import Console

    console = Console(file=sys.stderr, highlight=False, markup=False, soft_wrap=True)
    for line in filter(None, (*summary_lines(found), *found["remarks"], found["not_checked"])):
        console.print(line)
    if found["candidates"][1:]:
        console.print(f"other text columns: {', '.join(map(repr, found['candidates'][1:]))}")
    for key, name in found["renamed"].items():
        console.print(f"output.{key} is {name!r}: the input has a column of the default name")
    job = shlex.quote(found["job"])
    console.print(f"wrote {job}; next:", style="bold")
    for command in ("plan", "run", "report"):
        console.print(f"  label-corpus {command} {job}" + (" --open" if command == "report" else ""))
