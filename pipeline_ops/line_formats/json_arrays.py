"""JSON arrays, wrapped arrays and concatenated objects -> JSON Lines: each element on a line, with its own bytes.

How a file of the format jsonl is laid out follows from its first LOOK_BYTES alone, in the same way at every opening:

- The first byte that is not blank is `[`: an array. Its elements are the documents, whatever they are.
- The name does not end in `.json`, or the first byte is another one than `{`: JSON Lines.
- The first object ends on its line, and more lines follow: JSON Lines, whatever the object holds.
- Nothing follows the first object, its member `data` is an array that begins with an object, and no member is a text column: a
  wrapped array, such as {"version": 2, "data": [{...}, {...}]}. The elements are the documents, the other members are passed
  over. Under another name an array is a part of one document: comments, the segments of a transcript.
- The first object goes on after its first line, or another one follows on that line: pretty-printed objects, one or several,
  each of which is a document.
- Otherwise JSON Lines, also when the first line is longer than LOOK_BYTES. If such a line has `data` in these, but no text
  column, it counts as wrapped; should lines follow it, or a text column follow the array, that is an error at its end.

Elements are found by their structure only: by brackets and commas outside strings. So an element that is broken in another way
costs itself alone, and numbers, duplicate names and escapes keep their bytes. Newlines between tokens become spaces. One within
a string, where JSON has none, becomes a carriage return, where JSON has none either: the parser rejects that element.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline_ops.line_formats.line_records import BYTE_ORDER_MARK
from pipeline_ops.schema.streams import BrokenStream, Readable

LOOK_BYTES = 2**20
WRAPPING_KEY = "data"  # of an array that is the documents; pandas, Label Studio and SQuAD's kind of files have it
MAX_REST_BYTES = 16 * 2**20  # of the other members behind the array
CHUNK_BYTES = 2**18  # fits into a core's cache
QUOTE, COMMA, NEWLINE, OPEN, CLOSE, BACKSLASH = range(1, 7)
KINDS = {ord('"'): QUOTE, ord(","): COMMA, ord("\n"): NEWLINE, ord("\\"): BACKSLASH}
KINDS |= dict.fromkeys(b"[{", OPEN) | dict.fromkeys(b"]}", CLOSE)
MARKS = bytes(KINDS.get(byte, 0) for byte in range(256))
STEPS = np.array([0, 0, 0, 0, 1, -1, 0])  # of the depth, per kind of mark


@dataclass(frozen=True)
class JsonLayout:
    """How documents lie in a file that is not JSON Lines.

    Attributes:
        start: the offset of the first element, or of the first object.
        text_columns: the columns that are labeled; no member of a wrapping object is one.
    """

    kind: Literal["array", "wrapped", "objects"]
    start: int
    text_columns: tuple[str, ...] = ()


def json_layout(head: bytes, *, by_objects: bool, text_columns: Collection[str]) -> JsonLayout | None:
    """The layout of a file, None for JSON Lines; see the module's description.

    Args:
        head: the first LOOK_BYTES of the decoded file, all of a shorter one.
        by_objects: the file may hold objects that are not one per line: its name ends in `.json`.
        text_columns: the columns that are labeled.
    """
    begin = len(BYTE_ORDER_MARK) if head.startswith(BYTE_ORDER_MARK) else 0
    body = head[begin:].lstrip()
    begin = len(head) - len(body)
    if body.startswith(b"["):
        return JsonLayout("array", begin + 1)
    if not by_objects or not body.startswith(b"{"):
        return None
    marks = _Marks(body, depth=0, in_string=False)
    ends = marks.places[marks.structural & (marks.depths == 0) & (marks.kinds == CLOSE)]
    end = int(ends[0]) + 1 if len(ends) else len(body)
    newlines = marks.kinds == NEWLINE
    if np.any(newlines & ~marks.structural & (marks.places < end)):
        return None  # a line that is broken
    on_first_line = not np.any(newlines & (marks.places < end))
    following = body[end:].lstrip(b" \t\r")
    if on_first_line and following.startswith(b"\n") and following.strip():
        return None
    if not following.strip():
        members = [*_members(body[:end], marks)]
        if not any(name in text_columns for name, _ in members):
            for name, elements in members:
                if elements is not None and name == WRAPPING_KEY:
                    return JsonLayout("wrapped", begin + elements, (*text_columns,))
    return None if on_first_line and not following.strip() else JsonLayout("objects", begin)


def array_of_objects(record: bytes) -> str | None:
    """The name of the first member of an object whose value is an array of objects; looks at its first LOOK_BYTES."""
    head = record[:LOOK_BYTES]
    found = _members(head, _Marks(head, depth=0, in_string=False))
    return next((name for name, elements in found if elements is not None), None)


def elements_remedy(name: str) -> str:
    """How an array of objects, a member of this name, becomes documents."""
    return f"if the objects in {name!r} are the documents: jq -c '.[{json.dumps(name, ensure_ascii=False)}][]'"


def _members(body: bytes, marks: "_Marks") -> Iterator[tuple[str, int | None]]:
    """(name, where the elements begin if the value is an array of objects) of the members of the first object."""
    kept = (marks.kinds != NEWLINE) & (marks.structural | (marks.kinds == QUOTE)) & (marks.places < len(body))
    places, kinds, depths, inside = (part[kept] for part in (marks.places, marks.kinds, marks.depths, marks.inside))
    # a name is a string behind the first bracket or a comma
    names = 1 + np.flatnonzero((kinds[1:] == QUOTE) & inside[1:] & (depths[1:] == 1) & np.isin(kinds[:-1], (OPEN, COMMA)))
    for name in names.tolist():
        if name + 1 >= len(places):
            return
        value = name + 2
        elements = None
        if value + 1 < len(places) and kinds[value] == OPEN and body[places[value]] == ord("["):
            first = int(places[value + 1])
            if body[first] == ord("{") and not body[int(places[value]) + 1 : first].strip():
                elements = int(places[value]) + 1
        quoted = body[int(places[name]) : int(places[name + 1]) + 1]
        try:
            yield str(json.loads(quoted)), elements
        except ValueError:
            yield "", elements


class JsonElements:
    """A stream of JSON Lines, made of a stream of another layout."""

    def __init__(self, stream: Readable, layout: JsonLayout):
        """Args:
        stream: the decoded file from its first byte on.
        """
        self._lines = _lines_of(_chunks(stream, layout.start), layout)
        self._ready, self._position = b"", 0

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; b"" at the end.

        Raises:
            BrokenStream: the file ends within an element or without the closing bracket, or more than that bracket follows the
                last element, which has been read before.
        """
        if self._position == len(self._ready):
            self._ready, self._position = next(self._lines, b""), 0
        data = self._ready[self._position : self._position + size]
        self._position += len(data)
        return data


def _chunks(stream: Readable, start: int) -> Iterator[bytes]:
    """The bytes from `start` on. No chunk ends between a backslash and the character that it escapes."""
    held = b""
    while data := stream.read(CHUNK_BYTES):
        skipped = min(start, len(data))
        start -= skipped
        data = held + data[skipped:]
        trailing = len(data) - len(data.rstrip(b"\\"))
        held = data[len(data) - trailing % 2 :]
        if len(data) > len(held):
            yield data[: len(data) - len(held)]
    if held:
        yield held


class _Marks:
    """The quotes, commas, newlines and brackets of a chunk.

    Attributes:
        places: int64, offsets into the chunk.
        kinds: uint8, QUOTE, COMMA, ...
        inside: bool, in a string; of a quote: it begins one.
        structural: bool, no quote, and outside strings.
        depths: int64, of brackets behind the mark.
    """

    def __init__(self, data: bytes, *, depth: int, in_string: bool):
        marks = np.frombuffer(data.translate(MARKS), np.uint8)
        self.places = np.flatnonzero(marks != 0)
        self.kinds = marks[self.places]
        quotes = self.kinds == QUOTE
        backslashes = self.kinds == BACKSLASH
        if backslashes.any():
            # a mark begins a run unless a backslash stands right before it; a quote behind an odd number of them is escaped
            follows = np.append(False, backslashes[:-1] & (np.diff(self.places) == 1))
            order = np.arange(len(self.kinds))
            runs = order - np.maximum.accumulate(np.where(follows, 0, order))
            kept = ~(backslashes | (quotes & (runs % 2 == 1)))
            self.places, self.kinds, quotes = self.places[kept], self.kinds[kept], quotes[kept]
        self.inside = ((np.cumsum(quotes, dtype=np.uint8) + np.uint8(in_string)) & 1).astype(bool)
        self.structural = ~(quotes | self.inside)
        self.depths = depth + np.cumsum(np.where(self.structural, STEPS[self.kinds], 0))
        self.depth = int(self.depths[-1]) if len(self.places) else depth
        self.in_string = bool(self.inside[-1]) if len(self.places) else in_string


def _lines_of(chunks: Iterator[bytes], layout: JsonLayout) -> Iterator[bytes]:
    """The elements as lines, in parts of any size.

    Raises:
        BrokenStream: see JsonElements.
    """
    base = 0 if layout.kind == "objects" else 1
    depth, in_string, elements = base, False, 0
    for data in chunks:
        marks = _Marks(data, depth=depth, in_string=in_string)
        depth, in_string = marks.depth, marks.in_string
        ends = marks.places[marks.structural & (marks.depths < max(base, 1)) & (marks.kinds == CLOSE)]
        stop = int(ends[0]) if base and len(ends) else len(data)
        line = np.frombuffer(bytearray(data), np.uint8)
        newlines = marks.kinds == NEWLINE
        line[marks.places[newlines & marks.structural]] = ord(" ")
        line[marks.places[newlines & marks.inside]] = ord("\r")
        if base:
            commas = marks.places[marks.structural & (marks.kinds == COMMA) & (marks.depths == base)]
            line[commas] = ord("\n")
            elements += int(np.searchsorted(commas, stop))
        else:
            stray = marks.places[marks.depths < 0]
            if len(stray):
                ends, line = ends[ends < stray[0]], line[: stray[0]]
            line = np.insert(line, ends + 1, ord("\n"))
            elements += len(ends)
            if len(stray):
                yield line.tobytes() or b" "
                raise BrokenStream(f"a closing bracket too many follows the JSON object with index {elements - 1}")
        if base and len(ends):
            yield line[:stop].tobytes() + b"\n"
            if data[stop] != ord("]"):
                raise BrokenStream(f"the JSON array is closed by {chr(data[stop])!r} behind the element with index {elements}")
            _check_rest(data[stop + 1 :], chunks, layout)
            return
        yield line.tobytes()
    if base and depth == base and not in_string:
        yield b"\n"  # an object is whole; all others are rejected anyway
    if base or depth or in_string:
        what = f"within the element with index {elements}" if in_string or depth > base else "without the closing bracket"
        raise BrokenStream(f"the JSON {'array' if base else 'file'} ends {what}: the file was cut off, or a bracket is missing")


def _check_rest(rest: bytes, chunks: Iterator[bytes], layout: JsonLayout) -> None:
    """Reads what follows the array.

    Raises:
        BrokenStream: there is more than the other members of a wrapping object, or one of these is an array of objects too, or
            a text column.
    """
    if layout.kind == "wrapped":
        while len(rest) <= MAX_REST_BYTES and (data := next(chunks, b"")):
            rest += data
        if len(rest) > MAX_REST_BYTES:
            raise BrokenStream(f"more than {MAX_REST_BYTES:,} bytes follow the JSON array")
        marks = _Marks(rest, depth=1, in_string=False)
        ends = marks.places[marks.structural & (marks.depths == 0)]
        if not len(ends):
            raise BrokenStream("the JSON object ends without its closing bracket: the file was cut off")
        behind, rest = b"{" + rest[: int(ends[0]) + 1], rest[int(ends[0]) + 1 :]
        marks = _Marks(behind, depth=0, in_string=False)
        kept = marks.structural & (marks.kinds != NEWLINE) | (marks.kinds == QUOTE)
        marked, depths = np.frombuffer(behind, np.uint8)[marks.places[kept]], marks.depths[kept]
        if np.any((marked[:-1] == ord("[")) & (depths[:-1] == 2) & (marked[1:] == ord("{"))):
            raise BrokenStream("a second array of objects follows the first one: split them into files of their own")
        for name, _ in _members(behind, marks):
            if name in layout.text_columns:
                raise BrokenStream(
                    f"behind the array {WRAPPING_KEY!r} the object has {name!r}, the text of a document, but the elements of"
                    f" the array were read as such; where the object is one, put it first: jq '{{{json.dumps(name)}}} + .'"
                )
    while not rest.strip():
        rest = next(chunks, b"")
        if not rest:
            return
    raise BrokenStream(f"text follows the end of the JSON array: {rest.strip()[:40]!r}")
