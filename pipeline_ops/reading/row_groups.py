"""Parquet files: row ranges of a unit's size, and their rows as tables in bounded memory, checked against the footer."""

import io
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_ops.schema.units import END_OF_FILE, Range

STREAMED_ROW_GROUP_BYTES = 128 * 2**20  # larger row groups, uncompressed, are read page by page


def read_rows(
    parquet: pq.ParquetFile, source: BinaryIO, columns: list[str] | None, start: int, stop: int
) -> Iterator[pa.Table]:
    """Rows [start, stop) as tables, in order; fetches only the row groups and columns that hold them.

    Args:
        parquet: a file whose footer has passed check_footer.
        source: the same file.
        columns: top-level names; None for all.

    Raises:
        OSError: a row group has another number of rows than the footer says.
    """
    leaves = _leaves(parquet.metadata, columns)
    first = 0
    for index in range(parquet.metadata.num_row_groups):
        group = parquet.metadata.row_group(index)
        begin, end = max(start, first), min(stop, first + group.num_rows)
        if begin < end:
            if _bytes_of(group, leaves) <= STREAMED_ROW_GROUP_BYTES:
                table = parquet.read_row_group(index, columns=columns, use_threads=False)
                if table.num_rows != group.num_rows:
                    raise OSError(f"row group {index} has {table.num_rows} rows, its footer says {group.num_rows}")
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
    raise OSError(f"row group {index} has {row} rows, fewer than its footer says")


def split_row_groups(metadata: pq.FileMetaData, columns: Sequence[str] | None, unit_bytes: int) -> list[list[tuple[int, int]]]:
    """Row ranges [start, stop) of about `unit_bytes` uncompressed bytes: one or more row groups, or parts of a large one.

    Only a row group of more than two units is divided.

    Returns:
        Lists of ranges; the ranges of a divided row group are in one list, to be read in one pass. An empty file has one empty
        range.

    Raises:
        OSError: as check_footer.
    """
    check_footer(metadata, columns)
    leaves = _leaves(metadata, columns)
    cuts: list[list[tuple[int, int]]] = []
    start = first = size = 0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        group_bytes = max(_bytes_of(group, leaves), 1)
        if size and size + group_bytes > unit_bytes:
            cuts.append([(start, first)])
            start, size = first, 0
        size += group_bytes
        first += group.num_rows
        if size > 2 * unit_bytes:  # then it is this row group alone
            rows = max(1, -(-group.num_rows * unit_bytes // group_bytes))
            cuts.append([(row, min(row + rows, first)) for row in range(start, first, rows)])
            start, size = first, 0
    if start < first or not cuts:
        cuts.append([(start, first)])
    return cuts


def intersect_ranges(cuts: list[tuple[int, int]], wanted: Sequence[Range], num_rows: int) -> Iterator[Range]:
    """The intersections of the row ranges `cuts` with the `wanted` ranges of a file of `num_rows` rows, in order of `cuts`."""
    for begin, end in cuts:
        for gap in wanted:
            start, stop = max(begin, gap.start_row), min(end, num_rows if gap.stop_row is None else gap.stop_row)
            if start < stop or num_rows == 0:
                yield Range(start, stop)


def check_footer(metadata: pq.FileMetaData, columns: Sequence[str] | None) -> None:
    """Check a footer for damage that would give wrong rows, or abort the process (pyarrow does on bad column metadata).

    Raises:
        OSError: the row groups' rows do not add up to the file's, or the metadata of one of `columns` is damaged or encrypted.
    """
    groups = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    if sum(groups) != metadata.num_rows or min(groups, default=0) < 0:
        raise OSError(f"the row groups have {sum(groups)} rows, the footer says {metadata.num_rows}")
    parquet = pq.ParquetFile(_FooterOnlyFile(), metadata=metadata, pre_buffer=True)
    try:  # a read raises on bad metadata; RowGroupMetaData.column would abort the process, so it is called only afterwards
        parquet.read_row_groups(list(range(len(groups))), columns=None if columns is None else [*columns], use_threads=False)
    except _DataRequested:
        return


class _DataRequested(Exception):
    pass


class _FooterOnlyFile(io.RawIOBase):
    """A file of unlimited size; any read raises _DataRequested."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.tell()

    def tell(self) -> int:
        return END_OF_FILE

    def read(self, size: int = -1) -> bytes:
        raise _DataRequested


def _leaves(metadata: pq.FileMetaData, columns: Sequence[str] | None) -> list[int]:
    """Indices of the leaf columns of the selected top-level columns."""
    paths = [metadata.schema.column(index).path for index in range(metadata.num_columns)]
    return [index for index, path in enumerate(paths) if columns is None or path.split(".", 1)[0] in columns]


def _bytes_of(group: pq.RowGroupMetaData, leaves: Sequence[int]) -> int:
    """Uncompressed bytes of the given leaf columns."""
    return sum(group.column(index).total_uncompressed_size for index in leaves)
