"""`label-corpus evaluate`: the labels of an output against a column of the input that says what they should be.

Reads the committed rows once, file by file, and of them a few columns only; loads no model. The result stays in the output, as
`_report/evaluation.json`, for the report.
"""

import difflib
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_ops.analysis.multi_label import MultiLabelTally, is_list, lists_to_numpy
from pipeline_ops.analysis.regression import ValueTally
from pipeline_ops.analysis.single_label import Mistake, Rows, SingleLabelTally, as_text, slices_of
from pipeline_ops.models.heads import Head
from pipeline_ops.output.committed_files import hive_values
from pipeline_ops.output.labeled_output import Labeled, read_columns
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.output_columns import OutputConfig

EVALUATION = "_report/evaluation.json"
MAX_TEXT = 300  # characters of a mistake's
MAX_LINE_MATRIX = 50  # labels; what is larger stands in the file only
MAX_LINE_LABELS = 200

Tally = SingleLabelTally | MultiLabelTally | ValueTally


def evaluate(labeled: Labeled, truth: str, model: str | None = None, *, quiet: bool = True) -> dict[str, Any]:
    """Measures of a model's labels, by the head's kind, and the most confident mistakes.

    Args:
        truth: the column that says what is right: a label; of multi-label heads a list of them, too; of heads with one value
            a number, or the name of a bin.
        model: its name, where the output has several.

    Raises:
        UserError: a column or model that there is not, or truths that are nothing like the model's labels.
        OSError: a file cannot be read.
    """
    name, added = _model_of(labeled, model)
    head = labeled.head(name)
    kinds = _columns(labeled)
    _check_truth(labeled, truth, kinds)
    tally, has_scores = _tally(head, added)
    if is_list(kinds[truth]) and not isinstance(tally, MultiLabelTally):
        raise UserError(f"--truth: {truth!r} holds lists, and {_why_one_label(head)}")
    wanted = [truth, added.label_column, added.score_column, *([added.scores_column] if has_scores else [])]
    for number, (_, table) in enumerate(_told(read_columns(labeled.store, labeled.files, wanted), labeled, quiet)):
        for first, rows in slices_of(table, len(head.labels)):
            tally.add(
                Rows(
                    _whole(rows.column(truth)),
                    as_text(_whole(rows.column(added.label_column))),
                    rows.column(added.score_column).to_numpy(),
                    lists_to_numpy(rows.column(added.scores_column), len(head.labels)) if has_scores else None,
                    (number, first),
                )
            )
    _check_truths(tally, truth)
    return {
        "output": labeled.path,
        "truth": truth,
        "model": name or None,
        "kind": "multi_label" if has_scores and head.kind == "multi_label" else head.kind,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "documents": sum(commit.documents for commit in labeled.commits),
        "labeled": sum(commit.labeled for commit in labeled.commits),
        "rejected": sum(commit.rejected for commit in labeled.commits),
        "without_truth": tally.without_truth,
        **tally.result(),
        "confident_mistakes": _found_again(tally.mistakes.worst_first(), labeled, kinds),
    }


def keep(result: dict[str, Any], labeled: Labeled) -> str:
    """Puts the result into the output, in place of an earlier one; returns where."""
    labeled.store.put(EVALUATION, json.dumps(result, ensure_ascii=False).encode("utf-8", errors="backslashreplace"))
    return labeled.store.join(EVALUATION)


def line_of(result: dict[str, Any]) -> dict[str, Any]:
    """The result without what would make a line too long to read; `keep` keeps it all."""
    line = dict(result)
    if "per_label" in line:
        line["per_label"] = line["per_label"][:MAX_LINE_LABELS]
    if "confusion" in line and len(line["confusion"]["labels"]) > MAX_LINE_MATRIX:
        labels = line["confusion"]["labels"][:MAX_LINE_LABELS]
        line["confusion"] = {**line["confusion"], "labels": labels, "matrix": None}
    if line.get("sweep"):
        line["sweep"] = {**line["sweep"], "per_label": line["sweep"]["per_label"][:MAX_LINE_LABELS]}
    return line


def _model_of(labeled: Labeled, model: str | None) -> tuple[str, OutputConfig]:
    """(the model's name in the records, its columns)."""
    models = labeled.columns.by_model()
    if model is None and len(models) == 1:
        return next(iter(models.items()))
    if "" in models:
        raise UserError(f"--model: the output has one model, which has no name, so not {model!r}; leave the option out")
    if model is None:
        raise UserError(f"--model: the output has labels of several, {_listed(list(models))}; name one")
    if model not in models:
        raise UserError(f"--model: {model!r} is none of the output's, {_listed(list(models))}")
    return model, models[model]


def _tally(head: Head, added: OutputConfig) -> tuple[Tally, bool]:
    """(what counts, whether by every label's score); without these only the best label of a multi-label head is known."""
    if head.kind == "value":
        return ValueTally(head), False
    if head.kind == "multi_label" and added.scores:
        return MultiLabelTally(head), True
    return SingleLabelTally(head), False


def _why_one_label(head: Head) -> str:
    if head.kind == "value":
        return "the model gives one value; give a column with a number, or the name of a bin"
    if head.kind == "multi_label":
        return "output.labels: false has left out all labels but the best; label with output.scores=true into a new output"
    return "the model gives one label per document; give a column with one"


def _columns(labeled: Labeled) -> dict[str, pa.DataType]:
    """{column: type} of all labeled files, one of each schema read; what folders hold is text.

    Raises:
        UserError: nothing is labeled.
    """
    by_schema = {commit.schema: commit.files[0] for commit in labeled.commits if commit.files}
    if not by_schema:
        raise UserError(f"{labeled.path!r} holds no labeled documents; run the job first")
    found: dict[str, pa.DataType] = {}
    for file in by_schema.values():
        with labeled.store.open(labeled.store.stat(file.path), sequential=False) as source:
            schema = pq.ParquetFile(source).schema_arrow
        for column in schema:
            if column.name not in found or pa.types.is_null(found[column.name]):
                found[column.name] = column.type
        found |= dict.fromkeys(hive_values(file.path), pa.string())
    return found


def _check_truth(labeled: Labeled, truth: str, kinds: dict[str, pa.DataType]) -> None:
    added = set(labeled.columns.added_columns().values())
    if truth in added:
        raise UserError(
            f"--truth: {truth!r} is what labeling itself has added; give a column of the input (if that has the same name,"
            " label with another output.label_column)"
        )
    if truth not in kinds:
        own = [name for name in kinds if name not in added]
        near = difflib.get_close_matches(truth, own, n=1)
        there = (
            f"did you mean {near[0]!r}?" if near else f"the input's columns in it are {_listed(own)}" if own else "it has none"
        )
        raise UserError(f"--truth: the output has no column {truth!r} of the input; {there}; output.columns has to keep it")


def _check_truths(tally: Tally, truth: str) -> None:
    """Raises UserError where the truths are not about what the model says."""
    truths = tally.truths()
    if not truths and not getattr(tally, "evaluated", 0):
        raise UserError(f"--truth: {truth!r} is null in all {tally.without_truth:,} labeled documents; give another column")
    found = _listed([name for name, _ in truths.most_common(5)])
    if isinstance(tally, ValueTally):
        if not tally.evaluated:
            bins = f" nor the name of a bin ({_listed(tally.names)})" if tally.names else ""
            raise UserError(f"--truth: {truth!r} holds {found}, which is no number{bins}; give another column")
    elif set(truths).isdisjoint(tally.names):
        raise UserError(
            f"--truth: {truth!r} holds {found}, and the model gives {_listed(tally.names)}: no value in common; give"
            " another column, or label with model.id2label, which renames the model's labels, into a new output"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _told(files: Any, labeled: Labeled, quiet: bool) -> Any:
    """The files as they come, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(file=sys.stderr)
    total = len(labeled.files)
    return track(files, "evaluate", total, console=console, transient=True, disable=quiet or not console.is_terminal)


def _found_again(mistakes: list[Mistake], labeled: Labeled, kinds: dict[str, pa.DataType]) -> list[dict[str, Any]]:
    """What is known of the mistakes' documents: where they came from, and their text if the output has kept it."""
    columns = labeled.columns
    text = labeled.record["config"]["input"]["text_column"]
    wanted = [columns.source_file_column, columns.source_row_column, *([text] if text in kinds else [])]
    rows_of: dict[int, list[int]] = defaultdict(list)
    for mistake in mistakes:
        rows_of[mistake.file].append(mistake.row)
    documents = {}
    for file, rows in rows_of.items():
        for _, table in read_columns(labeled.store, [labeled.files[file]], wanted, rows=max(rows) + 1):
            documents |= {(file, row): table.slice(row, 1).to_pylist()[0] for row in rows}
    told = []
    for mistake in mistakes:
        document = documents[mistake.file, mistake.row]
        told.append(
            {
                "source_file": document[columns.source_file_column],
                "source_row": document[columns.source_row_column],
                "truth": mistake.truth,
                "label": mistake.label,
                "score": mistake.score,
                **({} if mistake.about is None else {"about": mistake.about}),
                "text": None if document.get(text) is None else str(document[text])[:MAX_TEXT],
            }
        )
    return told
