"""Failure: a unit, or the rest of a file, that could not be finished, and why.

Stored as `_failed/<id>.json` it is quarantined: later runs skip its pieces until they are asked to retry, and report them as
missing.
"""

import json
import traceback
from dataclasses import asdict, dataclass
from typing import Protocol

from pipeline_ops.schema.errors import StoreError, UserError, is_store_fault, one_line
from pipeline_ops.schema.units import Piece, short_id

MAX_TRIES = 3  # processes that may die on a unit before it is given up
WORKER_DIED = "WorkerDied"
WRITTEN_FOR_PEOPLE = ("UserError", "OSError", "BrokenStream", "StoreError", WORKER_DIED)
MODEL_LOAD_STEP = "load"  # a failure here is no unit's fault: the run ends


class Attempts(Protocol):
    """A crash counter outside the process, from which the next process learns what work the last one died of."""

    def begin(self, key: str) -> int:
        """Record that work on `key` begins; returns how often it has begun before without ending."""
        ...

    def end(self, key: str) -> None:
        """Record that work on `key` has ended, with success or an exception: the process is alive."""
        ...


@dataclass(frozen=True)
class Failure:
    """Why a unit, or the rest of a file, could not be finished."""

    id: str
    pieces: tuple[Piece, ...]  # stop_row and stop_byte are END_OF_FILE if the end was not reached
    step: str  # read, tokenize, classify, write, or MODEL_LOAD_STEP
    error: str  # the exception's class, or WORKER_DIED
    message: str
    store: bool  # the object store is at fault: the run ends and nothing is quarantined
    traceback: str = ""
    run: str = ""

    @property
    def where(self) -> str:
        """The first file and, unless it is 0, the first row that failed; for messages."""
        first = self.pieces[0]
        return first.path + (f" from row {first.start_row}" if first.start_row else "")

    def __str__(self) -> str:
        """Where and why, for people: the file once, first, and the class only where the message was not written for them."""
        path = self.pieces[0].path
        reason = self.message.removesuffix(f" (while reading {path})").removeprefix(f"{path}: ").replace(path, "the file")
        if self.error not in WRITTEN_FOR_PEOPLE:
            reason = f"{self.error}: {reason}"
        return f"{self.where}: {reason}"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str | bytes) -> "Failure":
        fields = json.loads(text)
        return Failure(**{**fields, "pieces": tuple(Piece(**piece) for piece in fields["pieces"])})


def failure_of(error: BaseException, pieces: tuple[Piece, ...], step: str) -> Failure:
    """The Failure of `pieces` after an exception in `step`."""
    return Failure(
        _failure_id(pieces),
        pieces,
        step,
        type(error).__name__,
        one_line(error),
        is_store_fault(error),
        "".join(traceback.format_exception(error)),
    )


def worker_died(pieces: tuple[Piece, ...], step: str) -> Failure:
    """The Failure of `pieces` after MAX_TRIES processes have died in `step`."""
    message = f"the worker process died {MAX_TRIES} times while it was at work on this (killed, out of memory, or a crash)"
    return Failure(_failure_id(pieces), pieces, step, WORKER_DIED, message, store=False)


def fatal_error_of(failure: Failure) -> Exception | None:
    """The exception that ends the run if no unit is at fault: the store fails or a model cannot be loaded. Otherwise None."""
    if failure.store:
        return StoreError(f"{failure.where}: {failure.message}")
    if failure.step != MODEL_LOAD_STEP:
        return None
    if failure.error == UserError.__name__:
        return UserError(failure.message)
    return RuntimeError(f"the model cannot be loaded: {failure.traceback}")


def _failure_id(pieces: tuple[Piece, ...]) -> str:
    identity = [(piece.path, piece.identity, piece.start_row, piece.stop_row) for piece in pieces]
    return short_id(identity)
