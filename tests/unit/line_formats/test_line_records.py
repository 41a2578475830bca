"""Line formats: where records begin and end, and what each parser makes of them."""

import io
import json
import random
import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline_ops.line_formats.csv_syntax import CsvSyntax
from pipeline_ops.line_formats.json_lines import parse_jsonl
from pipeline_ops.line_formats.line_records import RecordBlock, read_record_blocks, split_records
from pipeline_ops.line_formats.parsing import parse_csv, parse_text
from pipeline_ops.schema.misfits import MISFITS_COLUMN

TARGETS = (1, 7, 100, 10_000, 10**9)
CSV = CsvSyntax()
TEXT_SCHEMA = pa.schema([("text", pa.string())])


class Dripping(io.RawIOBase):
    """A stream that gives fewer bytes than asked for, as sockets and decompressors do."""

    def __init__(self, data: bytes, seed: int):
        self.data, self.rng = io.BytesIO(data), random.Random(seed)

    def read(self, size: int = -1) -> bytes:
        return self.data.read(min(size, self.rng.randrange(1, 50)))


def cut(data: bytes, target_bytes: int = 10**9, syntax: CsvSyntax | None = None, **where: Any) -> list[RecordBlock]:
    return list(read_record_blocks(io.BytesIO(data), target_bytes=target_bytes, syntax=syntax, **where))


def block_of(data: bytes, start_row: int = 0, start_byte: int = 0) -> RecordBlock:
    return RecordBlock(data, start_row, len(split_records(RecordBlock(data, 0, 0, 0, True))), start_byte, True)


def jsonl(data: bytes, schema: pa.Schema = TEXT_SCHEMA, only_schema: bool = False) -> tuple[list[dict], list[int], list]:
    table, rows, bad = parse_jsonl(block_of(data), schema, text_columns=("text",), only_schema=only_schema)
    return table.to_pylist(), rows.tolist(), [(record.row, record.reason) for record in bad]


def comma_separated(data: bytes, header: list[str], syntax: CsvSyntax = CSV) -> tuple[list[dict], list[int], list]:
    (block,) = cut(data, syntax=syntax)
    table, rows, bad = parse_csv(block, header, syntax)
    return table.to_pylist(), rows.tolist(), [(record.row, record.reason) for record in bad]


def random_csv(rng: random.Random) -> bytes:
    """Records of which some hold quoted newlines, quotes and delimiters; with or without a last newline."""
    fields = ["", "a", "word", '"quo""ted"', '"new\nline"', '"\r\n,"', "x" * 40, "é🤗"]
    end = rng.choice(["\n", "\r\n"])
    lines = [",".join(rng.choice(fields) for _ in range(3)) for _ in range(rng.randrange(1, 80))]
    return (end.join(lines) + rng.choice(["", end])).encode()


def random_lines(rng: random.Random) -> bytes:
    pieces = ["", "a", "\r", "\u2028", "\x85", "\x0c", "line", "x" * 60, '"', "é🤗"]
    lines = ["".join(rng.choice(pieces) for _ in range(rng.randrange(5))) for _ in range(rng.randrange(1, 80))]
    return ("\n".join(lines) + rng.choice(["", "\n"])).encode()


@pytest.mark.parametrize("target_bytes", TARGETS)
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("make", "syntax"), [(random_lines, None), (random_csv, CSV)])
def test_cut_of_random_records_tiles_the_stream(make, syntax: CsvSyntax | None, seed: int, target_bytes: int) -> None:
    data = make(random.Random(seed))
    blocks = cut(data, target_bytes, syntax)
    whole = [record for block in cut(data, 10**9, syntax) for record in split_records(block, syntax)]

    assert b"".join(block.data for block in blocks) == data
    assert [record for block in blocks for record in split_records(block, syntax)] == whole
    assert [len(split_records(block, syntax)) for block in blocks] == [block.num_rows for block in blocks]
    for before, after in pairwise(blocks):
        assert (after.start_row, after.start_byte) == (before.start_row + before.num_rows, before.stop_byte)
        assert not before.last
    assert (blocks[0].start_row, blocks[0].start_byte, blocks[-1].last) == (0, 0, True)
    assert all(len(block.data) <= target_bytes or block.num_rows == 1 for block in blocks)


@pytest.mark.parametrize("target_bytes", TARGETS)
@pytest.mark.parametrize(("make", "syntax"), [(random_lines, None), (random_csv, CSV)])
def test_cut_of_a_dripping_stream_gives_the_same_blocks(make, syntax: CsvSyntax | None, target_bytes: int) -> None:
    data = make(random.Random(99))
    dripping: Any = Dripping(data, seed=target_bytes)
    assert list(read_record_blocks(dripping, target_bytes=target_bytes, syntax=syntax)) == cut(data, target_bytes, syntax)


@pytest.mark.parametrize("target_bytes", TARGETS)
def test_cut_of_a_range_stops_at_its_end_and_is_never_the_last(target_bytes: int) -> None:
    data = b"one\ntwo\nthree\nfour\n"
    stream = io.BytesIO(data)
    stream.seek(4)
    blocks = list(read_record_blocks(stream, target_bytes=target_bytes, start_row=1, start_byte=4, stop_byte=14))
    assert b"".join(block.data for block in blocks) == b"two\nthree\n"
    assert (blocks[0].start_row, blocks[0].start_byte, blocks[-1].stop_byte) == (1, 4, 14)
    assert not any(block.last for block in blocks)


def test_cut_of_an_empty_stream_gives_nothing() -> None:
    assert cut(b"") == []


def test_cut_of_a_csv_record_with_newlines_keeps_it_whole() -> None:
    blocks = cut(b'1,"a\nb\n\nc"\n2,d\n', target_bytes=1, syntax=CSV)
    assert [block.data for block in blocks] == [b'1,"a\nb\n\nc"\n', b"2,d\n"]


def test_cut_of_csv_with_a_quote_inside_a_plain_field_ends_the_record_at_its_newline() -> None:
    """A quote opens a quoted field only at its beginning: inches in a product list are plain characters."""
    blocks = cut(b'1,5" pipe\n2,valve\n3,7" pipe\n4,"a\nb"\n', target_bytes=1, syntax=CSV)
    assert [block.data for block in blocks] == [b'1,5" pipe\n', b"2,valve\n", b'3,7" pipe\n', b'4,"a\nb"\n']


@pytest.mark.parametrize("separator", ["\x85", "\x0c", "\x0b", "\x1c", "\u2028", "\u2029", "\r"])
def test_text_with_a_line_separator_other_than_newline_stays_one_document(separator: str) -> None:
    table, rows, bad = parse_text(block_of(f"a{separator}b\nc\n".encode()), "text")
    assert [value.decode() for value in table["text"].to_pylist()] == [f"a{separator}b", "c"]
    assert (rows.tolist(), bad) == ([0, 1], [])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a\r\nb\r\n", [b"a", b"b"]),
        (b"a\n\n \nb", [b"a", b"", b" ", b"b"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", [b"a", b"\xef\xbb\xbfb"]),
        (b"\n", [b""]),
        (b"\xff\xfe\n", [b"\xff\xfe"]),
    ],
)
def test_text_lines_become_documents_as_they_are(data: bytes, expected: list[bytes]) -> None:
    assert parse_text(block_of(data), "text")[0]["text"].to_pylist() == expected


def test_text_from_the_middle_of_a_file_keeps_a_byte_order_mark_and_its_row_numbers() -> None:
    table, rows, _ = parse_text(block_of(b"\xef\xbb\xbfa\nb\n", start_row=7, start_byte=100), "text")
    assert table["text"].to_pylist() == [b"\xef\xbb\xbfa", b"b"]
    assert rows.tolist() == [7, 8]


@pytest.mark.parametrize("value", ["000", "2024-01-31", "2024-01-31T10:00:00Z", "12:30:00", "NA", "null", "true", "1.0", ""])
def test_json_text_that_looks_like_something_else_stays_text(value: str) -> None:
    line = f'{{"text": "{value}", "new": "{value}", "deep": {{"list": [{{"day": "{value}"}}]}}}}\n'
    schema = pa.schema([*TEXT_SCHEMA, ("deep", pa.struct([("list", pa.list_(pa.struct([("day", pa.string())])))]))])
    documents, _, bad = jsonl(line.encode(), schema)
    assert documents == [{"text": value, "new": value, "deep": {"list": [{"day": value}]}}]
    assert bad == []


@pytest.mark.parametrize("separator", ["\x85", "\u2028", "\u2029"])
def test_json_with_a_raw_unicode_line_separator_stays_one_document(separator: str) -> None:
    documents, rows, bad = jsonl(f'{{"text": "a{separator}b"}}\n{{"text": "c"}}\n'.encode())
    assert [document["text"] for document in documents] == [f"a{separator}b", "c"]
    assert (rows, bad) == ([0, 1], [])


def test_json_blank_lines_count_as_rows_but_are_no_documents() -> None:
    documents, rows, bad = jsonl(b'\xef\xbb\xbf{"text": "a"}\r\n\r\n  \n{"text": "b"}')
    assert [document["text"] for document in documents] == ["a", "b"]
    assert (rows, bad) == ([0, 3], [])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a"', "broken_json"),
        (b"not json", "broken_json"),
        (b'{"text": "a"} {"text": "b"}', "broken_json"),
        (b'{"text": "a"}{"text": "b"}', "broken_json"),
        (b'{"text": "a"} 5', "broken_json"),
        (b"[]", "broken_json"),
        (b'[{"text": "a"}]', "broken_json"),
        (b'"text"', "broken_json"),
        (b"5", "broken_json"),
        (b'{"text": "\xff"}', "undecodable"),
        (b'{"text": "a", "other": "\xff"}', "undecodable"),
        (b'{"text": 5}', "not_a_string"),
        (b'{"text": true}', "not_a_string"),
        (b'{"text": ["a"]}', "not_a_string"),
        (b'{"text": {"a": 1}}', "not_a_string"),
        (b'{"text": "a", "text": "b"}', "broken_json"),
        (b'{"text": "a", "te\\u0078t": null}', "broken_json"),
        (b'{"text": "a", "year": 1, "year": 2}', "broken_json"),
        (rb'{"text": "\ud800"}', "undecodable"),
        (rb'{"text": "a", "\udc00": 1}', "undecodable"),
    ],
)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_json_line_that_does_not_parse_is_bad_and_its_neighbors_are_not(line: bytes, reason: str, position: int) -> None:
    lines = [b'{"text": "good", "year": 1}', b'{"text": "good too", "year": 2}']
    lines.insert(position, line)
    schema = pa.schema([("text", pa.string()), ("year", pa.int64())])
    documents, rows, bad = jsonl(b"\n".join(lines), schema)
    assert bad == [(position, reason)]
    assert [document["text"] for document in documents] == ["good", "good too"]
    assert rows == [row for row in range(3) if row != position]


def test_json_lines_with_as_many_objects_as_lines_but_not_one_each_are_bad() -> None:
    """Two objects on one line and one object over two lines: three lines, three objects, and no document."""
    documents, _, bad = jsonl(b'{"text": "a"} {"text": "b"}\n{"text":\n"c"}\n')
    assert documents == []
    assert bad == [(0, "broken_json"), (1, "broken_json"), (2, "broken_json")]


@pytest.mark.parametrize("lines", [["null"], ["null", '{"text": "a"}'], ['{"text": "a"}', "null"]])
def test_json_line_that_is_null_is_no_document(lines: list[str]) -> None:
    """In a process of its own: Arrow's JSON reader has crashed on a block that begins with null."""
    program = (
        "import sys, pyarrow as pa\n"
        "from pipeline_ops.line_formats.json_lines import parse_jsonl\n"
        "from pipeline_ops.line_formats.line_records import RecordBlock\n"
        "data = sys.stdin.buffer.read()\n"
        "block = RecordBlock(data, 0, data.count(b'\\n'), 0, True)\n"
        "schema = pa.schema([('text', pa.string())])\n"
        "table, rows, bad = parse_jsonl(block, schema, text_columns=('text',), only_schema=False)\n"
        "texts = table['text'].to_pylist() if table.num_rows else []\n"
        "print(texts.count('a'), len(bad) + texts.count(None))\n"
    )
    data = "".join(line + "\n" for line in lines).encode()
    result = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True)
    assert result.returncode == 0
    assert result.stdout.split() == [b"%d" % (len(lines) - 1), b"1"]


def test_json_columns_of_the_schema_only_leave_the_others_out() -> None:
    documents, _, _ = jsonl(b'{"text": "a", "other": {"x": 1}}\n{"other": "b"}\n', only_schema=True)
    assert documents == [{"text": "a"}, {"text": None}]


@pytest.mark.parametrize("only_schema", [True, False])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"1", "1"),
        (b"18446744073709551616", "18446744073709551616"),
        (b"-1.50", "-1.5"),
        (b"true", "true"),
        (b"null", None),
        (b'"000"', "000"),
        (b'{"a": [1, "\xc3\xbc"]}', '{"a": [1, "ü"]}'),
        (b"{}", "{}"),
    ],
)
def test_json_string_column_takes_any_value_as_text(value: bytes, text: str | None, only_schema: bool) -> None:
    schema = pa.schema([*TEXT_SCHEMA, ("id", pa.string()), ("number", pa.int64())])
    lines = [b'{"text": "a", "id": "x", "number": 7}', b"{broken", b'{"text": "b", "id": %s, "number": 8}' % value]
    documents, rows, bad = jsonl(b"\n".join(lines), schema, only_schema=only_schema)
    assert documents == [{"text": "a", "id": "x", "number": 7}, {"text": "b", "id": text, "number": 8}]
    assert (rows, bad) == ([0, 2], [(1, "broken_json")])


@pytest.mark.parametrize("only_schema", [True, False])
def test_json_columns_and_fields_outside_the_schema_are_text_whatever_they_hold(only_schema: bool) -> None:
    schema = pa.schema([*TEXT_SCHEMA, ("deep", pa.struct([("n", pa.int64()), ("list", pa.list_(pa.string()))]))])
    lines = [
        b'{"text": "a", "new": 1, "deep": {"n": 1, "late": 2.5, "list": [{}, 3, null]}}',
        b'{"text": "b", "new": {"x": []}, "deep": {"n": 2, "late": {"y": 1}}}',
        b'{"text": "c", "deep": {"n": "no number"}}',
        b'{"text": 5, "new": 1}',
        b'{"text": "d", "deep": null}',
    ]
    documents, rows, bad = jsonl(b"\n".join(lines), schema, only_schema=only_schema)
    assert [document.pop("new", "no column") for document in documents] == (
        ["no column"] * 4 if only_schema else ["1", '{"x": []}', None, None]
    )
    misfits = [document.pop(MISFITS_COLUMN) for document in documents]
    assert [misfit and json.loads(misfit) for misfit in misfits] == [None, None, {"deep": '{"n": "no number"}'}, None]
    assert documents == [
        {"text": "a", "deep": {"n": 1, "list": ["{}", "3", None], "late": "2.5"}},
        {"text": "b", "deep": {"n": 2, "list": None, "late": '{"y": 1}'}},
        {"text": "c", "deep": None},
        {"text": "d", "deep": None},
    ]
    assert (rows, bad) == ([0, 1, 2, 4], [(3, "not_a_string")])


def test_json_many_bad_lines_among_good_ones_are_found_one_by_one() -> None:
    rng = random.Random(0)
    bad_rows = sorted(rng.sample(range(500), 40))
    lines = [b"{broken" if row in set(bad_rows) else b'{"text": "%d"}' % row for row in range(500)]
    documents, rows, bad = jsonl(b"\n".join(lines))
    assert [row for row, _ in bad] == bad_rows
    assert [int(document["text"]) for document in documents] == rows
    assert sorted([*rows, *bad_rows]) == list(range(500))


@pytest.mark.parametrize("value", ["", "NA", "null", "nan", "000", "2024-01-31", "1e5", "True", " padded "])
def test_csv_values_stay_text_as_they_stand(value: str) -> None:
    documents, _, bad = comma_separated(f"1,{value}\n".encode(), ["id", "text"])
    assert documents == [{"id": "1", "text": value}]
    assert bad == []


def test_csv_quoted_fields_keep_newlines_quotes_and_delimiters() -> None:
    documents, rows, bad = comma_separated(b'1,"a\nb, ""c"""\r\n2,"d\r\ne"\r\n\r\n3,""\r\n', ["id", "text"])
    assert [document["text"] for document in documents] == ['a\nb, "c"', "d\r\ne", ""]
    assert (rows, bad) == ([0, 1, 3], [])


def test_csv_without_quoting_keeps_quotes_as_characters() -> None:
    documents, rows, bad = comma_separated(b'1|5" pipe\n2|"a\n3|b"\n', ["id", "text"], CsvSyntax("|", None))
    assert [document["text"] for document in documents] == ['5" pipe', '"a', 'b"']
    assert (rows, bad) == ([0, 1, 2], [])


def test_csv_row_of_empty_fields_is_a_document_also_where_tabs_separate() -> None:
    documents, rows, _ = comma_separated(b"1\ta\n\t\n2\tb\n", ["id", "text"], CsvSyntax("\t"))
    assert [document["text"] for document in documents] == ["a", "", "b"]
    assert rows == [0, 1, 2]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1,2,3", "broken_csv"),
        (b"1", "broken_csv"),
        (b"1,\xff", "undecodable"),
        (b"\xff,a", "undecodable"),
    ],
)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_csv_record_that_does_not_parse_is_bad_and_its_neighbors_are_not(line: bytes, reason: str, position: int) -> None:
    lines = [b"1,good", b"2,good too"]
    lines.insert(position, line)
    documents, rows, bad = comma_separated(b"\n".join(lines), ["id", "text"])
    assert bad == [(position, reason)]
    assert [document["id"] for document in documents] == ["1", "2"]
    assert rows == [row for row in range(3) if row != position]


def test_csv_quote_that_is_not_closed_loses_no_document_before_it() -> None:
    documents, rows, bad = comma_separated(b'1,a\n2,b\n3,"open\n', ["id", "text"])
    assert [document["text"] for document in documents][:2] == ["a", "b"]
    assert sorted([*rows, *(row for row, _ in bad)]) == [0, 1, 2]


def test_parsed_rows_are_numbers_in_the_file() -> None:
    table, rows, _ = parse_csv(RecordBlock(b"1,a\n2,b\n", 40, 2, 900, False), ["id", "text"], CSV)
    assert rows.dtype == np.int64
    assert (table.num_rows, rows.tolist()) == (2, [40, 41])
