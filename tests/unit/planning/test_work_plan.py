"""Listing and commits -> what is left to read. Most files here exist in the listing only: planning does not open them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.planning.work_plan import Plan, is_all_stale, make_plan
from pipeline_ops.reading.reader import read_units
from pipeline_ops.reading.spans import ReadSettings, Span
from pipeline_ops.reading.unit_sizes import UnitSizes
from pipeline_ops.schema.failures import Failure, failure_of
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import END_OF_FILE, Piece, Range
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store, StoredFile
from pipeline_ops.writing.commit_record import Commit
from tests.support.corpora import write_parquet

MEBIBYTE = 2**20


def listed(path: str, size: int, identity: str = "v1", file_format: str = "jsonl", compression: str | None = None) -> InputFile:
    return InputFile(StoredFile(path, size, identity), file_format, compression)


def plan_of(
    files: list[InputFile],
    commits: list[Commit] | None = None,
    unit_bytes: int | None = MEBIBYTE,
    columns: Any = "all",
    failures: list[Failure] | None = None,
    drop_removed: bool = False,
) -> Plan:
    return make_plan(
        files,
        {commit.unit: commit for commit in commits or []},
        text_columns=("text",),
        output=OutputConfig(path="out", columns=columns, drop_removed=drop_removed),
        store=Store("in"),
        unit_bytes=unit_bytes,
        failures=failures or [],
    )


def committed(unit: str, *pieces: Piece, replaces: tuple[str, ...] = (), documents: int = 0) -> Commit:
    return Commit(unit, "attempt", pieces, (), None, documents, 0, 0, 0, 0, {}, replaces=replaces)


def failed(*pieces: Piece) -> Failure:
    return failure_of(OSError("broken"), pieces, "read")


def replaced(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Which commits' rows each file's units will take the place of."""
    return {span.file.path: span.replaces for task in plan.tasks for span in task if span.replaces}


def whole(path: str, identity: str = "v1", rows: int = 10) -> Piece:
    return Piece(path, identity, 0, rows, True, 0, 100)


def paths(plan: Plan) -> list[list[str]]:
    return [[span.file.path for span in task] for task in plan.tasks]


def parquet_file(path: Path, num_rows: int, row_group_size: int) -> InputFile:
    write_parquet(path, [{"text": f"{row:0100}", "id": row} for row in range(num_rows)], row_group_size=row_group_size)
    (stored,) = Store(str(path)).list_files()
    return InputFile(stored, "parquet", None)


def row_ranges(plan: Plan) -> list[tuple[int, int | None]]:
    return [(part.start_row, part.stop_row) for task in plan.tasks for span in task for part in span.ranges]


def rows_of(plan: Plan) -> list[int]:
    """The rows that a plan for one file of 1000 has."""
    return [row for start, stop in row_ranges(plan) for row in range(start, 1000 if stop is None else stop)]


def test_plan_of_nothing_has_no_task() -> None:
    plan = plan_of([])
    assert (plan.tasks, plan.num_units, plan.files, plan.bytes) == ((), 0, 0, 0)


def test_plan_of_many_small_files_groups_them() -> None:
    files = [listed(f"s3://bucket/{index:06}.jsonl", 1000) for index in range(3000)]
    plan = plan_of(files, unit_bytes=32 * MEBIBYTE)
    assert len(plan.tasks) <= 5
    assert [path for task in paths(plan) for path in task] == [file.path for file in files]
    assert plan.num_units == len(plan.tasks)
    assert (plan.files, plan.bytes) == (3000, 3_000_000)


@pytest.mark.parametrize(
    ("megabytes", "units", "unit_bytes"), [(0.2, 1, MEBIBYTE // 4), (4, 16, MEBIBYTE // 4), (640, 64, 10 * MEBIBYTE)]
)
def test_plan_makes_units_by_what_is_left(megabytes: float, units: int, unit_bytes: int) -> None:
    plan = plan_of([listed("a.jsonl", int(megabytes * MEBIBYTE))], unit_bytes=None)
    assert (plan.num_units, plan.unit_bytes) == (units, unit_bytes)


def test_plan_makes_no_unit_of_over_32_mebibytes_and_leaves_out_what_is_done() -> None:
    files = [listed(f"{number}.jsonl", 2**40) for number in range(3)]
    assert plan_of(files, unit_bytes=None).unit_bytes == 32 * MEBIBYTE
    small = listed("small.jsonl", 40)
    done = [committed(f"u{number}", whole(f"{number}.jsonl")) for number in range(3)]
    assert plan_of([*files, small], done, unit_bytes=None).unit_bytes == plan_of([small], unit_bytes=None).unit_bytes


def test_plan_groups_hold_about_unit_bytes() -> None:
    files = [listed(f"{index:03}.jsonl", 30_000) for index in range(100)]
    plan = plan_of(files, unit_bytes=100_000)
    sizes = [sum(span.file.stored.size for span in task) for task in plan.tasks]
    assert max(sizes) <= 100_000
    assert min(sizes[:-1]) > 50_000


def test_plan_groups_files_of_one_format_only() -> None:
    files = [
        listed("a.csv", 10, file_format="csv"),
        listed("b.csv", 10, file_format="csv"),
        listed("c.txt", 10, file_format="text"),
    ]
    assert paths(plan_of(files)) == [["a.csv", "b.csv"], ["c.txt"]]


def test_plan_of_a_large_line_file_is_one_task_of_several_units() -> None:
    plan = plan_of([listed("a.jsonl", 10), listed("b.jsonl", 10 * MEBIBYTE), listed("c.jsonl", 10)])
    assert paths(plan) == [["a.jsonl"], ["b.jsonl"], ["c.jsonl"]]
    assert plan.num_units == 12


def test_plan_of_a_compressed_file_expects_more_units_than_its_size_says() -> None:
    raw = plan_of([listed("a.jsonl", 10 * MEBIBYTE)])
    packed = plan_of([listed("a.jsonl.zst", 10 * MEBIBYTE, compression="zstd")])
    assert packed.num_units > raw.num_units


def test_plan_of_a_parquet_with_row_groups_splits_at_them(tmp_path: Path) -> None:
    plan = plan_of([parquet_file(tmp_path / "a.parquet", 1000, 100)], unit_bytes=20_000)
    assert len(plan.tasks) > 1
    ranges = row_ranges(plan)
    assert [start for start, _ in ranges] == [0, *(stop for _, stop in ranges[:-1])]
    assert ranges[-1][1] in (1000, None)
    assert all(start % 100 == 0 for start, _ in ranges)


def test_plan_of_a_parquet_with_one_huge_row_group_is_one_task_of_row_ranges(tmp_path: Path) -> None:
    plan = plan_of([parquet_file(tmp_path / "a.parquet", 20_000, 20_000)], unit_bytes=20_000)
    ranges = row_ranges(plan)
    assert len(plan.tasks) == 1
    assert plan.num_units == len(ranges) > 3
    assert [start for start, _ in ranges] == [0, *(stop for _, stop in ranges[:-1])]
    assert ranges[-1][1] in (20_000, None)


def test_plan_of_a_wide_parquet_counts_the_chosen_columns_only(tmp_path: Path) -> None:
    rows = [{"text": str(row % 10), "wide": f"{row:0200}"} for row in range(2000)]
    path = write_parquet(tmp_path / "a.parquet", pa.Table.from_pylist(rows), row_group_size=200)
    (stored,) = Store(str(path)).list_files()
    files = [InputFile(stored, "parquet", None)]
    assert plan_of(files, unit_bytes=5_000, columns="none").num_units < plan_of(files, unit_bytes=5_000).num_units


def test_plan_of_a_parquet_that_is_partly_done_leaves_those_rows_out(tmp_path: Path) -> None:
    file = parquet_file(tmp_path / "a.parquet", 1000, 100)
    done = [Piece(file.path, file.stored.identity, start, start + 150, False) for start in (0, 400)]
    plan = plan_of([file], [committed("u", *done)], unit_bytes=20_000)
    assert rows_of(plan) == [*range(150, 400), *range(550, 1000)]


def test_plan_twice_is_the_same(tmp_path: Path) -> None:
    files = [parquet_file(tmp_path / f"{index}.parquet", 500, 100) for index in range(3)]
    files += [listed(f"z{index}.jsonl", 50_000 * index) for index in range(20)]
    assert plan_of(files, unit_bytes=30_000) == plan_of(files, unit_bytes=30_000)


def test_plan_with_complete_files_leaves_them_out() -> None:
    files = [listed(f"{name}.jsonl", 10) for name in "abc"]
    plan = plan_of(files, [committed("u1", whole("a.jsonl")), committed("u2", whole("c.jsonl"))])
    assert paths(plan) == [["b.jsonl"]]
    assert (plan.files, plan.files_done, plan.bytes_done, plan.units_done) == (3, 2, 20, 2)
    assert (plan.changed, plan.removed, plan.stale) == ((), (), {})


def test_plan_with_everything_complete_has_no_task() -> None:
    plan = plan_of([listed("a.jsonl", 10)], [committed("u1", whole("a.jsonl"))])
    assert (plan.tasks, plan.num_units) == ((), 0)


def test_plan_of_a_partly_done_line_file_continues_behind_it() -> None:
    file = listed("a.jsonl", 10 * MEBIBYTE)
    plan = plan_of([file], [committed("u1", Piece("a.jsonl", "v1", 0, 70, False, 0, 900))])
    assert plan.tasks == ((Span(file, (Range(70, None, 900, None),)),),)
    assert plan.files_done == 0


def test_plan_with_a_changed_file_reads_it_alone_again_and_keeps_its_neighbors() -> None:
    commits = [committed("u1", whole("a.jsonl"), whole("b.jsonl")), committed("u2", whole("c.jsonl"))]
    files = [listed("a.jsonl", 10, identity="v2"), listed("b.jsonl", 10), listed("c.jsonl", 10)]
    plan = plan_of(files, commits)
    assert paths(plan) == [["a.jsonl"]]
    assert replaced(plan) == {"a.jsonl": ("u1-attempt",)}
    assert (plan.changed, plan.stale) == (("a.jsonl",), {"u1": ("a.jsonl",)})
    assert (plan.files_done, plan.units_done) == (2, 2)
    assert not is_all_stale(commits[0], plan)


def test_plan_with_a_changed_large_file_replaces_all_its_units() -> None:
    commits = [
        committed("u1", Piece("a.jsonl", "v1", 0, 70, False, 0, 900)),
        committed("u2", Piece("a.jsonl", "v1", 70, 90, True, 900, 1000)),
    ]
    plan = plan_of([listed("a.jsonl", 10, identity="v2")], commits)
    assert replaced(plan) == {"a.jsonl": ("u1-attempt", "u2-attempt")}
    assert plan.stale == {"u1": ("a.jsonl",), "u2": ("a.jsonl",)}
    assert all(is_all_stale(commit, plan) for commit in commits)
    assert (row_ranges(plan), plan.units_done) == ([(0, None)], 0)


def test_plan_with_a_removed_file_reports_it_and_keeps_its_units() -> None:
    plan = plan_of([listed("a.jsonl", 10)], [committed("u1", whole("a.jsonl"), whole("gone.jsonl"))])
    assert (plan.removed, plan.stale) == (("gone.jsonl",), {})
    assert (plan.tasks, plan.units_done) == ((), 1)


def test_plan_with_a_removed_file_that_is_to_be_dropped_marks_its_rows_only() -> None:
    commits = [committed("u1", whole("a.jsonl"), whole("gone.jsonl")), committed("u2", whole("gone too.jsonl"))]
    plan = plan_of([listed("a.jsonl", 10)], commits, drop_removed=True)
    assert plan.removed == ("gone too.jsonl", "gone.jsonl")
    assert plan.stale == {"u1": ("gone.jsonl",), "u2": ("gone too.jsonl",)}
    assert [is_all_stale(commit, plan) for commit in commits] == [False, True]
    assert (plan.tasks, plan.files_done, plan.units_done) == ((), 1, 1)


def test_plan_with_a_changed_and_a_removed_file_in_one_unit_names_both() -> None:
    plan = plan_of([listed("a.jsonl", 10, identity="v2")], [committed("u1", whole("a.jsonl"), whole("gone.jsonl"))])
    assert (plan.removed, plan.stale) == (("gone.jsonl",), {"u1": ("a.jsonl",)})
    assert replaced(plan) == {"a.jsonl": ("u1-attempt",)}
    assert paths(plan) == [["a.jsonl"]]


def test_plan_says_how_much_of_the_present_input_is_done(tmp_path: Path) -> None:
    parquet = parquet_file(tmp_path / "a.parquet", 1000, 100)
    size = parquet.stored.size
    files = [
        *(listed(path, size) for path in ("half.jsonl", "whole.jsonl", "new.jsonl", "changed.jsonl")),
        listed("quarter.jsonl.zst", size, compression="zstd"),  # its size is of compressed bytes, pieces' are not
        parquet,
    ]
    commits = [
        committed("u1", Piece("half.jsonl", "v1", 0, 30, False, 0, size // 2), documents=30),
        committed("u2", whole("whole.jsonl"), whole("gone.jsonl", rows=30), documents=40),
        committed("u3", whole("changed.jsonl", "v0"), documents=10),
        committed("u4", Piece("quarter.jsonl.zst", "v1", 0, 5, False, 0, size), documents=5),
        committed("u5", Piece(parquet.path, parquet.stored.identity, 250, 1000, True), documents=750),
    ]
    plan = plan_of(files, commits, unit_bytes=20_000)
    assert plan.documents_done == 30 + 10 + 5 + 750
    assert plan.share_done == pytest.approx((0.5 + 1 + 0.25 + 0.75) / 6, abs=0.001)
    assert (plan_of(files[:1], []).documents_done, plan_of(files[:1], []).share_done) == (0, 0)
    assert plan_of([listed("whole.jsonl", 10)], commits[1:2]).share_done == 1


def test_plan_does_not_count_commits_that_others_replace() -> None:
    commits = [committed("old", whole("a.jsonl", "v1")), committed("new", whole("a.jsonl", "v2"), replaces=("old-attempt",))]
    plan = plan_of([listed("a.jsonl", 10, identity="v2")], commits)
    assert (plan.tasks, plan.units_done, plan.stale, plan.changed) == ((), 1, {}, ())


def test_plan_after_replacing_one_of_two_files_of_a_unit_reads_the_other(tmp_path: Path) -> None:
    """The run that labeled the changed file again died before it came to its neighbor."""
    commits = [
        committed("old", whole("a.jsonl"), whole("b.jsonl")),
        committed("new", whole("a.jsonl", "v2"), replaces=("old-attempt",)),
    ]
    plan = plan_of([listed("a.jsonl", 10, identity="v2"), listed("b.jsonl", 10)], commits)
    assert paths(plan) == [["b.jsonl"]]


@pytest.mark.parametrize("file_format", ["jsonl", "csv", "text", "parquet"])
def test_plan_of_empty_files_still_reads_them_once(file_format: str) -> None:
    assert paths(plan_of([listed("a", 0, file_format=file_format)])) == [["a"]]


@pytest.mark.parametrize("damage", ["not Parquet", "cut off", "footer overwritten", "length beyond the file", "gone"])
def test_plan_of_a_large_parquet_without_a_readable_footer_is_one_task(tmp_path: Path, damage: str) -> None:
    """Its reader will say what is wrong; the others are planned as ever."""
    good, bad = (parquet_file(tmp_path / f"{name}.parquet", 1000, 100) for name in ("a", "b"))
    data = Path(bad.stored.path).read_bytes()
    footer = int.from_bytes(data[-8:-4], "little")
    damaged = {
        "not Parquet": b"no parquet" * (len(data) // 10),
        "cut off": data[:-100],
        "footer overwritten": data[: -8 - footer] + bytes(footer) + data[-8:],
        "length beyond the file": data[:-8] + (2**31 - 1).to_bytes(4, "little") + data[-4:],
    }
    if damage == "gone":
        Path(bad.stored.path).unlink()
    else:
        Path(bad.stored.path).write_bytes(damaged[damage])
    plan = plan_of([good, bad], unit_bytes=20_000)
    assert plan.tasks[-1] == (Span(bad, (Range(0, None),)),)
    assert plan.tasks[:-1] == plan_of([good], unit_bytes=20_000).tasks


def test_plan_leaves_failed_files_and_rows_alone() -> None:
    files = [listed("a.jsonl", 10), listed("b.jsonl", 10 * MEBIBYTE), listed("c.jsonl", 10)]
    commits = [committed("u1", Piece("b.jsonl", "v1", 0, 70, False, 0, 900))]
    failures = [
        failed(Piece("a.jsonl", "v1", 0, END_OF_FILE, True, 0, END_OF_FILE)),
        failed(Piece("b.jsonl", "v1", 70, 90, False, 900, 1000)),
    ]
    plan = plan_of(files, commits, failures=failures)
    assert plan.tasks == ((Span(files[1], (Range(90, None, 1000, None),)),), (Span(files[2], (Range(0, None),)),))
    assert (plan.files_done, plan.files_quarantined, plan.units_done) == (0, 2, 1)


def test_plan_of_a_file_of_which_the_rest_failed_has_no_task_and_is_not_done() -> None:
    commits = [committed("u1", Piece("a.jsonl", "v1", 0, 70, False, 0, 900))]
    failures = [failed(Piece("a.jsonl", "v1", 70, END_OF_FILE, True, 900, END_OF_FILE))]
    plan = plan_of([listed("a.jsonl", 10 * MEBIBYTE)], commits, failures=failures)
    assert (plan.tasks, plan.files_done, plan.files_quarantined) == ((), 0, 1)


def test_plan_with_a_changed_file_that_failed_keeps_the_rows_of_its_earlier_version() -> None:
    commits = [committed("u1", whole("a.jsonl"))]
    failures = [failed(Piece("a.jsonl", "v2", 0, END_OF_FILE, True, 0, END_OF_FILE))]
    plan = plan_of([listed("a.jsonl", 10, identity="v2")], commits, failures=failures)
    assert (plan.tasks, plan.changed, plan.stale) == ((), ("a.jsonl",), {})


@pytest.mark.parametrize("which", [{0}, {-1}, {0, -1}, {3, 4}])
def test_plan_after_failures_of_parts_of_a_parquet_has_the_other_parts_only(tmp_path: Path, which: set[int]) -> None:
    """What the failed tasks say about their rows is enough, also when the next run's unit_bytes is another."""
    file = parquet_file(tmp_path / "a.parquet", 1000, 100)
    content = Path(file.stored.path).read_bytes()
    tasks = plan_of([file], unit_bytes=20_000).tasks
    Path(file.stored.path).unlink()
    config = InputConfig(path=str(tmp_path))
    settings = ReadSettings(config, StorageConfig(), OutputConfig(path="out"), pa.schema([]), UnitSizes(20_000), "fingerprint")
    failures = [done for index in which for done in read_units(list(tasks[index]), settings) if isinstance(done, Failure)]
    Path(file.stored.path).write_bytes(content)
    assert len(failures) == len(which)
    failed_indices = {index % len(tasks) for index in which}
    again = plan_of([file], unit_bytes=20_000, failures=failures)
    assert again.tasks == tuple(task for index, task in enumerate(tasks) if index not in failed_indices)
    larger = plan_of([file], failures=failures)
    assert rows_of(larger) == rows_of(again)
    assert all(start < 1000 for start, _ in row_ranges(larger))
