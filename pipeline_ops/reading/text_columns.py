"""Whether a file has the columns of texts that a job names."""

import difflib
from collections.abc import Sequence

import pyarrow as pa

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.input_files import InputFile
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
            return missing_column(key, name, file, schema.names)
        data_type = schema.field(name).type
        if not is_text_type(data_type):
            message = f"{key}: {name!r} in {file.path} is {data_type}, not text; name a column of texts"
            return MissingColumn(message, name, file.format)
    return None


def missing_column(key: str, name: str, file: InputFile, columns: Sequence[str]) -> MissingColumn:
    """The error about a column that a file lacks, with the name that may be meant.

    Args:
        key: that names the column.
    """
    near = difflib.get_close_matches(name, columns, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]!r}? " if near else ""
    message = f"{key}: there is no column {name!r} in {file.path}; {meant}it has {names_shown(columns)}"
    return MissingColumn(message, name, file.format)
