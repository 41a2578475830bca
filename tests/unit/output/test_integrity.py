"""What is written against the commit that names it: each kind of damage is found and named."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline_ops.output.committed_files import read_written
from pipeline_ops.output.integrity import VerifyState, check_commit
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Piece
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import Commit, WrittenFile
from pipeline_ops.writing.unit_files import parquet_bytes, written_file
from tests.support.labeled_units import flip_byte, whole, write_pieces


def check(output: OutputConfig, *commits: Commit) -> list[str]:
    seen = VerifyState()
    return [line for commit in commits for line in check_commit(Store(output.path), commit, output, seen)]


@pytest.fixture
def output(tmp_path: Path) -> OutputConfig:
    return OutputConfig(path=str(tmp_path))


def rewritten(commit: Commit, output: OutputConfig, index: int, change: Any) -> Commit:
    """The commit with a file whose table `change` has changed, and which is recorded as it is now."""
    table = change(read_written(Store(output.path), commit.files[index]))
    content = parquet_bytes(table)
    path = commit.files[index].path
    Store(output.path).put(path, content.to_pybytes())
    files = list(commit.files)
    files[index] = written_file(path, table.num_rows, content)
    return replace(commit, files=tuple(files))


@pytest.mark.parametrize("partition_by", [(), ("label",), ("source_file",), ("source_row",), ("label", "num_tokens")])
@pytest.mark.parametrize("scores", [True, False])
def test_check_of_good_commits_finds_nothing(tmp_path: Path, partition_by: tuple[str, ...], scores: bool) -> None:
    output = OutputConfig(path=str(tmp_path), partition_by=partition_by, scores=scores, logits=scores)
    commits = [
        write_pieces(output, Piece("a", "v1", 0, 5, False)),
        write_pieces(output, Piece("a", "v1", 5, 12, True), whole("b ü%", 9)),
        write_pieces(output, whole("empty", 0)),
        write_pieces(output, whole("rejects", 4), reject_every=1),
    ]
    seen = VerifyState()
    assert [line for commit in commits for line in check_commit(Store(output.path), commit, output, seen)] == []
    assert seen.documents == 12 + 9 + 4


def test_check_finds_statistics_of_other_values(output: OutputConfig) -> None:
    commit = write_pieces(output, whole("a"))
    wrong = replace(commit.files[1], statistics=commit.files[1].statistics | {"score": (0.0, 0.5, 0)})
    assert check(output, replace(commit, files=(commit.files[0], wrong))) == [
        f"{wrong.path}: its commit has statistics of other values"
    ]


@pytest.mark.parametrize("rejects", [False, True])
def test_check_finds_each_flipped_byte(output: OutputConfig, tmp_path: Path, rejects: bool) -> None:
    commit = write_pieces(output, whole("a"))
    file = commit.rejects_file if rejects else commit.files[0]
    assert file is not None
    for position in range(0, file.bytes, 97):
        flip_byte(tmp_path / file.path, position)
        (line,) = [line for line in check(output, commit) if "MD5" in line]
        assert line.startswith(file.path)
        flip_byte(tmp_path / file.path, position)
    assert check(output, commit) == []


@pytest.mark.parametrize("rejects", [False, True])
def test_check_finds_a_missing_file(output: OutputConfig, tmp_path: Path, rejects: bool) -> None:
    commit = write_pieces(output, whole("a"))
    file = commit.rejects_file if rejects else commit.files[0]
    assert file is not None
    (tmp_path / file.path).unlink()
    assert any(file.path in line for line in check(output, commit))


def test_check_finds_a_file_that_is_no_parquet(output: OutputConfig, tmp_path: Path) -> None:
    commit = write_pieces(output, whole("a"))
    path = commit.files[0].path
    (tmp_path / path).write_bytes(b"no parquet")
    broken = replace(commit, files=(written_file(path, 4, b"no parquet"), *commit.files[1:]))
    assert [line.startswith(path) for line in check(output, broken)] == [True]


def test_check_finds_another_number_of_rows(output: OutputConfig) -> None:
    commit = write_pieces(output, whole("a"))
    first: WrittenFile = commit.files[0]
    broken = replace(commit, files=(replace(first, rows=first.rows + 1), *commit.files[1:]))
    (line,) = check(output, broken)
    assert line == f"{first.path}: {first.rows} rows, its commit says {first.rows + 1}"


def test_check_finds_a_doubled_row(output: OutputConfig) -> None:
    commit = write_pieces(output, whole("a"))
    doubled = rewritten(commit, output, 0, lambda table: pa.concat_tables([table, table.slice(1, 1)]))
    (line,) = check(output, doubled)
    assert line.startswith("row 6 of a ")
    assert "stands 2 times" in line


def test_check_finds_a_row_that_is_labeled_and_rejected(output: OutputConfig) -> None:
    commit = write_pieces(output, whole("a"))
    other = write_pieces(output, whole("a"), reject_every=2)
    (line,) = check(output, replace(commit, rejects_file=other.rejects_file))
    assert line.startswith("row 1 of a stands 2 times")


def test_check_finds_a_row_outside_the_pieces(output: OutputConfig) -> None:
    commit = write_pieces(output, Piece("a", "v1", 4, 12, True), whole("b"))
    for pieces, path in (
        ((Piece("a", "v1", 4, 11, False), whole("b")), "a"),
        ((Piece("a", "v1", 5, 12, True), whole("b")), "a"),
        ((Piece("a", "v1", 4, 7, False), Piece("a", "v1", 8, 12, True), whole("b")), "a"),
        ((Piece("a", "v1", 4, 12, True),), "b"),
    ):
        (line,) = check(output, replace(commit, pieces=pieces))
        assert re.match(rf"row \d+ of {path} is in unit ", line)
        assert "does not cover it" in line


def test_check_finds_rows_without_a_source(output: OutputConfig) -> None:
    def forget(table: pa.Table) -> pa.Table:
        index = table.column_names.index("source_row")
        rows = pc.if_else(pc.equal(table["source_row"], table["source_row"][0]), None, table["source_row"])
        return table.set_column(index, "source_row", rows)

    commit = rewritten(write_pieces(output, whole("a")), output, 0, forget)
    assert check(output, commit) == [f"{commit.files[0].path}: rows without a source"]


def test_check_finds_metadata_unlike_that_of_other_files(output: OutputConfig) -> None:
    good = write_pieces(output, whole("a"), metadata={"model": "m", "max_length": 128})
    other = write_pieces(output, whole("b"), metadata={"model": "m", "max_length": 64})
    lines = check(output, good, other)
    assert lines == [f"{file.path}: metadata unlike that of the other files: max_length" for file in other.files]
    bare = rewritten(good, output, 0, lambda table: table.replace_schema_metadata(None))
    assert check(output, bare) == [f"{bare.files[0].path}: no metadata about the model that labeled it"]


def test_check_finds_another_type_of_a_column_that_labeling_adds(output: OutputConfig) -> None:
    def widen(table: pa.Table) -> pa.Table:
        index = table.column_names.index("score")
        return table.set_column(index, "score", table["score"].cast(pa.float64()))

    good = write_pieces(output, whole("a"))
    other = rewritten(write_pieces(output, whole("b")), output, 1, widen)
    assert f"{other.files[1].path}: column 'score' is double, elsewhere float" in check(output, good, other)
    lost = rewritten(write_pieces(output, whole("c")), output, 0, lambda table: table.drop_columns(["score"]))
    assert f"{lost.files[0].path}: no column 'score'" in check(output, good, lost)


def halves_of_a_file(output: OutputConfig, first: pa.Array, second: pa.Array) -> tuple[Commit, Commit]:
    """Two units of one input file, each with a column `meta`."""
    return (
        write_pieces(output, Piece("a", "v1", 0, 6, False), extra={"meta": first[:5]}),
        write_pieces(output, Piece("a", "v1", 6, 12, True), extra={"meta": second[:4]}),
    )


def test_check_accepts_fields_and_columns_that_are_first_seen_late(output: OutputConfig) -> None:
    narrow = pa.array([{"e": 1, "tags": [{"a": "x"}]}] * 6)
    wide = pa.array([{"f": 2, "e": 1, "tags": [{"a": "x", "b": "y"}]}] * 6)
    other = pa.array([{"e": 1, "g": "z"}] * 6)
    for first, second in ((narrow, wide), (wide, narrow), (wide, other)):
        assert check(output, *halves_of_a_file(output, first, second)) == []
    bare = write_pieces(output, Piece("a", "v1", 0, 6, False))
    assert check(output, bare, halves_of_a_file(output, narrow, wide)[1]) == []


@pytest.mark.parametrize("second", [pa.array(["text"] * 6), pa.array([{"e": "text"}] * 6), pa.array([{"e": 1.5, "f": 1}] * 6)])
def test_check_finds_another_type_of_a_column_with_rows_of_one_input_file(output: OutputConfig, second: pa.Array) -> None:
    lines = check(output, *halves_of_a_file(output, pa.array([{"e": 1}] * 6), second))
    assert lines
    assert all("column 'meta' is " in line and "elsewhere with rows of a struct<e: int64>" in line for line in lines)


def test_check_lets_other_input_files_have_other_columns(output: OutputConfig) -> None:
    years = {"year": pa.array(range(9), pa.int16())}
    assert check(output, write_pieces(output, whole("a")), write_pieces(output, whole("b"), extra=years)) == []
