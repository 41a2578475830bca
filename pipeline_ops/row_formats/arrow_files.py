"""Arrow IPC: streams (`.arrow` of datasets) and files (Feather version 2), batch by batch, each validated before it is used.

A file is a stream between a magic number and a footer, and is read as one: what stands before a damage can be read, and no
footer has to be intact. Dictionaries stand before the batches that use them, as all known writers put them. Streams that were
joined by `cat` are read one after the other; what else stands behind the end is an error.
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from pipeline_ops.row_formats.row_batches import RowBatch, Source

FILE_MAGIC = b"ARROW1"
STREAM_OFFSET = 8  # of the stream in a file: behind the magic number, padded
FEATHER_1_MAGIC = b"FEA1"
FOOTER_LENGTH = 4  # bytes
MAX_PADDING = 64  # bytes between the stream of a file and its footer
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


def read_schema(source: Source) -> pa.Schema:
    """The columns of an Arrow stream or file.

    Raises:
        pa.ArrowInvalid: it is neither.
    """
    return _open(source, pa.ipc.IpcReadOptions())[0].schema


def read_batches(source: Source, columns: Sequence[str] | None, start_row: int) -> Iterator[RowBatch]:
    """The record batches, as RowFormat.read_batches.

    Raises:
        pa.ArrowInvalid: a batch is damaged.
        OSError: the end of the stream, or of the file, is missing, or something stands behind it.
    """
    included = None
    if columns is not None:
        names = read_schema(source).names
        included = [names.index(name) for name in columns]
    options = pa.ipc.IpcReadOptions(use_threads=False, **({} if included is None else {"included_fields": included}))
    reader, is_file = _open(source, options)
    row, stored = 0, source.tell()
    while True:
        for batch in reader:
            if row + batch.num_rows > start_row:
                batch.validate(
                    full=True
                )  # the reader checks neither offsets nor indices, and using wrong ones ends the process
                yield RowBatch(row, pa.Table.from_batches([batch]), (stored, source.tell()))
            row, stored = row + batch.num_rows, source.tell()
        end = source.tell()
        if source.read_at(end - len(END_OF_STREAM), len(END_OF_STREAM)) != END_OF_STREAM:
            raise OSError("the mark at the end of the stream is missing: the file may be cut")
        if is_file:
            return _check_footer(source, end)
        if end == source.size:
            return
        reader = _next_stream(source, end, options, reader.schema)


def _check_footer(source: Source, end: int) -> None:
    """Raises OSError if the footer of a file does not stand right behind its stream, or is cut."""
    length = source.read_at(source.size - len(FILE_MAGIC) - FOOTER_LENGTH, FOOTER_LENGTH)
    if source.read(len(FILE_MAGIC)) != FILE_MAGIC:
        raise OSError("the end of the file is missing: it may be cut, or something may stand behind it")
    begin = source.size - len(FILE_MAGIC) - FOOTER_LENGTH - int.from_bytes(length, "little")
    if begin < end or begin - end > MAX_PADDING or any(source.read_at(end, begin - end)):
        raise OSError("the footer does not stand behind the batches: files cannot be joined by cat, give them one by one")


def _next_stream(source: Source, start: int, options: pa.ipc.IpcReadOptions, schema: pa.Schema) -> pa.RecordBatchReader:
    """The batches of a stream that stands behind another one; raises OSError if it is none with the same columns."""
    source.seek(start)
    try:
        reader = pa.ipc.open_stream(source, options=options)
    except pa.ArrowException as error:
        raise OSError(f"{source.size - start} bytes stand behind the end of the stream, and are no other stream") from error
    if reader.schema != schema:
        raise OSError("behind the end of the stream is another one with other columns: give them as files of their own")
    return reader


def _open(source: Source, options: pa.ipc.IpcReadOptions) -> tuple[pa.RecordBatchReader, bool]:
    """(the batches of a stream or file, whether it is a file)."""
    source.seek(0)
    magic = source.read(len(FILE_MAGIC))
    if magic.startswith(FEATHER_1_MAGIC):
        raise pa.ArrowInvalid(
            "a Feather file of version 1; write it as version 2:"
            " pyarrow.feather.write_feather(pyarrow.feather.read_table(FILE), NEW_FILE)"
        )
    is_file = magic == FILE_MAGIC
    source.seek(STREAM_OFFSET if is_file else 0)
    return pa.ipc.open_stream(source, options=options), is_file
