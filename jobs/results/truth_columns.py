"""The column of an output that holds the truth: a kept column of the input, checked before it is read."""

import difflib
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_ops.output.committed_files import hive_values
from pipeline_ops.output.labeled_output import Labeled
from pipeline_ops.schema.errors import UserError


def column_types(labeled: Labeled) -> dict[str, pa.DataType]:
    """{column: type} of all labeled files, from one file per schema; partition columns are strings.

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
        types |= dict.fromkeys(hive_values(file.path), pa.string())
    return types


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
        raise UserError(f"--truth: the output has no column {truth!r} of the input; {remedy}; output.columns has to include it")


def no_common_value(truth: str, examples: Sequence[str], labels: Sequence[str]) -> UserError:
    """The error for a truth column none of whose values the model can predict."""
    return UserError(
        f"--truth: {truth!r} holds {listed(examples)}, but the model's labels are {listed(labels)}: no value in common;"
        " give another column, or label with model.id2label, which renames the model's labels, into a new output"
    )


def listed(names: Sequence[str]) -> str:
    """The first names, quoted."""
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
