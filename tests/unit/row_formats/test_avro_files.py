"""Avro: types and logical types, unions, codecs, damages."""

import io
import sys
import zlib
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest

from pipeline_ops.row_formats import avro_files
from tests.support.corpora import write_avro
from tests.support.reading_path import read_path, try_path

TEXTS = [f"text {row} of some length" for row in range(1000)]
ROWS = [{"text": text} for text in TEXTS]


SYNC = b"0123456789abcdef"  # of write_avro
LINKED = {
    "type": "record",
    "name": "Node",
    "fields": [{"name": "n", "type": "int"}, {"name": "next", "type": ["null", "Node"]}],
}
LINKED_VALUE = str({"n": 1, "next": '{"n": 2, "next": null}'})
DATE = {"type": "int", "logicalType": "date"}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}


@pytest.mark.parametrize(
    ("avro_type", "value", "arrow_type", "expected"),
    [
        ("int", 5, "int32", "5"),
        ("long", 2**60, "int64", str(2**60)),
        ("float", 0.5, "float", "0.5"),
        ("boolean", True, "bool", "True"),
        ("bytes", b"\xff", "binary", "b'\\xff'"),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "B", "string", "B"),
        ({"type": "fixed", "name": "F", "size": 2}, b"ab", "fixed_size_binary[2]", "b'ab'"),
        ({"type": "array", "items": ["null", "int"]}, [1, None], "list<item: int32>", "[1, None]"),
        ({"type": "map", "values": "int"}, {"k": 1}, "map<string, int32>", "[('k', 1)]"),
        ({"type": "int", "logicalType": "date"}, 19844, "date32[day]", "2024-05-01"),
        ({"type": "int", "logicalType": "time-millis"}, 1000, "time32[ms]", "00:00:01"),
        ({"type": "long", "logicalType": "time-micros"}, 10**6, "time64[us]", "00:00:01"),
        ({"type": "long", "logicalType": "timestamp-millis"}, 1, "timestamp[ms, tz=UTC]", "1970-01-01 00:00:00.001000+00:00"),
        ({"type": "long", "logicalType": "local-timestamp-micros"}, 1, "timestamp[us]", "1970-01-01 00:00:00.000001"),
        (DECIMAL, b"\xff\x83", "decimal128(6, 2)", "-1.25"),
        (["null", DECIMAL], None, "decimal128(6, 2)", "None"),
        ({"type": "string", "logicalType": "uuid"}, "a-b", "string", "a-b"),
        (["null", "int", "long"], 5, "int64", "5"),
        (["null", "int", "double"], 5, "double", "5.0"),
        (["null", "long", "double"], 5, "string", "5"),
        (["null", "string", "int"], 5, "string", "5"),
        (["string", {"type": "array", "items": "int"}], [1, 2], "string", "[1, 2]"),
        (["string", {"type": "array", "items": "int"}], "as it is", "string", "as it is"),
        (["string", DATE], 18262, "string", "2020-01-01"),
        (["string", DECIMAL], b"\x04\xd2", "string", "12.34"),
        ([DATE, {"type": "long", "logicalType": "timestamp-millis"}, "string"], 18262, "string", "2020-01-01"),
        (
            {"type": "array", "items": ["string", DATE, "null"]},
            ["a", 18262, None],
            "list<item: string>",
            "['a', '2020-01-01', None]",
        ),
        (LINKED, {"n": 1, "next": {"n": 2, "next": None}}, "struct<n: int32, next: string>", LINKED_VALUE),
    ],
)
def test_avro_types_become_arrow_types(tmp_path: Path, avro_type: Any, value: Any, arrow_type: str, expected: str) -> None:
    write_avro(
        tmp_path / "a.avro", [{"text": "a", "value": value}], {"value": avro_type}
    )  # fastavro writes stored values as well
    result = read_path(tmp_path / "a.avro")
    assert str(result.tables[0].schema.field("value").type) == arrow_type
    assert str(result.column("value")[0]) == expected


def test_avro_timestamp_of_any_year_is_read_exactly(tmp_path: Path) -> None:
    path = write_avro(
        tmp_path / "a.avro",
        [{"text": "a", "value": 4 * 10**17}],
        {"value": {"type": "long", "logicalType": "timestamp-micros"}},
    )
    assert read_path(path).tables[0].column("value").cast(pa.int64()).to_pylist() == [4 * 10**17]  # in the year 14645


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz", "snappy", "zstandard"])
def test_avro_of_each_codec_is_read(tmp_path: Path, codec: str) -> None:
    """snappy and zstandard are written here: fastavro needs further packages for them."""
    path = write_avro(tmp_path / "a.avro", ROWS, codec="null" if codec in ("snappy", "zstandard") else codec, sync_interval=500)
    if codec in ("snappy", "zstandard"):
        path.write_bytes(compressed_blocks(path.read_bytes(), codec))
    result = read_path(path, unit_bytes=5000)
    assert result.column("text") == TEXTS
    assert len(result.units) > 5


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz", "snappy", "zstandard"])
def test_avro_block_that_grows_beyond_the_limit_is_a_failure(
    tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(avro_files, "MAX_RECORD_BYTES", 100_000)
    written = "null" if codec in ("snappy", "zstandard") else codec
    rows = [{"text": f"{row} " + "a" * 20_000} for row in range(10)]
    small, large = (
        write_avro(tmp_path / name, part, codec=written, sync_interval=10**9) for name, part in (("s", rows[:3]), ("l", rows))
    )
    blocks = [compressed_blocks(path.read_bytes(), codec) if written != codec else path.read_bytes() for path in (small, large)]
    begin = next(fastavro.block_reader(io.BytesIO(large.read_bytes()))).offset + (len(codec) - 4 if written != codec else 0)
    path = tmp_path / "in" / "a.avro"
    path.parent.mkdir()
    path.write_bytes(blocks[0] + blocks[1][begin:])
    result = try_path(path)
    assert result.column("text") == [row["text"] for row in rows[:3]]
    (failure,) = result.failures
    assert "at most 100000" in failure.message


def compressed_blocks(data: bytes, codec: str) -> bytes:
    """An Avro file with the codec null as one with another codec."""
    blocks = [*fastavro.block_reader(io.BytesIO(data))]
    begin = blocks[0].offset
    header = data[:begin].replace(b"\x08null", bytes([2 * len(codec)]) + codec.encode())
    parts = [header]
    for block in blocks:
        content = block.bytes_.getvalue()
        packed = pa.compress(content, "snappy" if codec == "snappy" else "zstd", asbytes=True)
        if codec == "snappy":
            packed += zlib.crc32(content).to_bytes(4, "big")
        parts += [long(block.num_records), long(len(packed)), packed, SYNC]
    return b"".join(parts)


def long(value: int) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", value)
    return out.getvalue()


def test_avro_string_that_is_no_utf8_rejects_its_record_alone(tmp_path: Path) -> None:
    path = write_avro(tmp_path / "a.avro", ROWS[:10], codec="null")
    path.write_bytes(path.read_bytes().replace(b"text 7 of", b"text \xff of"))
    result = read_path(path)
    assert result.column("text") == [text for text in TEXTS[:10] if text != TEXTS[7]]
    assert result.rejected == [(7, "undecodable")]


def test_avro_text_of_a_union_is_a_text_or_rejected(tmp_path: Path) -> None:
    inner = {"type": "record", "name": "Q", "fields": [{"name": "a", "type": "int"}]}
    texts = ["one", 22, b"two", b"\xff\xfe", {"a": 1}, None, "text seven"]
    rows = [{"n": "a", "text": text} for text in texts]
    path = write_avro(tmp_path / "a.avro", rows, {"text": ["null", "long", "string", "bytes", inner]}, codec="null")
    path.write_bytes(path.read_bytes().replace(b"text seven", b"text \xffeven"))
    result = read_path(path)
    assert result.column("text") == ["one", "two"]
    assert result.rejected == [
        (1, "not_a_string"),
        (3, "undecodable"),
        (4, "not_a_string"),
        (5, "null_text"),
        (6, "undecodable"),
    ]
    assert [reject.detail for reject in result.rejects if reject.reason == "not_a_string"] == ["22", '{"a": 1}']


@pytest.mark.parametrize("damage", ["flipped byte", "wrong mark", "cut in a block", "cut in a number"])
def test_damaged_avro_gives_the_blocks_before_it_and_a_failure(tmp_path: Path, damage: str) -> None:
    path = write_avro(tmp_path / "a.avro", ROWS, sync_interval=2000)
    data = bytearray(path.read_bytes())
    blocks = [*fastavro.block_reader(io.BytesIO(bytes(data)))]
    block = blocks[len(blocks) // 2]
    place = block.offset + block.size // 2
    if damage == "flipped byte":
        data[place : place + 8] = bytes(8)
    elif damage == "wrong mark":
        data[block.offset + block.size - 3] ^= 0xFF
    else:
        del data[place if damage == "cut in a block" else block.offset + 1 :]
    path.write_bytes(data)
    result = try_path(path)
    rows = sum(before.num_records for before in blocks[: len(blocks) // 2])
    assert result.column("text") == TEXTS[:rows]
    (failure,) = result.failures
    assert failure.pieces[0].start_row == rows
    assert not any(piece.last for piece in result.pieces)


def test_avro_whose_schema_is_no_record_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.avro").open("wb") as file:
        fastavro.writer(file, "string", ["a"])
    assert "its schema is no record" in try_path(tmp_path).failures[0].message


def test_missing_package_is_one_line_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_avro(tmp_path / "a.avro", ROWS)
    monkeypatch.setitem(sys.modules, "fastavro", None)
    assert "pip install 'label-corpus[avro]'" in try_path(tmp_path).failures[0].message
