"""Units that could not be finished: what each was, why, and that later runs leave it alone until they are told to try again.

`_failed/<id>.json` holds one. Its pieces count as done when a run is planned, and as missing when the run ends.
"""

import hashlib
import json
import traceback
from dataclasses import asdict, dataclass

from pipeline_ops.schema.errors import StoreError, UserError, is_store_fault
from pipeline_ops.schema.units import Piece

MAX_TRIES = 3  # of a unit whose worker process died while it was at work on it
WORKER_DIED = "WorkerDied"
MODEL_LOAD_STEP = "load"  # the step that is no unit's fault: the model cannot be loaded, and the run ends


@dataclass(frozen=True)
class Failure:
    """Why a unit, or the rest of a file, could not be finished."""

    id: str
    pieces: tuple[Piece, ...]  # what is quarantined; stop_row and stop_byte are END_OF_FILE where the end was not reached
    step: str  # read, tokenize, classify, write, or MODEL_LOAD_STEP
    error: str  # the exception's class, or WORKER_DIED
    message: str
    store: bool  # the object store is at fault: the run ends, and nothing is quarantined
    traceback: str = ""
    run: str = ""

    @property
    def where(self) -> str:
        """The first file, and the row that the failed part begins at."""
        first = self.pieces[0]
        return first.path + (f" from row {first.start_row}" if first.start_row else "")

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str | bytes) -> "Failure":
        fields = json.loads(text)
        return Failure(**{**fields, "pieces": tuple(Piece(**piece) for piece in fields["pieces"])})


def failure_of(error: BaseException, pieces: tuple[Piece, ...], step: str) -> Failure:
    """What an exception in `step` means for the rows in `pieces`."""
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return Failure(
        _failure_id(pieces),
        pieces,
        step,
        type(error).__name__,
        f"{' '.join(str(error).split()) or 'no reason given'}{notes}",
        is_store_fault(error),
        "".join(traceback.format_exception(error)),
    )


def worker_died(pieces: tuple[Piece, ...], step: str) -> Failure:
    """What it means that the process died each time that `step` was at work on the rows in `pieces`."""
    message = f"the worker process died {MAX_TRIES} times while it was at work on this (killed, out of memory, or a crash)"
    return Failure(_failure_id(pieces), pieces, step, WORKER_DIED, message, store=False)


def fatal_error_of(failure: Failure) -> Exception | None:
    """What ends the run, where a failure is no unit's fault: the store's, or that of a model that cannot be loaded."""
    if failure.store:
        return StoreError(f"{failure.where}: {failure.message}")
    if failure.step != MODEL_LOAD_STEP:
        return None
    if failure.error == UserError.__name__:
        return UserError(failure.message)
    return RuntimeError(f"the model cannot be loaded: {failure.traceback}")


def _failure_id(pieces: tuple[Piece, ...]) -> str:
    identity = [(piece.path, piece.identity, piece.start_row, piece.stop_row) for piece in pieces]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]
