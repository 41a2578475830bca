"""Files of typed rows that are read from front to back: one function opens all their formats, and cuts their rows into blocks.

In: an InputFile. Out: its schema, and tables of consecutive rows of about a unit's size, in bounded memory. Columns have the
plain types of plain_types, except those of unions in the tables.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pyarrow as pa

from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.line_formats.csv_header import check_header_names
from pipeline_ops.line_formats.first_bytes import check_no_pointer_file
from pipeline_ops.line_formats.json_types import check_nesting
from pipeline_ops.line_formats.parsing import BadRecord
from pipeline_ops.row_formats import arrow_files, avro_files, orc_files, wet_files
from pipeline_ops.row_formats.plain_types import plain_type, without_encodings
from pipeline_ops.row_formats.row_batches import RowFormat, Source
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.misfits import check_not_reserved
from pipeline_ops.schema.units import END_OF_FILE, Range
from pipeline_ops.storage.store import Store

ROW_FORMATS = {
    "arrow": RowFormat(arrow_files.read_schema, arrow_files.read_batches),
    "orc": RowFormat(orc_files.read_schema, orc_files.read_batches, sequential=False, is_dense=True),
    "avro": RowFormat(avro_files.read_schema, avro_files.read_batches, is_dense=True),
    "wet": RowFormat(wet_files.read_schema, wet_files.read_batches, decompresses=True),
}
DECODED_ROWS = 4096  # at a time: a dictionary of long texts, decoded for all rows of a batch, may not fit into memory


@dataclass(frozen=True)
class RowBlock:
    """Consecutive rows of a file.

    Attributes:
        start_row, stop_row: the first one, and the one behind the last, in the file.
        table: a row for each of them; what a bad one holds is not used.
        stored: the bytes of the file that hold them, [start, stop), about.
        bad: those that do not parse.
        last: the file ends here.
    """

    start_row: int
    stop_row: int
    table: pa.Table
    stored: tuple[int, int]
    bad: tuple[BadRecord, ...] = ()
    last: bool = False

    def slice(self, start_row: int, stop_row: int) -> "RowBlock":
        """Those of its rows that are [start_row, stop_row) of the file."""
        rows = self.stop_row - self.start_row
        begin, end = start_row - self.start_row, stop_row - self.start_row
        return RowBlock(
            start_row,
            stop_row,
            self.table.slice(begin, end - begin),
            _share(self.stored, begin / rows, end / rows),
            tuple(record for record in self.bad if start_row <= record.row < stop_row),
            self.last and stop_row == self.stop_row,
        )


class RowFile:
    """An open file of one of ROW_FORMATS; `schema` has the columns in plain types."""

    def __init__(self, file: InputFile, source: Source):
        self._format, self._source = ROW_FORMATS[file.format], source
        declared = self._format.read_schema(source)
        check_header_names(declared.names, file)
        check_nesting(declared)
        check_not_reserved(declared.names)
        self.schema = pa.schema([pa.field(field.name, plain_type(field.type)) for field in declared])

    @property
    def bytes_read(self) -> int:
        """Of the file, as it is stored, so far."""
        return self._source.bytes_read

    def read_blocks(self, rows: Range, block_bytes: int, columns: Sequence[str] | None = None) -> Iterator[RowBlock]:
        """The given rows in blocks of about `block_bytes` in memory; a row that is larger is a block of its own.

        Where the file ends without a row in an open range, that is a block without rows. What stands before a damage comes
        before the error.

        Args:
            columns: that are read; None: all.

        Raises:
            Exception: whatever the format's library raises on a damaged file.
        """
        held: list[RowBlock] = []
        size = 0
        try:
            for part in self._parts(rows, block_bytes, columns):
                if held and size + part.table.nbytes > block_bytes:
                    yield _joined(held)
                    held, size = [], 0
                held.append(part)
                size += part.table.nbytes
        except Exception:
            if held:
                yield _joined(held)
            raise
        at_end = rows.stop_row is None or (bool(held) and held[-1].stop_row < rows.stop_row)
        if held:
            yield replace(_joined(held), last=at_end)
        elif at_end:
            yield RowBlock(rows.start_row, rows.start_row, self.schema.empty_table(), (0, 0), last=True)

    def _parts(self, rows: Range, part_bytes: int, columns: Sequence[str] | None) -> Iterator[RowBlock]:
        """The rows in parts of at most DECODED_ROWS rows, none much larger than `part_bytes` unless its rows differ in size."""
        wanted = None if columns is None else [name for name in self.schema.names if name in columns]
        stop_row = END_OF_FILE if rows.stop_row is None else rows.stop_row
        for batch in self._format.read_batches(self._source, wanted, rows.start_row):
            end = batch.start_row + batch.table.num_rows
            block = RowBlock(batch.start_row, end, batch.table, batch.stored, batch.bad)
            for start, stop in _steps(max(batch.start_row, rows.start_row), min(end, stop_row), DECODED_ROWS):
                few = block.slice(start, stop)
                few = replace(few, table=without_encodings(few.table))
                for begin, finish in _steps(start, stop, max((stop - start) * part_bytes // max(few.table.nbytes, 1), 1)):
                    yield few.slice(begin, finish)
            if end >= stop_row:
                return


def _share(stored: tuple[int, int], begin: float, end: float) -> tuple[int, int]:
    """The bytes between two shares of `stored`."""
    size = stored[1] - stored[0]
    return stored[0] + round(begin * size), stored[0] + round(end * size)


def _steps(start: int, stop: int, count: int) -> Iterator[tuple[int, int]]:
    """[start, stop) in ranges of `count`."""
    return ((begin, min(begin + count, stop)) for begin in range(start, stop, count))


def _joined(parts: list[RowBlock]) -> RowBlock:
    bad = tuple(record for part in parts for record in part.bad)
    table = pa.concat_tables([part.table for part in parts], promote_options="default")  # some have misfits
    return RowBlock(parts[0].start_row, parts[-1].stop_row, table, (parts[0].stored[0], parts[-1].stored[1]), bad)


@contextmanager
def open_row_file(file: InputFile, store: Store, content: bytes | None = None) -> Iterator[RowFile]:
    """A file of one of ROW_FORMATS.

    Args:
        content: of the file, where it has been fetched already.

    Raises:
        UserError: it has two columns of one name, it is compressed as a whole, or a package that reads its format is missing.
        StoreError: the object store failed.
        Exception: whatever the format's library raises on a damaged file.
    """
    check_no_pointer_file(file, store, content)
    row_format = ROW_FORMATS[file.format]
    if file.compression is not None and not row_format.decompresses:
        raise UserError(f"input.path: {file.path} is compressed as a whole ({file.compression}); decompress it first")
    check_no_pointer_file(file, store, content)
    with (
        pa.BufferReader(content) if content is not None else store.open(file.stored, sequential=row_format.sequential) as opened
    ):
        source = Source(opened)
        try:
            yield RowFile(file, source)
        except Exception as error:
            if source.error is not None and error is not source.error:
                raise source.error from error
            raise
