"""A labeled unit -> files in hive folders, and what its commit says about them."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Piece, Reject, Unit
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import Commit, FileCounts
from pipeline_ops.writing.unit_files import write_unit

UNIT = Unit("a" * 24, (Piece("in.jsonl", "v1", 0, 4, True),))
LABELED = pa.table(
    {
        "text": ["a", "b", "c"],
        "nested": [{"x": [1]}, None, {"x": []}],
        "label": ["POSITIVE", "NEGATIVE", "POSITIVE"],
        "score": pa.array([0.5, 0.75, 1], pa.float32()),
        "num_tokens": pa.array([3, 4, 5], pa.int32()),
        "truncated": [False, True, True],
    }
)
REJECTS = [Reject("in.jsonl", 3, "broken_json", "nothing")]


def write(folder: Path, labeled: pa.Table = LABELED, rejects: list[Reject] = REJECTS, **output: Any) -> Commit:
    return write_unit(
        Store(OutputConfig(path=str(folder), **output).path),
        UNIT,
        labeled,
        rejects,
        OutputConfig(path=str(folder), **output),
        metadata={"max_length": 128},
        padded_tokens=16,
    )


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_write_of_a_unit_gives_the_files_and_counts_that_it_returns(tmp_path: Path) -> None:
    commit = write(tmp_path)
    assert files_below(tmp_path) == {file.path for file in commit.all_files()}
    contents = {file: (tmp_path / file.path).read_bytes() for file in commit.all_files()}
    assert all(len(content) == file.bytes for file, content in contents.items())
    assert all(hashlib.md5(content).hexdigest() == file.md5 for file, content in contents.items())
    assert all(pq.read_metadata(tmp_path / file.path).num_rows == file.rows for file in commit.files)
    assert (commit.unit, commit.pieces) == (UNIT.id, UNIT.pieces)
    assert (commit.labeled, commit.rejected, commit.documents) == (3, 1, 4)
    assert (commit.tokens, commit.padded_tokens, commit.truncated) == (12, 16, 2)
    assert commit.labels == {"POSITIVE": 2, "NEGATIVE": 1}


def test_write_of_a_unit_can_be_read_back_with_its_types(tmp_path: Path) -> None:
    write(tmp_path)
    table = ds.dataset(tmp_path, partitioning="hive", exclude_invalid_files=True).to_table().sort_by("num_tokens")
    expected = LABELED.select(table.column_names)
    assert table.to_pylist() == expected.to_pylist()
    for name in ("text", "nested", "score", "num_tokens", "truncated"):
        assert table.schema.field(name).type == LABELED.schema.field(name).type


def test_write_of_a_unit_records_the_least_and_the_greatest_values_of_columns_that_have_some(tmp_path: Path) -> None:
    numbers = pa.array([1, None, 7], pa.int64())
    labeled = LABELED.append_column("source_row", numbers).append_column("source_file", [["é/a", "b", "é/a"]])
    assert [file.statistics for file in write(tmp_path / "a", labeled, [], partition_by=[]).files] == [
        {
            "score": (0.5, 1.0, 0),
            "num_tokens": (3, 5, 0),
            "source_row": (1, 7, 1),
            "source_file": ("b", "é/a", 0),
        }
    ]
    scores = pa.array([0.5, math.nan, 0.75], pa.float32())
    odd = labeled.set_column(labeled.schema.get_field_index("score"), "score", scores)
    odd = odd.set_column(odd.schema.get_field_index("source_row"), "source_row", pa.nulls(3, pa.int64()))
    found = {file.path.split("/")[0]: file.statistics for file in write(tmp_path / "b", odd, []).files}
    assert found["label=POSITIVE"] == {"score": (0.5, 0.75, 0), "num_tokens": (3, 5, 0), "source_file": ("é/a", "é/a", 0)}
    assert found["label=NEGATIVE"] == {"num_tokens": (4, 4, 0), "source_file": ("b", "b", 0)}


def test_write_of_rejects_gives_a_line_each(tmp_path: Path) -> None:
    commit = write(tmp_path)
    assert commit.rejects_file is not None
    lines = (tmp_path / commit.rejects_file.path).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"source_file": "in.jsonl", "source_row": 3, "reason": "broken_json", "detail": "nothing"}
    ]


def test_write_of_a_unit_of_several_files_counts_the_documents_of_those_with_rejects(tmp_path: Path) -> None:
    unit = Unit("a" * 24, tuple(Piece(name, "v1", 0, 2, True) for name in ("bad", "good", "worse")))
    rejects = [Reject("bad", 1, "broken_json", "-"), *(Reject("worse", row, "null_text", "-") for row in (0, 1))]
    labeled = LABELED.append_column("source_file", pa.array(["bad", "good", "good"]))
    output = OutputConfig(path=str(tmp_path))
    commit = write_unit(Store(output.path), unit, labeled, rejects, output, metadata={}, padded_tokens=16)
    expected = [FileCounts("bad", 2, {"broken_json": 1}), FileCounts("good", 2, {}), FileCounts("worse", 2, {"null_text": 2})]
    assert commit.by_file() == expected


def test_write_again_gives_other_files_and_keeps_the_first(tmp_path: Path) -> None:
    first, second = write(tmp_path), write(tmp_path)
    assert first.attempt != second.attempt
    paths = [file.path for commit in (first, second) for file in commit.all_files()]
    assert files_below(tmp_path) == set(paths)
    assert len(paths) == len(set(paths))


def test_write_of_no_documents_and_no_rejects_gives_no_file(tmp_path: Path) -> None:
    commit = write(tmp_path / "out", LABELED.slice(0, 0), [])
    assert (commit.files, commit.rejects_file, commit.documents, commit.labels) == ((), None, 0, {})
    assert files_below(tmp_path) == set()


def test_write_without_partitions_gives_one_file_with_the_label(tmp_path: Path) -> None:
    commit = write(tmp_path, partition_by=())
    (file,) = commit.files
    assert pq.read_table(tmp_path / file.path).drop_columns([]).to_pylist() == LABELED.to_pylist()


def test_write_by_label_and_an_input_column_nests_the_folders(tmp_path: Path) -> None:
    labeled = LABELED.append_column("year", pa.array([1, 1, None], pa.int16()))
    commit = write(tmp_path, labeled, [], partition_by=("label", "year"))
    assert {str(Path(file.path).parent) for file in commit.files} == {
        "label=POSITIVE/year=1",
        "label=NEGATIVE/year=1",
        "label=POSITIVE/year=__HIVE_DEFAULT_PARTITION__",
    }


def test_write_records_the_job_in_each_file_and_checksums_its_pages(tmp_path: Path) -> None:
    for file in write(tmp_path).files:
        metadata = pq.read_metadata(tmp_path / file.path)
        assert json.loads(metadata.metadata[b"label_corpus"]) == {"max_length": 128}
        assert metadata.row_group(0).column(0).compression == "ZSTD"
        data = bytearray((tmp_path / file.path).read_bytes())
        data[metadata.row_group(0).column(0).data_page_offset + 40] ^= 1
        with pytest.raises((OSError, pa.ArrowInvalid)):
            pq.read_table(pa.BufferReader(bytes(data)), page_checksum_verification=True)


LABELS = ["a/b", "ü", "a=b", "100%", "%41", "a b", "..", "a:b*?", "🤗", "null", "000", '"quoted"', "a\\b", "LABEL_0"]


def test_hive_folders_of_any_label_come_back_as_they_were(tmp_path: Path) -> None:
    columns = {name: LABELED.column(name).slice(0, 1).to_pylist() * len(LABELS) for name in LABELED.column_names}
    table = pa.table({**columns, "label": LABELS}, schema=LABELED.schema)
    commit = write(tmp_path, table, [])
    assert len(commit.files) == len(LABELS)
    assert all(len(Path(file.path).parts) == 2 for file in commit.files)
    partitioning = ds.partitioning(pa.schema([("label", pa.string())]), flavor="hive")
    read = ds.dataset(tmp_path, partitioning=partitioning).to_table()
    assert sorted(read["label"].to_pylist()) == sorted(LABELS)


def test_hive_folder_of_an_empty_text_is_not_that_of_null(tmp_path: Path) -> None:
    labeled = LABELED.append_column("kind", pa.array(["", None, "x"]))
    write(tmp_path, labeled, [], partition_by=("kind",))
    partitioning = ds.partitioning(pa.schema([("kind", pa.string())]), flavor="hive")
    read = ds.dataset(tmp_path, partitioning=partitioning).to_table().sort_by("num_tokens")
    assert read["kind"].to_pylist() == ["", None, "x"]
