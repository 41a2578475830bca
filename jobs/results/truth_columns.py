"""The column of an output that holds the truth: a kept column of the input, checked before it is read, or looked for."""

import difflib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.number_format import counted
from pipeline_ops.analysis.multi_label import is_list
from pipeline_ops.models.heads import Head
from pipeline_ops.output.labeled_output import Labeled, read_columns
from pipeline_ops.reading.column_guess import guess_columns
from pipeline_ops.schema.errors import UserError

SAMPLE_FILES = 16
SAMPLE_ROWS = 1000  # of each file
MAX_CANDIDATES = 5


@dataclass(frozen=True)
class Candidate:
    """A column that may hold the truth."""

    column: str
    values: tuple[str, ...]  # distinct ones in a sample, those that the model can predict first
    matching: int  # how many the model can predict

    def __str__(self) -> str:
        examples = listed(self.values[:3])
        if not self.matching:
            return f"{self.column!r} (holds {examples})"
        return f"{self.column!r} ({self.matching} of {counted(len(self.values), 'value')} can be predicted: {examples})"


def column_types(labeled: Labeled) -> dict[str, pa.DataType]:
    """{column: type} of all labeled files, from one file per schema.

    Raises:
        UserError: nothing is labeled.
    """
    by_schema = {commit.schema: commit.files[0] for commit in labeled.commits if commit.files}
    if not by_schema:
        raise UserError(f"{labeled.path!r} has no labeled documents; run the job first")
    types: dict[str, pa.DataType] = {}
    for file in by_schema.values():
        with labeled.store.open(labeled.store.stat(file.path), sequential=False) as source:
            schema = pq.ParquetFile(source).schema_arrow
        for column in schema:
            if column.name not in types or pa.types.is_null(types[column.name]):
                types[column.name] = column.type
    return types | labeled.partition_types


def check_truth_column(labeled: Labeled, truth: str, types: dict[str, pa.DataType]) -> None:
    """Raises UserError if `truth` is not an input column that the output has kept.

    Args:
        types: as of column_types().
    """
    added = set(labeled.columns.added_columns().values())
    if truth in added:
        raise UserError(
            f"--truth: {truth!r} is added by labeling; give a column of the input (if the input has a column of that name,"
            " label with another output.label_name)"
        )
    if truth not in types:
        own = [name for name in types if name not in added]
        near = difflib.get_close_matches(truth, own, n=1)
        if near:
            remedy = f"did you mean {near[0]!r}?"
        else:
            remedy = f"its input columns are {listed(own)}" if own else "it has no input columns"
            remedy += "; output.columns has to include it"
        raise UserError(f"--truth: the output has no column {truth!r} of the input; {remedy}")


def missing_truth(labeled: Labeled, head: Head, command: str) -> UserError:
    """The error for a command without --truth: the columns that may hold the truth, most likely first.

    Args:
        command: without the option.
    """
    found = truth_candidates(labeled, head)
    predicted = "numbers" if head.kind == "value" and not head.bins else f"labels such as {listed(_predictable(head)[:3])}"
    if not found:
        own = [name for name in column_types(labeled) if name not in labeled.columns.added_columns().values()]
        kept = f"the output has {listed(own)} of the input" if own else "the output has no column of the input"
        return UserError(
            f"--truth: missing value, and no column looks like one with true {predicted}; {kept}; name one by --truth COLUMN"
            " (output.columns has to include it)"
        )
    columns = "; ".join(map(str, found[:MAX_CANDIDATES])) + ("; …" if len(found) > MAX_CANDIDATES else "")
    return UserError(
        f"--truth: missing value, expected a column with true {predicted}. Columns that may be one: {columns}."
        f" Type: {command} --truth {shlex.quote(found[0].column)}"
    )


def truth_candidates(labeled: Labeled, head: Head) -> list[Candidate]:
    """Columns of the input that may hold the truth, from a sample of the rows.

    First those with values that the model can predict, most such values first (of numbers those with a usual name first);
    then those with a usual name, such as `category`, alone.
    """
    added, types = labeled.columns.added_columns().values(), column_types(labeled)
    source = labeled.record["config"]["input"]
    texts = {source.get("text_column"), source.get("text_pair_column")}
    names = [name for name in types if name not in added and name not in texts and _may_hold_labels(types[name])]
    distinct: dict[str, dict[str, None]] = {name: {} for name in names}
    step = max(len(labeled.files) // SAMPLE_FILES, 1)
    files = labeled.files[::step][:SAMPLE_FILES]
    for _, table in read_columns(labeled.store, files, names, labeled.partition_types, SAMPLE_ROWS):
        for name in names:
            values = table.column(name).combine_chunks()
            flat = pc.list_flatten(values) if is_list(values.type) else values
            distinct[name] |= dict.fromkeys(pc.unique(flat.cast(pa.string())).drop_null().to_pylist())
    usual = set(guess_columns(names, {}).truths)
    predictable, found = set(_predictable(head)), []
    for name in names:
        matching = [value for value in distinct[name] if value in predictable]
        if head.kind == "value" and not matching and (pa.types.is_integer(types[name]) or pa.types.is_floating(types[name])):
            matching = [*distinct[name]]
        if distinct[name] and (matching or name in usual):
            others = [value for value in distinct[name] if value not in set(matching)]
            found.append(Candidate(name, (*matching, *others), len(matching)))
    is_number = head.kind == "value"  # where more different values are no sign of a truth
    return sorted(found, key=lambda one: (not one.matching, 0 if is_number else -one.matching, one.column not in usual))


def _predictable(head: Head) -> tuple[str, ...]:
    return head.bin_labels if head.kind == "value" else head.labels


def _may_hold_labels(data_type: pa.DataType) -> bool:
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary, pa.types.is_integer, pa.types.is_floating)
    one = data_type.value_type if is_list(data_type) else data_type
    return pa.types.is_boolean(one) or any(is_kind(one) for is_kind in kinds)


def no_common_value(truth: str, examples: Sequence[str], labels: Sequence[str]) -> UserError:
    """The error for a truth column none of whose values the model can predict."""
    return UserError(
        f"--truth: {truth!r} holds {listed(examples)}, but the model's labels are {listed(labels)}: no value in common;"
        " give another column, or label with model.id2label, which renames the model's labels, into a new output"
    )


def listed(names: Sequence[str]) -> str:
    """The first names, quoted."""
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
