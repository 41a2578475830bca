"""The encoding of a text, found from its beginning, and its bytes as UTF-8."""

import codecs

from pipeline_ops.line_formats.line_records import Readable

TRANSCODED_BYTES = 256 * 2**10  # at a time
# each is a prefix of none that stands before it
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def encoding_of(head: bytes) -> str | None:
    """The encoding that the first bytes of a text show; None: UTF-8, or what is read as such."""
    return next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)


def _invalid_in_utf8(error: UnicodeError) -> tuple[str, int]:
    """Half a surrogate pair in place of bytes that do not decode: encoded, it is no UTF-8, so that its record is rejected."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    stop = error.end
    if not error.encoding.lower().startswith(("utf-16", "utf-32", "utf16", "utf32", "utf_16", "utf_32")):
        newline = error.object.find(b"\n", error.start + 1, error.end)
        stop = newline if newline >= 0 else stop  # the next record is another one
    return "\udcff", stop


codecs.register_error("invalid_in_utf8", _invalid_in_utf8)


class Transcoded:
    """A stream in some encoding as UTF-8; see _invalid_in_utf8 for what does not decode."""

    def __init__(self, source: Readable, encoding: str):
        self._source = source
        self._decoder = codecs.getincrementaldecoder(encoding)("invalid_in_utf8")
        self._ahead, self._at_end = b"", False

    def read(self, size: int) -> bytes:
        while not self._ahead and not self._at_end:
            data = self._source.read(TRANSCODED_BYTES)
            self._at_end = not data
            self._ahead = self._decoder.decode(data, self._at_end).encode("utf-8", "surrogatepass")
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data
