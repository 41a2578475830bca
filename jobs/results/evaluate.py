"""`label-corpus evaluate`: compare the labels of an output with true labels in a column of the input.

Reads a few columns of the committed rows once, file by file; loads no model. The result is saved as
`_report/evaluation.json`, for the report.
"""

import json
import shlex
import sys
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from jobs.results.open_output import EVALUATION, model_of
from jobs.results.truth_columns import check_truth_column, column_types, listed, missing_truth, no_common_value
from pipeline_ops.analysis.multi_label import MultiLabelEvaluator, is_list, lists_to_numpy
from pipeline_ops.analysis.regression import ValueEvaluator
from pipeline_ops.analysis.single_label import Mistake, Rows, SingleLabelEvaluator, as_text, slices_of
from pipeline_ops.models.heads import Head
from pipeline_ops.output.labeled_output import Labeled, read_columns
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.output_columns import OutputConfig

MAX_TEXT = 300  # characters of a mistake's document
MAX_LINE_MATRIX = 50  # labels in the JSON line; the file has the whole matrix
MAX_LINE_LABELS = 200  # the same

Evaluator = SingleLabelEvaluator | MultiLabelEvaluator | ValueEvaluator


def evaluate(labeled: Labeled, truth: str, model: str | None = None, *, quiet: bool = True) -> dict[str, Any]:
    """Metrics of a model's labels, according to the kind of its head, and the most confident mistakes.

    Args:
        truth: column with the true labels: a label; for multi-label heads also a list of labels; for heads with one value a
            number or the name of a bin.
        model: name of the model, where the output has several.
        quiet: no progress bar.

    Returns:
        The content of `_report/evaluation.json`.

    Raises:
        UserError: no such column or model, or no true label that the model knows.
        OSError: a labeled file cannot be read.
    """
    name, added = model_of(labeled, model)
    head = labeled.head(name)
    types = column_types(labeled)
    check_truth_column(labeled, truth, types)
    evaluator, uses_scores = evaluator_for(head, added)
    if is_list(types[truth]) and not isinstance(evaluator, MultiLabelEvaluator):
        raise UserError(f"--truth: {truth!r} holds lists, but {_why_one_label(head)}")
    columns = [truth, added.label_name, added.score_column, *([added.scores_column] if uses_scores else [])]
    read = read_columns(labeled.store, labeled.files, columns, labeled.partition_types)
    for number, (_, table) in enumerate(_with_progress(read, labeled, quiet)):
        for first, rows in slices_of(table, len(head.labels)):
            evaluator.add(
                Rows(
                    _combined(rows.column(truth)),
                    as_text(_combined(rows.column(added.label_name))),
                    rows.column(added.score_column).to_numpy(),
                    lists_to_numpy(rows.column(added.scores_column), len(head.labels)) if uses_scores else None,
                    (number, first),
                )
            )
    _check_truths(evaluator, truth)
    return {
        "output": labeled.path,
        "truth": truth,
        "model": name or None,
        "kind": "multi_label" if uses_scores and head.kind == "multi_label" else head.kind,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "documents": sum(commit.documents for commit in labeled.commits),
        "labeled": sum(commit.labeled for commit in labeled.commits),
        "rejected": sum(commit.rejected for commit in labeled.commits),
        "without_truth": evaluator.without_truth,
        **evaluator.result(),
        "confident_mistakes": load_mistake_texts(evaluator.mistakes.most_severe_first(), labeled, types),
    }


def missing_truth_error(labeled: Labeled, model: str | None, target: str) -> UserError:
    """The error for `evaluate TARGET` without --truth, with the columns that may hold the truth."""
    name, _ = model_of(labeled, model)
    option = [] if model is None else ["--model", model]
    return missing_truth(labeled, labeled.head(name), shlex.join(["label-corpus", "evaluate", target, *option]))


def save_evaluation(result: dict[str, Any], labeled: Labeled) -> str:
    """Write the result into the output, replacing an earlier one; returns its path."""
    labeled.store.put(EVALUATION, json.dumps(result, ensure_ascii=False).encode("utf-8", errors="backslashreplace"))
    return labeled.store.join(EVALUATION)


def truncated_summary(result: dict[str, Any]) -> dict[str, Any]:
    """The result with its long lists and matrices shortened, for the JSON line; the saved file has all of it."""
    line = dict(result)
    if "per_label" in line:
        line["per_label"] = line["per_label"][:MAX_LINE_LABELS]
    if "confusion" in line and len(line["confusion"]["labels"]) > MAX_LINE_MATRIX:
        labels = line["confusion"]["labels"][:MAX_LINE_LABELS]
        line["confusion"] = {**line["confusion"], "labels": labels, "matrix": None}
    if line.get("sweep"):
        line["sweep"] = {**line["sweep"], "per_label": line["sweep"]["per_label"][:MAX_LINE_LABELS]}
    return line


def evaluator_for(head: Head, added: OutputConfig) -> tuple[Evaluator, bool]:
    """(evaluator for the head, whether it needs the scores column).

    Without the scores column only the best label of a multi-label head is known, so it is evaluated as a single label.
    """
    if head.kind == "value":
        return ValueEvaluator(head), False
    if head.kind == "multi_label" and added.scores:
        return MultiLabelEvaluator(head), True
    return SingleLabelEvaluator(head), False


def _why_one_label(head: Head) -> str:
    if head.kind == "value":
        return "the model predicts one value; give a column of numbers or bin names"
    if head.kind == "multi_label":
        return "the output has the best label only; label with output.scores=true into a new output"
    return "the model predicts one label per document; give a column with one label"


def _check_truths(evaluator: Evaluator, truth: str) -> None:
    """Raise UserError if no true value is one that the model can predict."""
    truths = evaluator.truths()
    if not truths and not getattr(evaluator, "evaluated", 0):
        raise UserError(f"--truth: {truth!r} is null in all {evaluator.without_truth:,} labeled documents; give another column")
    examples = listed([name for name, _ in truths.most_common(5)])
    if isinstance(evaluator, ValueEvaluator):
        if not evaluator.evaluated:
            expected = f"numbers or bin names ({listed(evaluator.names)})" if evaluator.names else "numbers"
            raise UserError(f"--truth: {truth!r} holds {examples}: expected {expected}; give another column")
    elif set(truths).isdisjoint(evaluator.names):
        raise no_common_value(truth, [name for name, _ in truths.most_common(5)], evaluator.names)


def _combined(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _with_progress(files: Any, labeled: Labeled, quiet: bool) -> Any:
    """Iterate over the files with a progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(file=sys.stderr)
    total = len(labeled.files)
    return track(files, "evaluate", total, console=console, transient=True, disable=quiet or not console.is_terminal)


def load_mistake_texts(mistakes: list[Mistake], labeled: Labeled, types: dict[str, pa.DataType]) -> list[dict[str, Any]]:
    """The mistakes with the source and, if the output has the column, the text of their documents."""
    columns = labeled.columns
    text = labeled.record["config"]["input"]["text_column"]
    wanted = [columns.source_file_column, columns.source_row_column, *([text] if text in types else [])]
    rows_of: dict[int, list[int]] = defaultdict(list)
    for mistake in mistakes:
        rows_of[mistake.file].append(mistake.row)
    documents = {}
    for file, rows in rows_of.items():
        for _, table in read_columns(labeled.store, [labeled.files[file]], wanted, labeled.partition_types, max(rows) + 1):
            documents |= {(file, row): table.slice(row, 1).to_pylist()[0] for row in rows}
    described = []
    for mistake in mistakes:
        document = documents[mistake.file, mistake.row]
        described.append(
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
    return described
