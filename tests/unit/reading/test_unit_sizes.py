"""Units become smaller towards the end of the input, whatever its format, and hold each row once."""

import hashlib
import heapq
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline_ops.planning.work_plan import make_plan, reading_order
from pipeline_ops.reading.spans import ReadSettings, Span
from pipeline_ops.reading.unit_sizes import UnitSizes
from pipeline_ops.schema.output_columns import OutputConfig
from tests.support.corpora import (
    write_arrow,
    write_avro,
    write_csv,
    write_jsonl,
    write_orc,
    write_parquet,
    write_text,
)
from tests.support.reading_path import prepare, read_spans

ROWS = 4000
TEXT = "a text of some fifty characters, all of one length"
UNIT_BYTES = 20_000


def rows_of(count: int) -> list[dict[str, Any]]:
    return [{"text": hashlib.sha256(b"%d" % row).hexdigest()} for row in range(count)]  # as good as incompressible


def guided(path: Path, readers: int = 1, unit_bytes: int = UNIT_BYTES) -> tuple[list[list[Span]], ReadSettings]:
    """The tasks of a path in the order of a run, with settings for small units at the end."""
    files, settings = prepare(path, unit_bytes=unit_bytes)
    plan = make_plan(
        files,
        {},
        text_columns=("text",),
        output=OutputConfig(path="out"),
        store=settings.store,
        unit_bytes=unit_bytes,
    )
    settings = replace(settings, unit_sizes=UnitSizes(unit_bytes, unit_bytes // 40, 8))
    return [list(task) for task in reading_order(plan, readers)], settings


def unit_rows(tasks: list[list[Span]], settings: ReadSettings) -> list[int]:
    """Documents of each unit in the order in which they are read, of all of which each row is there once."""
    results = [read_spans(task, settings) for task in tasks]
    texts = [text for result in results for text in result.column("text")]
    assert len(texts) == len(set(texts))
    assert [result.units for result in results] == [read_spans(task, settings).units for task in tasks]
    return [table.num_rows for result in results for table in result.tables]


WRITERS = {
    "a.jsonl": write_jsonl,
    "a.csv": write_csv,
    "a.parquet": lambda path, rows: write_parquet(path, rows, row_group_size=ROWS),
    "b.parquet": lambda path, rows: write_parquet(path, rows, row_group_size=400),
    "a.arrow": write_arrow,
    "a.orc": write_orc,
    "a.avro": write_avro,
}


@pytest.mark.parametrize("name", WRITERS)
def test_last_units_of_a_file_are_a_share_of_what_is_left(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name, rows_of(ROWS))
    check_sizes(unit_rows(*guided(tmp_path / name)), ROWS)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_last_units_of_a_compressed_file_are_a_share_of_what_is_left(name: str, tmp_path: Path) -> None:
    rows = 5 * ROWS
    write_jsonl(tmp_path / name, rows_of(rows))
    check_sizes(unit_rows(*guided(tmp_path / name, unit_bytes=5 * UNIT_BYTES)), rows)


def check_sizes(counts: list[int], rows: int) -> None:
    assert sum(counts) == rows
    largest = max(counts)
    assert counts[0] > 0.6 * largest
    left = rows
    for count in counts:
        assert count <= max(left / 3, rows / 80)  # an eighth of what is left, or more where the file's bytes are an estimate
        left -= count
    assert max(counts[-4:]) < largest / 5


def test_units_end_small_with_the_last_file_only(tmp_path: Path) -> None:
    for number in range(12):
        write_text(tmp_path / f"{number:02}.txt", [f"{TEXT} {number} {row:06}" for row in range(1000 if number != 5 else 2000)])
    tasks, settings = guided(tmp_path)
    assert [len(task) for task in tasks] == [1] * 12
    assert tasks[0][0].file.path.endswith("05.txt")  # the largest is read first
    counts = [unit_rows([task], settings) for task in tasks]
    assert [sum(some) for some in counts] == [2000] + [1000] * 11
    assert all(len(some) == len(counts[1]) for some in counts[1:9])
    assert max(counts[-1][-4:]) < max(counts[1]) / 5


def test_files_that_are_read_at_the_same_time_all_end_small(tmp_path: Path) -> None:
    for number in range(3):
        write_text(tmp_path / f"{number}.txt", [f"{TEXT} {number} {row:06}" for row in range(2000)])
    tasks, settings = guided(tmp_path, readers=3)
    for task in tasks:
        counts = unit_rows([task], settings)
        assert max(counts[-3:]) < max(counts) / 5


def test_small_files_share_smaller_units_at_the_end(tmp_path: Path) -> None:
    for number in range(100):
        write_text(tmp_path / f"{number:03}.txt", [f"{TEXT} {number} {row:06}" for row in range(15)])
    counts = unit_rows(*guided(tmp_path))
    assert sum(counts) == 1500
    assert max(counts[-3:]) < max(counts) / 5


def test_sizes_without_parts_are_all_the_largest() -> None:
    assert [UnitSizes(100).at(left) for left in (1e9, 10, 0)] == [100, 100, 100]


def test_shares_of_the_input_end_at_all_of_it() -> None:
    shares = UnitSizes(100, 5, 4).shares(1000, 10)
    assert len(shares) > 14  # as many as there are, about: 10 of one size, of which the last ones are cut
    assert shares[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert UnitSizes(100).shares(1000, 4) == [0.25, 0.5, 0.75, 1.0]
    assert UnitSizes(100).shares(125, 2) == [0.8, 1.0], "a file of a unit and a quarter"


def classifiers_ended(sizes: UnitSizes, total: int, classifiers: int, ahead: int) -> tuple[float, float]:
    """(seconds between the first and the last classifier's end, seconds of the run), where a byte takes a second.

    Each is sent so many units ahead; the next unit goes to one that has the fewest.
    """
    free, queued = [0.0] * classifiers, [0] * classifiers
    ends: list[tuple[float, int]] = []  # of units that have been sent
    left, now = total, 0.0
    while left > 0:
        one = min(range(classifiers), key=queued.__getitem__)
        if queued[one] == ahead:
            now, ended = heapq.heappop(ends)
            queued[ended] -= 1
            continue
        size = min(sizes.at(left), left)
        left -= size
        queued[one] += 1
        free[one] = max(free[one], now) + size * (1 + 0.02 * (one % 7))  # they differ in speed
        heapq.heappush(ends, (free[one], one))
    return max(free) - min(free), max(free)


@pytest.mark.parametrize(("classifiers", "ahead"), [(2, 2), (8, 4), (64, 4)])
def test_classifiers_end_together(classifiers: int, ahead: int) -> None:
    unit, least, total = 1000, 20, classifiers * 12_500
    apart, _ = classifiers_ended(UnitSizes(unit), total, classifiers, ahead)
    assert apart > unit / 2
    apart, seconds = classifiers_ended(UnitSizes(unit, least, classifiers * ahead), total, classifiers, ahead)
    assert apart < 0.02 * seconds
    assert apart < ahead * least * 2
