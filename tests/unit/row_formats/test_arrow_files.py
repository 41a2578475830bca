"""Arrow IPC: streams and files, their types, their damages, folders of `datasets`."""

import io
import json
import struct
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather
import pytest

from pipeline_ops.reading.reader import read_units
from pipeline_ops.schema.failures import Failure
from pipeline_ops.schema.units import Range
from tests.support.corpora import write_arrow
from tests.support.reading_path import prepare, read_path, read_spans, spans_of, try_path

TEXTS = [f"text {row}" for row in range(20)]


def typed_table() -> pa.Table:
    return pa.table(
        {
            "text": pa.array([*TEXTS[:19], None], pa.string_view()),
            "kind": pa.array(["a", "b"] * 10).dictionary_encode(),
            "large": pa.array([b"x"] * 20, pa.large_binary()),
            "id": pa.array([bytes([row]) * 16 for row in range(20)], pa.uuid()),
            "runs": pc.run_end_encode(pa.array([1] * 15 + [2] * 5)),
            "views": pa.array([["a"], None] * 10, pa.list_view(pa.string())),
            "nested": pa.array([{"a": [row], "b": None} for row in range(20)]),
            "span": pa.array([pa.MonthDayNano([1, 2, 3])] * 20),
            "nothing": pa.nulls(20),
        }
    )


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize("name", ["a.arrow", "a.feather", "a.ipc"])
def test_arrow_of_any_type_is_read_as_plain_types(tmp_path: Path, name: str, compression: str | None) -> None:
    path = write_arrow(tmp_path / name, typed_table(), batch_rows=7, compression=compression)
    result = read_path(path)
    assert result.column("text") == TEXTS[:19]
    assert result.rejected == [(19, "null_text")]
    first = result.documents[0]
    assert (first["kind"], first["large"], first["id"], first["runs"]) == ("a", b"x", bytes(16), 1)
    assert (first["views"], first["nested"]["a"], first["span"], first["nothing"]) == (["a"], [0], "[1, 2, 3]", None)
    assert not any(pa.types.is_dictionary(data_type) for data_type in result.tables[0].schema.types)


@pytest.mark.parametrize("mode", ["sparse", "dense"])
def test_arrow_text_of_a_union_is_a_text_or_rejected(tmp_path: Path, mode: str) -> None:
    codes, days = pa.array([0, 1, 0, 2, 0], pa.int8()), pa.array([18262], pa.date32())
    names, kinds = ["string", "date32", "binary"], pa.array([0, 1, 0, 1, 1], pa.int8())
    if mode == "sparse":
        texts = [pa.array(["one", "", "three", "", None]), pa.nulls(5, pa.date32()).fill_null(days[0]), pa.array([b"four"] * 5)]
        union = pa.UnionArray.from_sparse(codes, texts, names)
    else:
        places = pa.array([0, 0, 1, 0, 2], pa.int32())
        union = pa.UnionArray.from_dense(codes, places, [pa.array(["one", "three", None]), days, pa.array([b"four"])], names)
    other = pa.UnionArray.from_sparse(kinds, [pa.array(["a"] * 5), pa.array([7] * 5)], ["string", "int64"])
    result = read_path(write_arrow(tmp_path / "a.arrow", pa.table({"text": union, "other": other}), batch_rows=3))
    assert result.column("text") == ["one", "three", "four"]
    assert result.rejected == [(1, "not_a_string"), (4, "null_text")]
    assert result.rejects[0].detail == '"2020-01-01"'
    assert result.column("other") == ["a", "a", "7"]


def test_arrow_of_chosen_columns_has_only_these(tmp_path: Path) -> None:
    path = write_arrow(tmp_path / "a.arrow", typed_table())
    assert [*read_path(path, columns=("kind",)).documents[0]] == ["text", "kind", "source_file", "source_row"]


@pytest.mark.parametrize("name", ["a.arrow", "a.feather"])
@pytest.mark.parametrize("cut", ["in a batch", "between batches", "by a byte"])
def test_arrow_that_is_cut_gives_what_is_whole_and_a_failure(tmp_path: Path, name: str, cut: str) -> None:
    table = pa.table({"text": TEXTS})
    path = write_arrow(tmp_path / name, table, batch_rows=5)
    whole = path.read_bytes()
    two_batches = io.BytesIO()
    with pa.ipc.new_stream(two_batches, table.schema) as writer:
        writer.write_table(table.slice(0, 10), max_chunksize=5)
    boundary = len(two_batches.getvalue()) - 8 + (8 if name == "a.feather" else 0)  # without the end, behind the magic number
    path.write_bytes(whole[: {"in a batch": boundary + 200, "between batches": boundary, "by a byte": len(whole) - 1}[cut]])
    result = try_path(path)
    assert result.column("text") == TEXTS[: 20 if cut == "by a byte" else 10]
    assert len(result.failures) == 1
    assert not any(piece.last for piece in result.pieces)


def test_arrow_streams_that_were_joined_are_read_to_the_end(tmp_path: Path) -> None:
    parts = [
        write_arrow(tmp_path / f"part{n}.arrow", pa.table({"id": [n] * 5, "text": TEXTS[5 * n : 5 * n + 5]})) for n in range(4)
    ]
    joined = tmp_path / "joined" / "a.arrow"
    joined.parent.mkdir()
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    result = read_path(joined, unit_bytes=100)
    assert result.column("text") == TEXTS
    assert result.column("source_row") == [*range(20)]
    files, settings = prepare(joined)
    later = read_spans([replace(spans_of(files)[0], ranges=(Range(12, None),))], settings)
    assert later.column("text") == TEXTS[12:]


@pytest.mark.parametrize(
    ("name", "behind"),
    [
        ("a.arrow", "other columns"),
        ("a.arrow", "rubbish"),
        ("a.arrow", "zeros"),
        ("a.feather", "a file"),
        ("a.feather", "rubbish"),
        ("a.feather", "a stream"),
    ],
)
def test_arrow_with_something_behind_its_end_gives_what_is_whole_and_a_failure(tmp_path: Path, name: str, behind: str) -> None:
    path = write_arrow(tmp_path / name, pa.table({"text": TEXTS}), batch_rows=5)
    data = {
        "other columns": write_arrow(tmp_path / "other" / "o.arrow", pa.table({"text": TEXTS, "n": [1] * 20})).read_bytes(),
        "a file": path.read_bytes(),
        "a stream": write_arrow(tmp_path / "other" / "b.arrow", pa.table({"text": TEXTS})).read_bytes(),
        "rubbish": b"rubbish that is no stream",
        "zeros": bytes(64),
    }[behind]
    path.write_bytes(path.read_bytes() + data)
    result = try_path(path)
    assert result.column("text") == TEXTS
    assert len(result.failures) == 1
    assert not any(piece.last for piece in result.pieces)


def test_arrow_with_a_wrong_offset_is_a_failure_and_no_crash(tmp_path: Path) -> None:
    path = write_arrow(tmp_path / "a.arrow", pa.table({"text": TEXTS}), batch_rows=10)
    data = path.read_bytes()
    place = data.rindex(struct.pack("<3i", 0, 7, 14))  # "text 10" has seven characters
    path.write_bytes(data[: place + 4] + struct.pack("<i", 2**30) + data[place + 8 :])
    result = try_path(path)
    assert result.column("text") == TEXTS[:10]
    assert len(result.failures) == 1


def test_feather_of_version_1_is_refused_by_name(tmp_path: Path) -> None:
    pyarrow.feather.write_feather(pa.table({"text": TEXTS}), str(tmp_path / "a.feather"), version=1)
    assert "Feather file of version 1" in try_path(tmp_path / "a.feather").failures[0].message


def test_arrow_compressed_as_a_whole_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.arrow.gz").write_bytes(b"\x1f\x8b")
    assert "compressed as a whole (gzip); decompress it first" in try_path(tmp_path).failures[0].message


def test_dictionary_of_long_texts_is_decoded_in_bounded_memory(tmp_path: Path) -> None:
    long = pa.DictionaryArray.from_arrays(pa.array([row % 2 for row in range(20_000)], pa.int8()), ["a" * 10_000, "b" * 10_000])
    path = write_arrow(tmp_path / "a.arrow", pa.table({"text": long}))
    before = pa.total_allocated_bytes()
    held = 0
    rows = 0
    files, settings = prepare(path)
    for part in read_units(spans_of(files), settings):
        assert not isinstance(part, Failure)
        held = max(held, pa.total_allocated_bytes() - before)
        rows += part[1].num_rows
    assert rows == 20_000
    assert held < 120 * 2**20  # all of it would be 200 MB


def write_dataset(folder: Path, texts: list[str]) -> None:
    """What datasets.Dataset.save_to_disk writes."""
    write_arrow(folder / "data-00000-of-00001.arrow", pa.table({"text": texts, "label": [0] * len(texts)}))
    feature = {"dtype": "string", "_type": "Value"}
    info = {"citation": "", "description": "", "features": {"text": feature, "label": {**feature, "dtype": "int64"}}}
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2))
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_fingerprint": "0f1", "_split": None}
    (folder / "state.json").write_text(json.dumps(state, indent=2))
