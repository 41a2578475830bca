"""Columns that hold texts: their Arrow types, and their values as strings."""

import pyarrow as pa

TEXT_TYPES = {pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()}


def is_text_type(data_type: pa.DataType) -> bool:
    """True if a column of this type can hold texts: strings, or bytes (UTF-8), dictionary-encoded or not."""
    return (data_type.value_type if pa.types.is_dictionary(data_type) else data_type) in TEXT_TYPES


def decode_texts(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, list[str | None]]:
    """A column of a text type as large_string, null where its bytes are not UTF-8.

    Returns:
        (the column; per row the decoding error or None, [] if there is no error at all).
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    as_bytes = column.cast(pa.large_binary())
    try:
        return as_bytes.cast(pa.large_string()), []  # the cast checks the encoding
    except pa.ArrowInvalid:
        texts: list[str | None] = []
        errors: list[str | None] = []
        for value in as_bytes.to_pylist():
            try:
                texts.append(None if value is None else value.decode())
                errors.append(None)
            except UnicodeDecodeError as error:
                texts.append(None)
                errors.append(str(error))
        return pa.chunked_array([pa.array(texts, pa.large_string())]), errors
