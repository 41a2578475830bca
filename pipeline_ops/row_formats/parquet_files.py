"""Parquet files: row ranges of a unit's size, and their rows as tables in bounded memory, checked against the footer."""

import io
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.exact_types import are_exact, exact
from pipeline_ops.schema.units import END_OF_FILE, Range
from pipeline_ops.storage.store import Store, StoredFile

FOOTER_BYTES = 256 * 1024
FOOTERS_AT_ONCE = 256
STREAMED_ROW_GROUP_BYTES = 128 * 2**20  # larger row groups, uncompressed, are read page by page
STREAMED_BATCH_BYTES = 4 * 2**20  # of these at a time; a unit holds its first and last batch whole, whatever it needs of them
STREAMED_BATCH_ROWS = 4096  # at most


def read_footers(files: Sequence[StoredFile], store: Store) -> list[pq.FileMetaData | Exception]:
    """The footers of Parquet files, fetched side by side; the error where one cannot be read."""
    found: list[pq.FileMetaData | Exception] = []
    for start in range(0, len(files), FOOTERS_AT_ONCE):
        batch = [*files[start : start + FOOTERS_AT_ONCE]]
        for file, tail in zip(batch, store.read_tails(batch, FOOTER_BYTES), strict=True):
            if not isinstance(tail, Exception) and tail[-4:] == b"PAR1":
                needed = int.from_bytes(tail[-8:-4], "little") + 8
                if FOOTER_BYTES < needed <= file.size:
                    tail = store.read_tails([file], needed)[0]
            try:
                found.append(tail if isinstance(tail, Exception) else pq.read_metadata(pa.BufferReader(tail)))
            except Exception as error:  # a broken footer can make the parser raise anything
                found.append(error)
    return found


def sampled_schema(metadata: pq.FileMetaData) -> pa.Schema:
    """A file's columns, marked as exact() where the statistics show that all values are (are_exact)."""
    leaf, fields = 0, list[pa.Field]()
    for field in metadata.schema.to_arrow_schema():  # a name that cannot be decoded raises here
        leaves = [*_leaf_types(field.type)]
        limited = {leaf + index: known for index, known in enumerate(leaves) if _is_limited(known)}
        leaf += len(leaves)
        plain = pa.field(field.name, field.type)
        fields.append(exact(plain) if leaf <= metadata.num_columns and _are_exact(metadata, limited) else plain)
    return pa.schema(fields)


def current_names(schema: pa.Schema, file: InputFile) -> dict[str, str]:
    """{name in the file: name of the column}: by InputFile.field_names, where the file has other names or columns.

    Raises:
        UserError: the names are outdated, and the file has no field ids.
    """
    if not file.field_names:
        return {name: name for name in schema.names}
    ids = {field.name: (field.metadata or {}).get(b"PARQUET:field_id") for field in schema}
    if None in ids.values():
        raise UserError(f"input.path: {file.path} has no field ids, and columns of its table were renamed since it was written")
    names = dict(file.field_names)
    return {name: names[int(number)] for name, number in ids.items() if number is not None and int(number) in names}


def _leaf_types(data_type: pa.DataType) -> Iterator[pa.DataType]:
    """The types of the Parquet columns that an Arrow column consists of."""
    if isinstance(data_type, pa.BaseExtensionType):
        yield from _leaf_types(data_type.storage_type)
    elif not data_type.num_fields:
        yield data_type
    for index in range(data_type.num_fields):
        yield from _leaf_types(data_type.field(index).type)


def _is_limited(data_type: pa.DataType) -> bool:
    coarse = pa.types.is_timestamp(data_type) and data_type.unit != "ns"
    return data_type in (pa.int64(), pa.uint64()) or coarse or pa.types.is_date(data_type)


def _are_exact(metadata: pq.FileMetaData, limited: dict[int, pa.DataType]) -> bool:
    for group in (metadata.row_group(index) for index in range(metadata.num_row_groups) if limited):
        for leaf, data_type in limited.items():
            column = group.column(leaf)
            if column.physical_type != metadata.schema.column(leaf).physical_type:
                return False  # a damaged footer, whose statistics would end this process (std::terminate in pyarrow)
            known = column.statistics
            if known is None or not known.has_min_max:
                if known is None or not known.has_null_count or known.null_count < column.num_values:
                    return False
            elif not are_exact(data_type, known.min_raw, known.max_raw):
                return False
    return True


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
            group_bytes = _bytes_of(group, leaves)
            if group_bytes <= STREAMED_ROW_GROUP_BYTES:
                table = parquet.read_row_group(index, columns=columns, use_threads=False)
                if table.num_rows != group.num_rows:
                    raise OSError(f"row group {index} has {table.num_rows} rows, its footer says {group.num_rows}")
                yield table.slice(begin - first, end - begin)
            else:
                batch_rows = min(max(group.num_rows * STREAMED_BATCH_BYTES // group_bytes, 1), STREAMED_BATCH_ROWS)
                yield from _streamed_rows(source, index, columns, begin - first, end - first, batch_rows)
        first += group.num_rows


def _streamed_rows(
    source: BinaryIO, index: int, columns: list[str] | None, start: int, stop: int, batch_rows: int
) -> Iterator[pa.Table]:
    # pre_buffer would fetch the whole row group
    parquet = pq.ParquetFile(source, pre_buffer=False, buffer_size=4 * 2**20, page_checksum_verification=True)
    row = 0
    for batch in parquet.iter_batches(batch_size=batch_rows, row_groups=[index], columns=columns, use_threads=False):
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


def selected_bytes(metadata: pq.FileMetaData, columns: Sequence[str] | None) -> int:
    """Uncompressed bytes of the columns; None: of all."""
    leaves = _leaves(metadata, columns)
    return sum(_bytes_of(metadata.row_group(index), leaves) for index in range(metadata.num_row_groups))


def _leaves(metadata: pq.FileMetaData, columns: Sequence[str] | None) -> list[int]:
    """Indices of the leaf columns of the selected top-level columns."""
    paths = [metadata.schema.column(index).path for index in range(metadata.num_columns)]
    return [index for index, path in enumerate(paths) if columns is None or path.split(".", 1)[0] in columns]


def _bytes_of(group: pq.RowGroupMetaData, leaves: Sequence[int]) -> int:
    """Uncompressed bytes of the given leaf columns."""
    return sum(group.column(index).total_uncompressed_size for index in leaves)
