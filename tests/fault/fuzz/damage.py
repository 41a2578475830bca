"""Damaged input files: small valid ones of real documents, then seeded damage.

A case is (kind, seed): the same bytes for every call on one Python installation. The kind is a file name whose suffixes say
format and compression; Parquet kinds also say the codec and whether pages have checksums. Compressed files of line formats
have two members or frames; `-utf16` and `-returns` (lines end with \\r) are before the suffixes.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.corpora import (
    one_line,
    real_documents,
    write_arrow,
    write_avro,
    write_bytes,
    write_csv,
    write_jsonl,
    write_orc,
    write_text,
    write_wet,
)

NUM_DOCUMENTS = 90
PARQUET_KINDS = tuple(f"{codec}{sums}.parquet" for codec in ("none", "snappy", "zstd") for sums in ("", "-checksums"))
LINE_KINDS = tuple(f"lines{suffix}{codec}" for suffix in (".jsonl", ".csv", ".txt") for codec in ("", ".gz", ".zst", ".bz2"))
ARRAY_KINDS = tuple(
    f"lines.{layout}.json{codec}" for layout in ("array", "indented", "wrapped", "objects") for codec in ("", ".zst")
)
DECODED_KINDS = (
    *("lines.jsonl.xz", "lines.csv.lz4"),
    *(f"lines-{how}.{suffix}" for how in ("utf16", "returns") for suffix in ("jsonl", "csv", "txt")),
)
ESCAPED_CSV = "escaped.csv"  # a backslash before each quote, in place of a second one
ROW_KINDS = ("rows.arrow", "rows.feather", "rows.orc", "rows.avro", "rows.warc.wet", "rows.warc.wet.gz")
KINDS = (*PARQUET_KINDS, *LINE_KINDS, *ARRAY_KINDS, *DECODED_KINDS, ESCAPED_CSV, *ROW_KINDS)
ROW_GROUP_ROWS = 17
PAGE_HEADER_BYTES = 32

# what parsers have got wrong before; random bytes seldom are one of these
TOKENS = (
    b"\n", b"\r", b"\r\n", b"\n\n", b"\0", b'"', b'""', b'"""', b",", b",,,", b"\\", b"{", b"}", b"{}\n", b"[]\n", b"null\n",
    b"[" * 3000, b'{"a":' * 3000, b'{"text": 1}\n', b'{"text": "a", "text": "b"}\n', b'{"text": "\\ud800"}\n',
    b'{"\\ud800": 1}\n', b'{"text": "a"} {"text": "b"}\n', b'{"text": "a"\n"id": 5}\n', b'{"id": 1e999, "text": NaN}\n',
    b'{"id": 18446744073709551616, "text": ""}\n', b'{"id": "x", "lang": 5}\n', b'{"": {"": []}, "tags": [1, "a", null]}\n',
    b'{"deep": [], "text": "a"}\n', b"]", b"],", b"},{", b'{"text": "a"},', b"]\n[", b"}\n{", b'"}', b"\\\\",
    b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xf0\x9f", b"9" * 5000, b"text,text\n",
    b'\\"', b"\\\n",
)  # fmt: skip


@dataclass(frozen=True)
class Original:
    """An undamaged file."""

    data: bytes
    structure: tuple[tuple[int, int], ...]  # where its bytes say how it is to be read


@cache
def original(kind: str) -> Original:
    documents = real_documents(NUM_DOCUMENTS, seed=7)
    if kind in PARQUET_KINDS:
        data = _parquet(documents, kind.partition(".")[0].partition("-")[0], checksums="checksums" in kind)
        return Original(data, tuple(_parquet_structure(data)))
    if kind in ROW_KINDS:
        data = _rows(documents, kind)
        return Original(data, ((0, 400), (max(len(data) - 400, 0), len(data))))  # schemas stand at the beginning, or at the end
    data = _escaped_csv(documents) if kind == ESCAPED_CSV else _lines(documents, kind.split(".")[1])
    if "-utf16" in kind:
        data = data.decode().encode("utf-16")
    if "-returns" in kind:
        data = data.replace(b"\r", b"").replace(b"\n", b"\r")
    middle = len(data) // 2
    if kind.endswith((".gz", ".zst", ".bz2", ".xz", ".lz4")):
        data = _compress(data[:middle], kind) + _compress(data[middle:], kind)
    return Original(data, ((0, 40), (0, 4000)))  # what is read for the columns' names and types


def _parquet(documents: list[str], codec: str, *, checksums: bool) -> bytes:
    table = pa.table(
        {
            "id": pa.array(range(len(documents)), pa.int64()),
            "text": documents,
            "lang": pa.array([("en", "de", None)[index % 3] for index in range(len(documents))]).dictionary_encode(),
            "tags": [[text[:3], None] if index % 4 else None for index, text in enumerate(documents)],
            "deep": [{"size": len(text), "words": text.split()[:2]} for text in documents],
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=ROW_GROUP_ROWS,
        compression=codec,
        data_page_size=2048,
        write_batch_size=8,
        use_dictionary=["lang", "tags.list.element"],  # pyright: ignore[reportArgumentType] the annotation is too narrow
        data_page_version="2.0" if checksums else "1.0",
        write_page_checksum=checksums,
    )
    return sink.getvalue().to_pybytes()


def _parquet_structure(data: bytes) -> Iterator[tuple[int, int]]:
    """The footer, eight times so that it is met often, and the first page header of each column chunk."""
    metadata = pq.read_metadata(pa.BufferReader(data))
    for _ in range(8):
        yield len(data) - 8 - int.from_bytes(data[-8:-4], "little"), len(data)
    for group in (metadata.row_group(index) for index in range(metadata.num_row_groups)):
        for chunk in (group.column(index) for index in range(group.num_columns)):
            for start in {chunk.data_page_offset, chunk.dictionary_page_offset} - {None}:
                yield start, start + PAGE_HEADER_BYTES


def _lines(documents: list[str], suffix: str) -> bytes:
    rows: list[dict[str, Any]] = [
        {"id": index, "text": text, "lang": ("en", "de")[index % 2]} for index, text in enumerate(documents)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"lines.{suffix}"
        if suffix == "csv":
            write_csv(path, rows)
        elif suffix == "txt":
            write_text(path, [one_line(document) for document in documents])
        else:
            rows = [{**row, "tags": [row["text"][:3], None], "deep": {"size": row["id"]}} for row in rows]
            if suffix == "jsonl":
                write_jsonl(path, rows)
            else:
                write_bytes(path, _array(rows, suffix).encode())
        return path.read_bytes()


def _array(rows: list[dict[str, Any]], layout: str) -> str:
    if layout == "array":
        return json.dumps(rows, ensure_ascii=False)
    if layout == "indented":
        return json.dumps(rows, indent=1)
    if layout == "wrapped":
        return json.dumps({"version": "1", "data": rows, "next": {"pages": [1, 2]}}, ensure_ascii=False)
    return "".join(json.dumps(row, indent=2) + "\n" for row in rows)


def _escaped_csv(documents: list[str]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, doublequote=False, escapechar="\\", lineterminator="\n")
    writer.writerows([("id", "text", "lang"), *((index, document, "en") for index, document in enumerate(documents))])
    return text.getvalue().encode()


def _rows(documents: list[str], kind: str) -> bytes:
    table = pa.table(
        {"id": range(len(documents)), "text": documents, "lang": [("en", None)[len(text) % 2] for text in documents]}
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / kind
        if "wet" in kind:
            write_wet(path, documents)
        elif kind.endswith(".orc"):
            write_orc(path, table, stripe_size=10_000, compression="zlib")
        elif kind.endswith(".avro"):
            write_avro(path, table.to_pylist(), {"id": "long"}, sync_interval=4000)
        else:
            write_arrow(path, table, batch_rows=ROW_GROUP_ROWS, compression="lz4" if kind.endswith(".feather") else None)
        return path.read_bytes()


def _compress(data: bytes, kind: str) -> bytes:
    if kind.endswith(".gz"):
        return gzip.compress(data, mtime=0)
    if kind.endswith(".bz2"):
        return bz2.compress(data)
    if kind.endswith(".xz"):
        return lzma.compress(data)
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "lz4" if kind.endswith(".lz4") else "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def damaged_file(kind: str, seed: int) -> tuple[bytes, str]:
    """The bytes of a case, and what was done to them."""
    rng = random.Random(f"{kind}/{seed}")
    valid = original(kind)
    name = rng.choice(list(DAMAGES))
    low, high = 0, len(valid.data)
    if rng.random() < 0.5:
        low, high = rng.choice(valid.structure)
        name = rng.choice(["flipped", "overwritten", name])
    data = bytearray(valid.data)
    if kind in PARQUET_KINDS and rng.random() < 0.1:
        _miscount(data, rng)
        return bytes(data), "miscounted"
    DAMAGES[name](data, low, high, rng)
    return bytes(data), name


def _miscount(data: bytearray, rng: random.Random) -> None:
    """Makes a number of rows or values in the footer another one: as Thrift writes it, an i64 field and a zigzag varint."""
    count = bytes([0x16, 2 * ROW_GROUP_ROWS])
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    places = [place for place in range(footer, len(data)) if data.startswith(count, place)]
    data[rng.choice(places) + 1] = rng.choice(
        (0, 1, 2 * ROW_GROUP_ROWS - 2, 2 * ROW_GROUP_ROWS - 1, 2 * ROW_GROUP_ROWS + 2, 0x7E)
    )


def _flip(data: bytearray, low: int, high: int, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(low, high)] ^= 1 << rng.randrange(8)


def _overwrite(data: bytearray, low: int, high: int, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(low, high)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _truncate(data: bytearray, low: int, high: int, rng: random.Random) -> None:
    del data[rng.randrange(low, high) :]


def _remove(data: bytearray, low: int, high: int, rng: random.Random) -> None:
    start, stop = _slice(low, high, rng)
    del data[start:stop]


def _duplicate(data: bytearray, low: int, high: int, rng: random.Random) -> None:
    start, stop = _slice(low, high, rng)
    data[stop:stop] = data[start:stop]


def _zero(data: bytearray, low: int, high: int, rng: random.Random) -> None:
    start, stop = _slice(low, high, rng)
    data[start:stop] = bytes(stop - start)


def _insert(data: bytearray, low: int, high: int, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(low, high)
        if rng.random() < 0.5:  # at the start of a line, where there are lines
            place = data.rfind(b"\n", 0, place) + 1
        inserted = rng.choice(TOKENS) if rng.random() < 0.8 else rng.randbytes(rng.randint(1, 64))
        data[place:place] = inserted


def _slice(low: int, high: int, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(low, high)
    return start, min(high, start + rng.choice((1, 2, 4, 8, 64, 1024, high - low)))


DAMAGES: dict[str, Callable[[bytearray, int, int, random.Random], None]] = {
    "flipped": _flip,
    "overwritten": _overwrite,
    "truncated": _truncate,
    "removed": _remove,
    "duplicated": _duplicate,
    "zeroed": _zero,
    "inserted": _insert,
}
