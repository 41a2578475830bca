"""Compressed bytes -> decompressed ones: frames and members that follow one another read as one stream, in bounded memory.

A stream that ends within a frame, and bytes behind one that begin no other, are errors: never a silent end.
"""

import bz2
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO

import pyarrow as pa

from pipeline_ops.inputs.zip_archives import open_member
from pipeline_ops.schema.streams import BrokenStream, Readable

PIECE_BYTES = 4 * 2**10  # compressed, at a time: of the most compressible text these are 50 MB
# of zstd, whose own default refuses files written with --long=28 or more; takes so much memory for such a file only
MAX_WINDOW_BYTES = 2**31


def _zstd_decompressor() -> Any:
    import zstandard  # what reads no zstd does without it, as the stages on a bare GPU machine

    return zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj()


def _damage() -> tuple[type[Exception], ...]:
    """What decompressors raise for damaged bytes."""
    import zstandard

    return (zlib.error, lzma.LZMAError, zstandard.ZstdError, zipfile.BadZipFile, EOFError, NotImplementedError)


MAGIC = {
    "gzip": (b"\x1f\x8b\x08",),
    "zstd": (b"\x28\xb5\x2f\xfd",),
    "xz": (b"\xfd7zXZ\0",),
    "lz4": (b"\x04\x22\x4d\x18",),
    "zip": (b"PK\x03\x04", b"PK\x05\x06"),  # the second: without a member
    **{"bz2": tuple(b"BZh%d" % level + block for level in range(1, 10) for block in (b"1AY&SY", b"\x17rE8P\x90"))},
}
DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "gzip": partial(zlib.decompressobj, wbits=31),
    "bz2": bz2.BZ2Decompressor,
    "xz": lzma.LZMADecompressor,
    "zstd": _zstd_decompressor,
}
PADDED = ("gzip", "xz")  # zeros may follow a member


def compression_of(head: bytes, by_name: str | None) -> str | None:
    """The compression that a file's first bytes show; None: they show none.

    Args:
        head: its first bytes.
        by_name: what its name says, for a file that begins with more than `head` of skippable frames, which zstd and lz4 share.
    """
    while head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5:  # RFC 8878, 3.1.2
        head = head[8 + int.from_bytes(head[4:8], "little") :]
        if not head:
            return by_name if by_name in ("zstd", "lz4") else "zstd"
    return next((name for name, magic in MAGIC.items() if head.startswith(magic)), None)


@contextmanager
def decompressed(source: BinaryIO, compression: str, path: str) -> Iterator[Readable]:
    """The decompressed bytes of a file that is open at its beginning; `path` is for messages.

    Raises:
        BrokenStream: the compressed bytes end too early. What comes before is as it was written, only its checksum is missing.
        OSError: on opening, or on a later read: the compressed bytes are damaged, so that what came before may be wrong.
        UserError: a zip archive holds other than one file, or an encrypted one.
    """
    if compression == "zip":
        with _damage_as_os_error(compression):
            member = open_member(source, path)
        with member:
            yield _Checked(member, compression)
    elif compression == "lz4":
        with pa.CompressedInputStream(pa.PythonFile(source, mode="r"), compression) as stream:
            yield stream
    else:
        yield _Frames(source, compression)


@contextmanager
def _damage_as_os_error(compression: str) -> Iterator[None]:
    try:
        yield
    except _damage() as error:
        raise OSError(f"the {compression} data is damaged: {' '.join(str(error).split())}") from error


class _Checked:
    """Reads with the errors of decompressors as OSErrors."""

    def __init__(self, source: Readable, compression: str):
        self._source, self._compression = source, compression

    def read(self, size: int) -> bytes:
        with _damage_as_os_error(self._compression):
            return self._source.read(size)


class _Frames:
    """Frames, or members, one after the other."""

    def __init__(self, source: BinaryIO, compression: str):
        self._source, self._compression = source, compression
        self._decompressor: Any = None  # None: between two frames
        self._rest = b""  # compressed
        self._decompressed = bytearray()

    def read(self, size: int) -> bytes:
        while not self._decompressed and self._decompress():
            pass
        data = bytes(self._decompressed[:size])
        del self._decompressed[:size]
        return data

    def _decompress(self) -> bool:
        """Takes one piece; False at the end."""
        piece, self._rest = self._rest or self._source.read(PIECE_BYTES), b""
        if self._decompressor is None:
            padding = piece[:1] == b"\0" and self._compression in PADDED
            piece = piece.lstrip(b"\0") if padding else piece
            if not piece:
                return padding
            self._decompressor = DECOMPRESSORS[self._compression]()
        elif not piece:
            raise BrokenStream(f"the {self._compression} data is truncated: it ends within a frame; fetch the file again")
        try:
            self._decompressed += self._decompressor.decompress(piece)
        except (*_damage(), OSError) as error:  # bz2's own
            raise OSError(f"the {self._compression} data is damaged: {error}") from error
        if self._decompressor.eof:
            self._rest, self._decompressor = self._decompressor.unused_data, None
        return True
