"""Hive partitions: a labeled table split by its partition columns, and the names of their folders."""

import urllib.parse
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


def hive_folder(columns: tuple[str, ...], values: tuple[object, ...]) -> str:
    """The folder of a partition, `label=POSITIVE/…`; values are percent-encoded, as Arrow, Spark and DuckDB decode them."""
    parts = []
    for column, value in zip(columns, values, strict=True):
        text = NULL_PARTITION if value is None else urllib.parse.quote(str(value), safe="")
        if value == NULL_PARTITION:
            text = text.replace("_", "%5F")  # a text like any other
        parts.append(f"{urllib.parse.quote(column, safe='')}={text}")
    return "/".join(parts)


def split_by_partition(documents: pa.Table, columns: tuple[str, ...]) -> Iterator[tuple[tuple[object, ...], pa.Table]]:
    """(values of `columns`, documents without `columns`) per combination of values; each document is in exactly one.

    A combination's documents are copied when it is their turn, so that a caller needs the memory of one of them at a time.
    """
    if not columns:
        if documents.num_rows:
            yield (), documents
        return
    encoded = []
    for name in columns:
        column = documents.column(name)
        plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        encoded.append(plain.combine_chunks().dictionary_encode(null_encoding="encode"))
    group_of = np.zeros(documents.num_rows, np.int64)
    first_rows = np.empty(0, np.int64)
    # by dictionary index, not by value: NaN equals nothing, and 0.0 equals -0.0
    for array in encoded:  # renumbered after each column: the product over all columns might overflow
        codes = group_of * max(len(array.dictionary), 1) + array.indices.to_numpy()
        _, first_rows, group_of = np.unique(codes, return_index=True, return_inverse=True)
    rest = documents.drop_columns(list(columns))
    for number, row in enumerate(first_rows):
        key = tuple(array.dictionary[array.indices[int(row)].as_py()].as_py() for array in encoded)
        yield key, rest if len(first_rows) == 1 else rest.filter(pa.array(group_of == number))
