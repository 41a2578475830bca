"""Rows of Parquet files: which row groups make a unit, and reading them in bounded memory."""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_ops.schema import Range

STREAMED_ROW_GROUP_BYTES = 128 * 2**20  # larger row groups are read page by page


def read_rows(
    parquet: pq.ParquetFile, source: BinaryIO, columns: list[str] | None, start: int, stop: int
) -> Iterator[pa.Table]:
    """Rows [start, stop); only the row groups and columns that hold them are fetched, a large row group page by page."""
    first = 0
    for index in range(parquet.metadata.num_row_groups):
        group = parquet.metadata.row_group(index)
        begin, end = max(start, first), min(stop, first + group.num_rows)
        if begin < end:
            if selected_bytes(group, columns) <= STREAMED_ROW_GROUP_BYTES:
                table = parquet.read_row_group(index, columns=columns, use_threads=False)
                yield table.slice(begin - first, end - begin)
            else:
                yield from _streamed_rows(source, index, columns, begin - first, end - first)
        first += group.num_rows


def _streamed_rows(source: BinaryIO, index: int, columns: list[str] | None, start: int, stop: int) -> Iterator[pa.Table]:
    # pre_buffer would fetch the whole row group
    parquet = pq.ParquetFile(source, pre_buffer=False, buffer_size=4 * 2**20, page_checksum_verification=True)
    row = 0
    for batch in parquet.iter_batches(batch_size=4096, row_groups=[index], columns=columns, use_threads=False):
        begin, end = max(start, row), min(stop, row + batch.num_rows)
        if begin < end:
            yield pa.Table.from_batches([batch.slice(begin - row, end - begin)])
        row += batch.num_rows
        if row >= stop:
            return


def cut_row_groups(metadata: pq.FileMetaData, columns: Sequence[str] | None, unit_bytes: int) -> list[list[tuple[int, int]]]:
    """Row ranges [start, stop) of about `unit_bytes`: whole row groups, or, of a row group of over two units, its parts.

    Returns:
        The ranges, those of one row group together: they are read in one pass. One empty range for an empty file.
    """
    cuts: list[list[tuple[int, int]]] = []
    start = first = size = 0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        group_bytes = max(selected_bytes(group, columns), 1)
        if size and size + group_bytes > unit_bytes:
            cuts.append([(start, first)])
            start, size = first, 0
        size += group_bytes
        first += group.num_rows
        if size > 2 * unit_bytes:  # then it is this one group
            rows = max(1, -(-group.num_rows * unit_bytes // group_bytes))
            cuts.append([(row, min(row + rows, first)) for row in range(start, first, rows)])
            start, size = first, 0
    if start < first or not cuts:
        cuts.append([(start, first)])
    return cuts


def within(cuts: list[tuple[int, int]], wanted: Sequence[Range], num_rows: int) -> Iterator[Range]:
    """What of `cuts` lies in the `wanted` ranges of a file of `num_rows` rows."""
    for begin, end in cuts:
        for gap in wanted:
            start, stop = max(begin, gap.start_row), min(end, num_rows if gap.stop_row is None else gap.stop_row)
            if start < stop or num_rows == 0:
                yield Range(start, stop)


def selected_bytes(group: pq.RowGroupMetaData, columns: Sequence[str] | None) -> int:
    """Uncompressed bytes of a row group's selected columns."""
    chunks = [group.column(index) for index in range(group.num_columns)]
    return sum(
        chunk.total_uncompressed_size for chunk in chunks if columns is None or chunk.path_in_schema.split(".", 1)[0] in columns
    )
