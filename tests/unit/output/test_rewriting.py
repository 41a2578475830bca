"""Committed files -> other files: the same rows, or those of some input files left out, and counts that follow."""

import itertools
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline_ops.output.commit_log import Ledger, commit_unit, read_ledger, sweep
from pipeline_ops.output.compaction import (
    Compaction,
    Merge,
    compacted,
    joined_pieces,
    merge_files,
    plan_compactions,
    schemas_of_small_files,
)
from pipeline_ops.output.rewriting import drop_sources, put_file, tombstone
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Piece
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import ClassifySeconds, Commit, WrittenFile
from pipeline_ops.writing.hive_partitions import hive_folder, hive_values
from pipeline_ops.writing.unit_files import METADATA_KEY, parquet_bytes
from tests.support.labeled_units import check_counts, files_of, flip_byte, rejects_of, rows_of, whole, write_pieces

PARTITIONS: list[tuple[str, ...]] = [(), ("label",), ("source_file",), ("label", "truncated"), ("num_tokens",)]
ODD_PATHS = ['it\'s "quoted".jsonl', "100%41/ü b=c.jsonl", "s3://bucket/語🤗.jsonl", "a\\b?*[x].jsonl"]


def output_at(folder: Path, **settings: Any) -> OutputConfig:
    return OutputConfig(path=str(folder), **settings)


def test_hive_values_are_what_the_folders_were_made_from() -> None:
    values = ("100%=a/b ü", None, "")
    folder = hive_folder(("label", "odd=%name", "empty"), values)
    assert hive_values(f"{folder}/file.parquet") == dict(zip(("label", "odd=%name", "empty"), values, strict=True))
    assert hive_values("file.parquet") == {}


@pytest.mark.parametrize("partition_by", PARTITIONS)
@pytest.mark.parametrize("gone", [("b",), ("a", "c"), ("c",)])
def test_without_sources_leaves_the_rows_of_the_others(
    tmp_path: Path, partition_by: tuple[str, ...], gone: tuple[str, ...]
) -> None:
    output = output_at(tmp_path, partition_by=partition_by)
    commit = write_pieces(output, whole("a"), whole("b", 9), whole("c", 1))
    before, rejects = rows_of(commit, output), rejects_of(commit, output)
    rest = drop_sources(Store(output.path), commit, gone, output)
    assert rows_of(rest, output) == [row for row in before if row[0][0] not in gone]
    assert rejects_of(rest, output) == [key for key in rejects if key[0] not in gone]
    check_counts(rest, output)
    assert rest.pieces == tuple(piece for piece in commit.pieces if piece.path not in gone)
    assert rest.replaces == (commit.name,)
    assert rest.unit != commit.unit
    assert rows_of(commit, output) == before, "nothing changes for readers until the record is put"


def test_without_sources_takes_over_files_that_have_no_such_rows(tmp_path: Path) -> None:
    output = output_at(tmp_path, partition_by=("source_file",))
    commit = write_pieces(output, whole("a"), whole("b"), whole("c"))
    files = {path.name for path in tmp_path.rglob("*.parquet")}
    rest = drop_sources(Store(output.path), commit, ["b"], output)
    assert rest.files == tuple(file for file in commit.files if "source_file=b" not in file.path)
    assert {path.name for path in tmp_path.rglob("*.parquet")} == files, "nothing had to be written but the rejects"


def test_without_sources_whose_names_lie_between_those_of_a_file_takes_it_over(tmp_path: Path) -> None:
    """The footer says from a to c; only the rows say that there is no b."""
    output = output_at(tmp_path)
    commit = replace(
        write_pieces(output, whole("a"), whole("c"), reject_every=99), pieces=(whole("a"), whole("b", 0), whole("c"))
    )
    rest = drop_sources(Store(output.path), commit, ["b"], output)
    assert rest.files == commit.files
    assert rest.pieces == (whole("a"), whole("c"))
    check_counts(rest, output)


def test_without_sources_keeps_rejects_of_others_and_drops_a_file_of_none(tmp_path: Path) -> None:
    output = output_at(tmp_path)
    commit = write_pieces(output, whole("a"), whole("b", 3))
    assert drop_sources(Store(output.path), commit, ["b"], output).rejects_file == commit.rejects_file
    assert drop_sources(Store(output.path), commit, ["a"], output).rejects_file is None


@pytest.mark.parametrize("partition_by", PARTITIONS)
@pytest.mark.parametrize("odd", ODD_PATHS)
def test_without_sources_of_any_name_finds_their_rows(tmp_path: Path, odd: str, partition_by: tuple[str, ...]) -> None:
    output = output_at(tmp_path, partition_by=partition_by, source_file_column="odd % = name")
    if partition_by == ("source_file",):
        output = output.model_copy(update={"partition_by": ("odd % = name",)})
    commit = write_pieces(output, whole(odd), whole("other"))
    for gone, stays in ((odd, "other"), ("other", odd)):
        rest = drop_sources(Store(output.path), commit, [gone], output)
        assert {key[0] for key, *_ in rows_of(rest, output)} == {key[0] for key in rejects_of(rest, output)} == {stays}
        check_counts(rest, output)


def test_without_sources_can_be_applied_to_its_own_result(tmp_path: Path) -> None:
    output = output_at(tmp_path)
    commit = write_pieces(output, whole("a"), whole("b"), whole("c"))
    rest = drop_sources(Store(output.path), drop_sources(Store(output.path), commit, ["a"], output), ["b"], output)
    assert {key[0] for key, *_ in rows_of(rest, output)} == {"c"}
    check_counts(rest, output)


def test_without_sources_of_a_damaged_file_fails_and_names_it(tmp_path: Path) -> None:
    output = output_at(tmp_path)
    commit = write_pieces(output, whole("a"), whole("b"))
    flip_byte(tmp_path / commit.files[0].path, 10)
    with pytest.raises(OSError, match=commit.name):
        drop_sources(Store(output.path), commit, ["b"], output)


def test_files_of_a_rewritten_commit_are_ours_to_sweep(tmp_path: Path) -> None:
    output = output_at(tmp_path)
    commit = write_pieces(output, whole("a"), whole("b"))
    rest = drop_sources(Store(output.path), commit, ["b"], output)
    gone = tombstone([rest])
    ledger = Ledger()
    for record in (commit, rest):
        assert commit_unit(Store(output.path), ledger, record)
    sweep(Store(output.path), ledger, lambda: None, set)
    check_counts(rest, output)
    assert commit_unit(Store(output.path), ledger, gone)
    sweep(Store(output.path), ledger, lambda: None, set)
    assert not list(tmp_path.rglob("*.parquet"))
    assert read_ledger(Store(output.path)).current == {gone.unit: gone}


def test_nothing_left_says_only_that_the_others_do_not_count(tmp_path: Path) -> None:
    commits = [write_pieces(output_at(tmp_path), whole(name)) for name in "ab"]
    gone = tombstone(commits)
    assert gone.replaces == tuple(sorted(commit.name for commit in commits))
    assert (gone.pieces, gone.all_files(), gone.documents, gone.labels) == ((), [], 0, {})
    assert tombstone(reversed(commits)).unit == gone.unit


def sized(number: int, *sizes: int, folder: str = "label=A", start: int = 0) -> Commit:
    """A commit whose files have these sizes."""
    files = tuple(WrittenFile(f"{folder}/{number:024}-{index:012}.parquet", 1, size, "md5") for index, size in enumerate(sizes))
    piece = Piece(f"{number:03}", "v1", start, start + len(sizes), False)
    return Commit(f"{number:024}", "0" * 12, (piece,), files, None, len(sizes), 0, 1, 1, 0, {"A": len(sizes)})


def test_plan_of_compactions_fills_files_up_to_the_target_in_input_order() -> None:
    commits = [sized(number, 30) for number in (3, 1, 2, 5, 4)]
    (found,) = plan_compactions(commits, 100, {})
    assert [len(merge.files) for merge in found.merges] == [3, 2]
    names = [file.path for merge in found.merges for file in merge.files]
    assert names == sorted(files_of(commits))
    assert found.commits == tuple(sorted(commits, key=lambda commit: commit.unit))
    assert found.kept == ()
    assert len({merge.path for merge in found.merges}) == 2


def test_plan_of_compactions_merges_within_a_folder_and_keeps_large_files() -> None:
    commits = [sized(1, 51, 10), sized(2, 10, folder="label=B"), sized(3, 20), sized(4, 10, folder="")]
    (found,) = plan_compactions(commits, 100, {})
    (merge,) = found.merges
    assert [file.bytes for file in merge.files] == [10, 20]
    assert merge.path.startswith("label=A/")
    assert sorted(file.bytes for file in found.kept) == [10, 10, 51]
    assert sorted([*found.kept, *merge.files], key=str) == sorted(
        (file for commit in commits for file in commit.files), key=str
    )


@pytest.mark.parametrize(
    "commits",
    [
        [],
        [sized(1, 30)],
        [sized(1, 51), sized(2, 51)],
        [sized(1, 30), sized(2, 30, folder="label=B")],
        [tombstone([sized(1, 30)]), tombstone([sized(2, 30)])],
    ],
)
def test_plan_of_compactions_is_empty_where_nothing_would_help(commits: list[Commit]) -> None:
    assert plan_compactions(commits, 100, {}) == []


def test_plan_of_compactions_bounds_what_one_commit_takes_over() -> None:
    found = plan_compactions([sized(number, 40) for number in range(400)], 100, {})
    assert len(found) > 1
    assert sum(len(compaction.commits) for compaction in found) == 400
    assert max(sum(file.bytes for merge in one.merges for file in merge.files) for one in found) <= 64 * 100


@pytest.mark.parametrize("seed", range(40))
def test_planning_again_ends_with_files_of_one_schema_merged_and_every_row_kept(seed: int) -> None:
    """Any layout, with merged files of any size up to that of their parts; the next compaction finds nothing to do."""
    rng = random.Random(seed)
    target, schemas = 100, dict[str, bytes]()
    commits = []
    for number in range(rng.randrange(1, 40)):
        commit = sized(number, *(rng.randrange(1, rng.choice([20, 120])) for _ in range(rng.randrange(4))))
        files = tuple(replace(file, path=f"label={rng.choice('AB')}/{file.path.rpartition('/')[2]}") for file in commit.files)
        schemas |= {file.path: rng.choice([b"x", b"y", b"z"]) for file in files}
        commits.append(replace(commit, files=files))
    kinds = sorted((file.path[:7], schemas[file.path]) for commit in commits for file in commit.files)
    rounds = 0
    while found := plan_compactions(commits, target, schemas):
        before, rounds = len(files_of(commits)), rounds + 1
        for compaction in found:
            merged = []
            for merge in compaction.merges:
                (schema,) = {schemas[file.path] for file in merge.files}
                assert {file.path[:7] for file in merge.files} == {merge.path[:7]}
                rows, size = (sum(getattr(file, key) for file in merge.files) for key in ("rows", "bytes"))
                assert size <= target
                schemas[merge.path] = schema
                merged.append(WrittenFile(merge.path, rows, max(1, int(size * rng.uniform(0.2, 1))), "md5"))
            pieces = tuple(piece for commit in compaction.commits for piece in commit.pieces)
            whole_commit = replace(sized(0), unit=compaction.unit, pieces=pieces, files=(*compaction.kept, *merged))
            commits = [*(commit for commit in commits if commit not in compaction.commits), whole_commit]
        assert len(files_of(commits)) < before
    assert rounds < 10
    files = [file for commit in commits for file in commit.files]
    assert kinds == sorted((file.path[:7], schemas[file.path]) for file in files for _ in range(file.rows))
    small = Counter((file.path[:7], schemas[file.path]) for file in files if file.bytes <= target / 2)
    assert max(small.values(), default=0) <= 1, "two small ones always go together"


def planned(commits: list[Commit], output: OutputConfig, target_bytes: int = 10**6) -> list[Compaction]:
    schemas = schemas_of_small_files(Store(output.path), commits, target_bytes)
    return plan_compactions(commits, target_bytes, schemas)


def compact(commits: list[Commit], output: OutputConfig, target_bytes: int = 10**6) -> tuple[Compaction, Commit]:
    (compaction,) = planned(commits, output, target_bytes)
    merged = [merge_files(Store(output.path), merge) for merge in compaction.merges]
    return compaction, compacted(Store(output.path), compaction, merged)


@pytest.mark.parametrize("partition_by", PARTITIONS)
def test_compacted_commit_has_the_rows_and_counts_of_those_it_replaces(tmp_path: Path, partition_by: tuple[str, ...]) -> None:
    output = output_at(tmp_path, partition_by=partition_by)
    commits = [
        write_pieces(output, Piece("a", "v1", 0, 8, False)),
        write_pieces(output, Piece("a", "v1", 8, 12, True), whole("b", 3)),
        write_pieces(output, whole("c"), reject_every=99),
    ]
    before = sorted(row for commit in commits for row in rows_of(commit, output))
    rejects = sorted(key for commit in commits for key in rejects_of(commit, output))
    commits = [replace(commit, flops=10.0, classify_seconds=ClassifySeconds(1, 2, 3, 4)) for commit in commits]
    compaction, commit = compact(commits, output)
    assert (commit.flops, commit.classify_seconds) == (30.0, ClassifySeconds(3, 6, 9, 12))
    assert rows_of(commit, output) == before
    assert rejects_of(commit, output) == rejects
    check_counts(commit, output)
    assert commit.padded_tokens == sum(commit.padded_tokens for commit in commits)
    assert commit.pieces == (whole("a"), whole("b", 3), whole("c"))
    assert commit.replaces == tuple(commit.name for commit in compaction.commits)
    assert len(commit.files) < len(files_of(commits))
    assert planned([commit], output) == []


def test_compacted_files_have_no_dictionaries(tmp_path: Path) -> None:
    """Earlier versions wrote them; an index of one file is too narrow for the values of all."""
    store, files = Store(str(tmp_path)), []
    categories = [[f"{number}-{row}" for row in range(100)] for number in range(3)]
    for number, values in enumerate(categories):
        column = pa.array(values).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string()))
        files.append(put_file(store, f"{number}.parquet", 100, parquet_bytes(pa.table({"category": column}))))
    merged = merge_files(store, Merge("merged.parquet", tuple(files)))
    assert pq.read_table(tmp_path / merged.path).to_pydict() == {"category": [*itertools.chain(*categories)]}
    assert pq.read_schema(tmp_path / merged.path).field("category").type == pa.string()


def test_compacted_commit_of_some_without_known_flops_has_none(tmp_path: Path) -> None:
    output = output_at(tmp_path)
    old, new = write_pieces(output, whole("a")), write_pieces(output, whole("b"))
    commit = compact([old, replace(new, flops=10.0, classify_seconds=ClassifySeconds(1, 2, 3, 4))], output)[1]
    assert commit.flops is None


def test_compacted_commit_keeps_the_only_rejects_file_as_it_is(tmp_path: Path) -> None:
    output = output_at(tmp_path)
    commits = [write_pieces(output, whole("a")), write_pieces(output, whole("b"), reject_every=99)]
    assert compact(commits, output)[1].rejects_file == commits[0].rejects_file


def test_merged_file_of_equal_schemas_keeps_metadata_and_order(tmp_path: Path) -> None:
    output = output_at(tmp_path, partition_by=())
    commits = [write_pieces(output, whole(name), reject_every=99) for name in "abc"]
    _, commit = compact(commits, output)
    (file,) = commit.files
    table = pq.read_table(tmp_path / file.path)
    assert table["source_file"].to_pylist() == [name for name in "abc" for _ in range(12)]
    assert table["source_row"].to_pylist() == [*range(12)] * 3
    first = pq.read_schema(tmp_path / commits[0].files[0].path)
    assert table.schema.equals(first, check_metadata=True)
    assert METADATA_KEY in (table.schema.metadata or {})
    assert pq.read_metadata(tmp_path / file.path).num_row_groups == 1


def test_merged_files_of_different_schemas_stay_apart(tmp_path: Path) -> None:
    output = output_at(tmp_path, partition_by=())
    years = {"year": pa.array(range(12), pa.int16())}
    commits = [
        write_pieces(output, whole("a"), reject_every=99),
        write_pieces(output, whole("b"), reject_every=99, extra=years),
        write_pieces(output, whole("c"), reject_every=99),
        write_pieces(output, whole("d"), reject_every=99, metadata={"model": "other"}),
        write_pieces(output, whole("e"), reject_every=99, extra=years),
    ]
    _, commit = compact(commits, output)
    assert sorted(file.rows for file in commit.files) == [12, 24, 24]
    assert planned([commit], output) == []
    check_counts(commit, output)
    read = [pq.read_table(tmp_path / file.path) for file in commit.files]
    assert sorted("year" in table.column_names for table in read) == [False, False, True]
    assert len({(table.schema.metadata or {})[METADATA_KEY] for table in read}) == 2


@pytest.mark.parametrize("damage", ["flipped byte", "cut off", "missing", "rejects"])
def test_compaction_of_damaged_files_fails_and_names_the_file(tmp_path: Path, damage: str) -> None:
    output = output_at(tmp_path)
    commits = [write_pieces(output, whole(name)) for name in "ab"]
    damaged = commits[1].rejects_file if damage == "rejects" else commits[1].files[0]
    assert damaged is not None
    path = tmp_path / damaged.path
    if damage == "missing":
        path.unlink()
    elif damage == "cut off":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        flip_byte(path, damaged.bytes // 2)
    with pytest.raises(OSError, match=commits[1].name):
        compact(commits, output)


def test_joined_pieces_are_one_only_where_they_follow_each_other_in_one_version() -> None:
    def piece(start: int, stop: int, last: bool = False, path: str = "a", identity: str = "v1") -> Piece:
        return Piece(path, identity, start, stop, last, 10 * start, 10 * stop)

    assert joined_pieces([piece(5, 9, True), piece(0, 5)]) == [piece(0, 9, True)]
    assert joined_pieces([piece(0, 5, True), piece(5, 5)]) == [piece(0, 5, True)]
    for apart in (
        [piece(0, 5), piece(6, 9)],
        [piece(0, 5), piece(5, 9, path="b")],
        [piece(0, 5), piece(5, 9, identity="v2")],
    ):
        assert joined_pieces(apart) == apart
