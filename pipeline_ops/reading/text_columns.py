"""Whether a file has the columns of texts that a job names."""

import difflib
from collections.abc import Sequence

import pyarrow as pa

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.line_formats.json_arrays import elements_remedy
from pipeline_ops.reading.column_types import is_text_type
from pipeline_ops.schema.errors import UserError, names_shown


class MissingColumn(UserError):
    """The files of a format have no column that the job names, or one that holds no texts."""

    def __init__(self, message: str, column: str, file_format: str):
        super().__init__(message)
        self.column, self.file_format = column, file_format


def text_column_mistake(config: InputConfig, file: InputFile, schema: pa.Schema) -> MissingColumn | None:
    """What is wrong with the text columns of a file; None if they are there and hold texts."""
    for key, name in zip(("input.text_column", "input.text_pair_column"), config.text_columns, strict=False):
        if name not in schema.names:
            arrays = [field.name for field in schema if file.format == "jsonl" and _has_field(field.type, name)]
            return missing_column(key, name, file, schema.names, f"; {elements_remedy(arrays[0])}" if arrays else "")
        data_type = schema.field(name).type
        if not is_text_type(data_type):
            message = f"{key}: {name!r} in {file.path} is {data_type}, not text; name a column of texts"
            return MissingColumn(message, name, file.format)
    return None


def _has_field(data_type: pa.DataType, name: str) -> bool:
    """Whether a type is one of lists of objects that have a field of this name."""
    return pa.types.is_list(data_type) and pa.types.is_struct(item := data_type.value_type) and item.get_field_index(name) >= 0


def missing_column(key: str, name: str, file: InputFile, columns: Sequence[str], remedy: str = "") -> MissingColumn:
    """The error about a column that a file lacks, with the name that may be meant.

    Args:
        key: that names the column.
        remedy: what else may help.
    """
    near = difflib.get_close_matches(name, columns, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]!r}? " if near else ""
    message = f"{key}: there is no column {name!r} in {file.path}; {meant}it has {names_shown(columns)}{remedy}"
    return MissingColumn(message, name, file.format)
