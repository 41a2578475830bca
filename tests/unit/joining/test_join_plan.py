"""Which rows are joined: those that all outputs have, of one version of their file, and none twice."""

import random

import pytest

from pipeline_ops.joining.join_plan import difference, halves, intersection, plan_join, unit_of
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.units import END_OF_FILE, Piece
from pipeline_ops.writing.commit_record import Commit, WrittenFile
from tests.support.joined_outputs import piece_of


def commit_of(*pieces: Piece, name: str = "0") -> Commit:
    rows = sum(piece.stop_row - piece.start_row for piece in pieces)
    file = WrittenFile("label=A/x.parquet", rows, 100 * rows, "")
    return Commit(name * 24, "a" * 12, pieces, (file,), None, rows, 0, 0, 0, 0, {})


def rows_of(units: tuple) -> list[tuple[str, int]]:
    return [(piece.path, row) for unit in units for piece in unit.pieces for row in range(piece.start_row, piece.stop_row)]


def test_rows_that_all_outputs_have_are_joined_however_they_are_cut() -> None:
    a = [commit_of(piece_of("x", 0, 7, last=False)), commit_of(piece_of("x", 7, 20), piece_of("y", 0, 5), name="1")]
    b = [commit_of(piece_of("y", 0, 5), piece_of("x", 4, 20)), commit_of(piece_of("x", 0, 2, last=False), name="1")]
    plan = plan_join([a, b], [], "f")
    assert rows_of(plan.units) == [("/in/x", row) for row in (0, 1, *range(4, 20))] + [("/in/y", row) for row in range(5)]
    assert [(one.files, one.rows) for one in plan.waiting] == [(0, 0), (1, 2)]
    assert not plan.is_complete
    done = [commit_of(*unit.pieces) for unit in plan.units]
    assert plan_join([a, b], done, "f").units == ()
    b.append(commit_of(piece_of("x", 2, 4, last=False), name="2"))
    later = plan_join([a, b], done, "f")
    assert rows_of(later.units) == [("/in/x", 2), ("/in/x", 3)]
    assert later.is_complete


def test_empty_file_and_the_end_of_a_file_are_joined_too() -> None:
    a, b = [commit_of(piece_of("x", 0, 0))], [commit_of(piece_of("x", 0, 0))]
    (unit,) = plan_join([a, b], [], "f").units
    assert unit.pieces == (piece_of("x", 0, 0),)
    a, b = [commit_of(piece_of("x", 0, 9, last=False))], [commit_of(piece_of("x", 0, 9))]
    (unit,) = plan_join([a, b], [], "f").units
    assert not unit.pieces[-1].last
    a.append(commit_of(piece_of("x", 9, 9), name="1"))
    (unit,) = plan_join([a, b], [commit_of(*unit.pieces)], "f").units
    assert unit.pieces == (piece_of("x", 9, 9),)


def test_changed_file_replaces_its_rows_once_all_outputs_have_the_new_version() -> None:
    old, new, other = piece_of("x", 0, 5), piece_of("x", 0, 6, version="v2"), piece_of("y", 0, 3)
    done = [commit_of(old, other)]
    behind = plan_join([[commit_of(new, other)], [commit_of(old, other)]], done, "f")
    assert (behind.units, behind.stale, behind.other_versions, behind.is_complete) == ((), {}, ("/in/x",), False)
    plan = plan_join([[commit_of(new, other)], [commit_of(new, other)]], done, "f")
    assert [unit.pieces for unit in plan.units] == [(new,)]
    assert plan.units[0].replaces == (done[0].name,)
    assert (plan.changed, plan.removed, plan.stale) == (("/in/x",), (), {done[0].unit: ("/in/x",)})


def test_file_that_an_output_has_dropped_leaves_the_joined_one() -> None:
    x, y = piece_of("x", 0, 5), piece_of("y", 0, 3)
    plan = plan_join([[commit_of(x, y)], [commit_of(y)]], [commit_of(x, y)], "f")
    assert (plan.units, plan.removed, plan.stale) == ((), ("/in/x",), {"0" * 24: ("/in/x",)})


def test_outputs_of_other_inputs_are_refused() -> None:
    with pytest.raises(UserError, match="the outputs have no input file in common: the first has '/in/x', the second '/in/y'"):
        plan_join([[commit_of(piece_of("x", 0, 5))], [commit_of(piece_of("y", 0, 5))]], [], "f")


def test_units_are_bounded_and_cover_each_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline_ops.joining.join_plan.UNIT_BYTES", 2000)  # 10 rows of 2 x 100 bytes
    monkeypatch.setattr("pipeline_ops.joining.join_plan.UNIT_PIECES", 4)
    pieces = [piece_of("big", 0, 37), *(piece_of(f"small-{number}", 0, number % 3) for number in range(12))]
    commits = [commit_of(*pieces)]
    units = plan_join([commits, commits], [], "f").units
    assert sorted(rows_of(units)) == sorted(rows_of((unit_of(pieces, (), "f"),)))
    assert all(len(rows_of((unit,))) <= 11 and len(unit.pieces) <= 4 for unit in units)
    assert len({unit.id for unit in units}) == len(units) > 4
    assert [piece.path for unit in units for piece in unit.pieces if piece.last] == [
        piece.path for piece in sorted(pieces, key=lambda piece: piece.path)
    ]


def test_halves_of_a_unit_have_each_row_once() -> None:
    unit = unit_of([piece_of("a", 3, 3), piece_of("b", 0, 5, last=False), piece_of("c", 2, 9)], ("r",), "f")
    parts = halves(unit, "f")
    assert rows_of(tuple(parts)) == rows_of((unit,))
    assert [len(rows_of((part,))) for part in parts] == [6, 6]
    assert all(part.replaces == ("r",) for part in parts)
    assert [piece for part in parts for piece in part.pieces if piece.last] == [unit.pieces[0], piece_of("c", 3, 9)]
    assert halves(unit_of([piece_of("a", 3, 4)], (), "f"), "f") == []


@pytest.mark.parametrize("seed", range(20))
def test_intervals_are_sets_of_rows(seed: int) -> None:
    rng = random.Random(seed)

    def some() -> list[tuple[int, int]]:
        marks = sorted(rng.sample(range(30), 2 * rng.randrange(4)))
        return [*zip(marks[::2], marks[1::2], strict=True), *([(40, END_OF_FILE)] if rng.random() < 0.5 else [])]

    def rows(intervals: list[tuple[int, int]]) -> set[int]:
        return {row for start, stop in intervals for row in range(start, min(stop, 50))}

    left, right = some(), some()
    assert rows(intersection(left, right)) == rows(left) & rows(right)
    assert rows(difference(left, right)) == rows(left) - rows(right)
