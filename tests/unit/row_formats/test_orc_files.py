"""ORC: types, stripes, damages."""

import datetime
import decimal
import hashlib
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.orc
import pytest

from pipeline_ops.schema.units import Range
from tests.support.corpora import write_orc
from tests.support.reading_path import prepare, read_path, read_spans, spans_of, try_path

TEXTS = [hashlib.sha256(b"%d" % row).hexdigest() for row in range(5000)]
STRIPES: dict[str, Any] = {"stripe_size": 2**16, "batch_size": 256}


@pytest.mark.parametrize("compression", ["uncompressed", "zlib", "snappy", "lz4", "zstd"])
def test_orc_of_any_type_is_read(tmp_path: Path, compression: str) -> None:
    time = datetime.datetime(2024, 5, 1, 12, 30, 0, 123456)
    values: dict[str, Any] = {
        "text": pa.array(["é", None]),
        "day": pa.array([time.date(), None]),
        "time": pa.array([time, None], pa.timestamp("ns")),
        "price": pa.array([decimal.Decimal("1.25"), None]),
        "numbers": pa.array([[1, None], None]),
        "pairs": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
        "nested": pa.array([{"a": True, "b": 1.5}, None]),
        "bytes": pa.array([b"\xff", None]),
        "small": pa.array([1, None], pa.int8()),
    }
    path = write_orc(tmp_path / "a.orc", pa.table(values), compression=compression)
    result = read_path(path)
    (document,) = result.documents
    assert result.rejected == [(1, "null_text")]
    assert document.pop("source_file") == str(path)
    assert document.pop("source_row") == 0
    expected = {name: column[0].as_py() for name, column in values.items()}
    assert document == expected


def test_orc_with_several_stripes_is_read_in_order(tmp_path: Path) -> None:
    path = write_orc(tmp_path / "a.orc", pa.table({"text": TEXTS, "n": range(5000)}), **STRIPES)
    result = read_path(path, unit_bytes=2**14, columns=("n",))
    assert (result.column("text"), result.column("n"), result.column("source_row")) == (TEXTS, [*range(5000)], [*range(5000)])
    assert len(result.units) > 5


def test_orc_timestamp_beyond_nanoseconds_costs_its_column_alone(tmp_path: Path) -> None:
    usual, never = datetime.datetime(2024, 5, 1), datetime.datetime(9999, 12, 31)
    at = pa.array([never if row == 4000 else usual for row in range(5000)], pa.timestamp("us"))
    table = pa.table({"at": at, "text": TEXTS, "n": range(5000), "also": pa.array([usual] * 5000, pa.timestamp("us"))})
    path = write_orc(tmp_path / "a.orc", table, **STRIPES)
    result = read_path(path, unit_bytes=10**9)
    assert (result.column("text"), result.column("n"), result.column("also")) == (TEXTS, [*range(5000)], [usual] * 5000)
    rows = [row for row, _, _ in result.misfits]
    assert rows == [*range(rows[0], rows[-1] + 1)]
    assert 0 < rows[0] <= 4000 <= rows[-1]
    assert {name for _, name, _ in result.misfits} == {"at"}
    assert "output.columns" in result.misfits[0][2]
    assert result.column("at") == [None if row in rows else usual for row in range(5000)]
    assert read_path(path, columns=("n",)).misfits == []
    files, settings = prepare(path)
    later = read_spans([replace(spans_of(files)[0], ranges=(Range(4990, None),))], settings)
    assert later.column("text") == TEXTS[4990:]


def test_orc_with_a_damaged_stripe_gives_the_ones_before_it_and_a_failure(tmp_path: Path) -> None:
    path = write_orc(tmp_path / "a.orc", pa.table({"text": TEXTS}), compression="zlib", **STRIPES)
    stripes = pyarrow.orc.ORCFile(path)
    ends = [*itertools.accumulate(stripes.read_stripe(number).num_rows for number in range(stripes.nstripes))]
    assert len(ends) == 3
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 100] = bytes(100)
    path.write_bytes(data)
    result = try_path(path, unit_bytes=2**14)
    read = result.column("text")
    assert len(read) in ends[:-1]
    assert read == TEXTS[: len(read)]
    (failure,) = result.failures
    assert failure.pieces[0].start_row == len(read)


def test_orc_that_is_cut_is_a_failure(tmp_path: Path) -> None:
    path = write_orc(tmp_path / "a.orc", pa.table({"text": TEXTS}))
    path.write_bytes(path.read_bytes()[:-100])
    result = try_path(path)
    assert (len(result.documents), len(result.failures)) == (0, 1)
