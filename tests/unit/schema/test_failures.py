"""Failures: stored, read back, and cleared when the file changes."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline_ops.output.failed_units import clear_failures, outdated_failures, quarantine, read_failures
from pipeline_ops.schema.errors import StoreError, UserError, names_shown
from pipeline_ops.schema.failures import MAX_TRIES, WORKER_DIED, Failure, failure_of, worker_died
from pipeline_ops.schema.units import END_OF_FILE, Piece
from pipeline_ops.storage.store import Store, StoredFile

PIECES = (Piece("s3://b/ü.jsonl", "v1", 40, END_OF_FILE, True, 900, END_OF_FILE), Piece("s3://b/b.jsonl", "v2", 0, 7, False))


def raised(error: BaseException, *notes: str) -> BaseException:
    """The exception as a handler sees it."""
    for note in notes:
        error.add_note(note)
    try:
        raise error
    except BaseException as caught:
        return caught


def of_file(path: str, start_row: int = 0, identity: str = "v1") -> Failure:
    return failure_of(OSError("broken"), (Piece(path, identity, start_row, END_OF_FILE, True),), "read")


@pytest.mark.parametrize("failure", [failure_of(raised(ValueError("ü\n\ud800")), PIECES, "write"), worker_died(PIECES, "read")])
def test_failure_as_json_comes_back_the_same(failure: Failure) -> None:
    assert Failure.from_json(failure.to_json()) == failure
    assert Failure.from_json(failure.to_json().encode()) == failure


def test_failure_of_an_exception_says_what_where_and_why_in_one_line() -> None:
    failure = failure_of(raised(ValueError("two\nlines"), "while reading a"), PIECES, "read")
    assert (failure.step, failure.error, failure.message) == ("read", "ValueError", "two lines (while reading a)")
    assert failure.where == "s3://b/ü.jsonl from row 40"
    assert failure.pieces == PIECES
    assert "test_failures.py" in failure.traceback
    assert failure_of(KeyError(), PIECES, "read").message


@pytest.mark.parametrize(
    ("error", "store"),
    [(StoreError("slow down"), True), (FileNotFoundError("gone"), False), (OSError("broken"), False), (MemoryError(), False)],
)
def test_failure_distinguishes_the_stores_fault_from_others(error: Exception, store: bool) -> None:
    assert failure_of(error, PIECES, "read").store == store


def test_failure_of_a_dead_worker_says_how_often() -> None:
    failure = worker_died(PIECES, "classify")
    assert (failure.error, failure.step, failure.store) == (WORKER_DIED, "classify", False)
    assert f"died {MAX_TRIES} times" in failure.message


def test_failure_id_is_that_of_the_pieces() -> None:
    """A later failure of the same rows takes the place of the first."""
    first = failure_of(OSError("one"), PIECES, "read")
    assert worker_died(PIECES, "write").id == first.id
    others = [(PIECES[0],), (replace(PIECES[0], identity="v9"),), (replace(PIECES[0], start_row=41),)]
    assert len({first.id, *(failure_of(OSError("one"), pieces, "read").id for pieces in others)}) == 4


def test_failures_that_are_quarantined_are_read_by_file_and_row(tmp_path: Path) -> None:
    failures = [of_file("b"), of_file("a", 9), of_file("a", 10**6), of_file("a")]
    for failure in failures:
        quarantine(Store(str(tmp_path)), failure, "run1")
    found = read_failures(Store(str(tmp_path)))
    assert [(failure.pieces[0].path, failure.pieces[0].start_row) for failure in found] == [
        ("a", 0),
        ("a", 9),
        ("a", 10**6),
        ("b", 0),
    ]
    assert found[-1] == replace(failures[0], run="run1")


def test_failure_quarantined_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    quarantine(Store(str(tmp_path)), of_file("a"), "run1")
    quarantine(Store(str(tmp_path)), of_file("a"), "run2")
    assert [failure.run for failure in read_failures(Store(str(tmp_path)))] == ["run2"]


def test_failures_of_an_output_without_any_are_none(tmp_path: Path) -> None:
    assert read_failures(Store(str(tmp_path))) == []
    assert read_failures(Store(str(tmp_path / "not there"))) == []


def test_failures_that_are_cleared_are_gone_and_the_others_stay(tmp_path: Path) -> None:
    for path in "abc":
        quarantine(Store(str(tmp_path)), of_file(path), "run")
    first, second, third = read_failures(Store(str(tmp_path)))
    clear_failures(Store(str(tmp_path)), [])
    clear_failures(Store(str(tmp_path)), [first, third])
    assert read_failures(Store(str(tmp_path))) == [second]
    clear_failures(Store(str(tmp_path)), [first, second])  # one of them by an earlier run, which then died
    assert read_failures(Store(str(tmp_path))) == []


def test_outdated_failures_are_those_of_files_that_changed_or_went() -> None:
    same, changed, gone = (of_file(path) for path in ("same", "changed", "gone"))
    mixed = failure_of(OSError(), (same.pieces[0], changed.pieces[0]), "classify")
    listed = {"same": StoredFile("same", 1, "v1"), "changed": StoredFile("changed", 1, "v2")}
    assert outdated_failures([same, changed, gone, mixed], listed) == [changed, gone, mixed]


@pytest.mark.parametrize(
    ("error", "first_row", "said"),
    [
        (OSError("the gzip data is damaged"), 0, "a.gz: the gzip data is damaged"),
        (OSError("the gzip data is damaged"), 7, "a.gz from row 7: the gzip data is damaged"),
        (OSError("a.gz: ends too early"), 0, "a.gz: ends too early"),
        (
            UserError("input.text_column: a.gz has no column 'text'"),
            0,
            "a.gz: input.text_column: the file has no column 'text'",
        ),
        (KeyError("text"), 0, "a.gz: KeyError: 'text'"),
    ],
)
def test_failure_in_words_names_the_file_once(error: Exception, first_row: int, said: str) -> None:
    error.add_note("while reading a.gz")
    failure = failure_of(error, (Piece("a.gz", "v1", first_row, END_OF_FILE, True),), "read")
    assert str(failure) == said


def test_names_in_a_message_are_cut_where_they_are_documents() -> None:
    assert names_shown(["id", "x" * 300]) == f"'id', '{'x' * 39}…'"
    assert names_shown([f"c{number}" for number in range(35)]).endswith("'c29' and 5 more")
