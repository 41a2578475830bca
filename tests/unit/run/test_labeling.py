"""Which outcomes of units reach the output, and when."""

from collections.abc import Iterator

import pytest

from jobs.run.labeling import defer_failures
from pipeline_ops.schema.errors import StoreError, UserError
from pipeline_ops.schema.failures import MODEL_LOAD_STEP, Failure, failure_of
from pipeline_ops.schema.units import Piece
from pipeline_ops.writing.commit_record import Commit


def piece(name: str) -> Piece:
    return Piece(name, "v1", 0, 10, True)


def labeled(name: str) -> Commit:
    return Commit(name, "attempt", (piece(name),), (), None, 10, 0, 10, 10, 0, {})


def failed(name: str, error: Exception | None = None, step: str = "read") -> Failure:
    return failure_of(error or ValueError("broken"), (piece(name),), step)


def names(finished: Iterator[Commit | Failure]) -> list[str]:
    return [done.pieces[0].path for done in finished]


def test_failures_wait_for_the_first_label() -> None:
    finished = [failed("a"), failed("b"), labeled("c"), failed("d"), labeled("e")]
    assert names(defer_failures(finished, 100)) == ["c", "a", "b", "d", "e"]
    assert names(defer_failures([failed("a"), failed("b")], 100)) == ["a", "b"], "or for the end"


def test_failures_that_are_too_many_do_not_wait() -> None:
    def endless() -> Iterator[Failure]:
        number = 0
        while True:
            yield failed(f"{number}")
            number += 1

    first = defer_failures(endless(), 3)
    assert sorted(next(first).pieces[0].path for _ in range(5)) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (failed("b", UserError("model.path: no head"), MODEL_LOAD_STEP), UserError),
        (failed("b", ImportError("a library of the model's"), MODEL_LOAD_STEP), RuntimeError),
        (failed("b", StoreError("down")), StoreError),
    ],
)
def test_failure_that_is_no_units_fault_ends_the_run_before_anything_is_put(failure: Failure, error: type[Exception]) -> None:
    finished = defer_failures([failed("a"), failure, labeled("c")], 100)
    with pytest.raises(error):
        next(finished)
