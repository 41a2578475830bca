"""Records of runs: in the order of their leases, with a timeline that stays short."""

from pathlib import Path

import pytest

from pipeline_ops.output.run_records import TIMELINE_POINTS, Point, RunRecord, read_runs, write_run
from pipeline_ops.storage.store import Store


def record_of(term: int, run: str = "r") -> RunRecord:
    return RunRecord(run, term, "2026-01-01T00:00:00Z", "", "host", units_planned=1, documents_before=0, units_before=0)


def test_newest_records_are_read_oldest_first(tmp_path: Path) -> None:
    for term in (9, 10, 2):
        write_run(Store(str(tmp_path)), record_of(term, f"run-{term}"))
    assert [record.term for record in read_runs(Store(str(tmp_path)), newest=2)] == [9, 10]
    assert [record.run for record in read_runs(Store(str(tmp_path)), newest=9)] == ["run-2", "run-9", "run-10"]


def test_record_that_is_put_again_replaces_itself(tmp_path: Path) -> None:
    record = record_of(1)
    write_run(Store(str(tmp_path)), record)
    record.documents = 7
    write_run(Store(str(tmp_path)), record)
    (found,) = read_runs(Store(str(tmp_path)), newest=5)
    assert (found.documents, found.written) == (7, record.written)


def test_timeline_of_a_long_run_stays_short_and_keeps_its_end() -> None:
    record = record_of(1)
    for second in range(10_000):
        record.add_point(Point(float(second), 3 * second, 5 * second, second))
    points = record.points()
    assert TIMELINE_POINTS <= len(points) < 2 * TIMELINE_POINTS + 1
    assert points[-1].seconds >= 10_000 - 2 * (points[1].seconds - points[0].seconds)
    assert all(point.documents == 3 * point.seconds for point in points)


def test_other_objects_among_the_records_are_named(tmp_path: Path) -> None:
    (tmp_path / "_runs").mkdir()
    (tmp_path / "_runs" / "0000000001-x.json").write_text("{}")
    with pytest.raises(OSError, match=r"0000000001-x\.json is no run record"):
        read_runs(Store(str(tmp_path)), newest=5)
