"""Formats and compressions by suffix; streams of decompressed bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import pyarrow as pa

from pipeline_ops.reading.line_records import STREAM_CHUNK_BYTES
from pipeline_ops.storage.store import Store, StoredFile

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
    ".text": "text",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}


def format_and_compression(path: str) -> tuple[str | None, str | None]:
    """(format, compression) by the name's suffixes; None for a suffix that is not known."""
    suffix, compression = _suffix_and_compression(path)
    return FORMATS.get(suffix), compression


def format_suffix(path: str) -> str:
    """The suffix that gives the format, such as ".jsonl" of "a.jsonl.zst"; "" for one that is not known."""
    return _suffix_and_compression(path)[0]


def _suffix_and_compression(path: str) -> tuple[str, str | None]:
    name = path.rsplit("/", 1)[-1].lower()
    compression = None
    for suffix, codec in COMPRESSIONS.items():
        if name.endswith(suffix):
            name, compression = name.removesuffix(suffix), codec
    return next((suffix for suffix in FORMATS if name.endswith(suffix)), ""), compression


@contextmanager
def open_decompressed(
    file: StoredFile, compression: str | None, store: Store, start_byte: int = 0, content: bytes | None = None
) -> Iterator[BinaryIO]:
    """A readable stream of the decompressed bytes from `start_byte` on.

    A compressed stream is decompressed up to `start_byte`, in bounded memory; another one seeks. Concatenated gzip members or
    zstd frames read as one stream.

    Args:
        compression: a codec of pyarrow; None for plain bytes.
        content: of the file, where it has been fetched already.

    Raises:
        OSError: the decompressed bytes end before `start_byte`.
    """
    with pa.BufferReader(content) if content is not None else store.open(file, sequential=True) as raw:
        if compression is None:
            raw.seek(start_byte)
            yield raw
            return
        with pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), compression) as stream:
            while start_byte > 0:
                skipped = stream.read(min(start_byte, STREAM_CHUNK_BYTES))
                if not skipped:
                    raise OSError(f"{file.path}: ends before the position that an earlier run recorded; it changed meanwhile")
                start_byte -= len(skipped)
            yield stream
