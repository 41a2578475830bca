"""Writes the record of a run under `_runs/` while it goes (output/run_records.py): for `status`, and for the report."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from jobs.run.prepare import Prepared
from jobs.run.state import Event, Notice, RunState
from pipeline_ops.output.run_records import COMPLETE, INCOMPLETE, INTERRUPTED, Point, RunRecord, last_outcome, write_run
from pipeline_ops.schema.errors import is_store_fault
from pipeline_ops.schema.units import iso

RECORD_SECONDS = 20  # between two puts of the record
POINT_SECONDS = 2  # between two points of the timeline, until it has many
NOT_RECORDED = ("report", "report_error", "report_seconds", "timings")  # of a result: not known yet, or in the record itself


@contextmanager
def recorded(state: RunState, prepared: Prepared, term: int) -> Iterator[None]:
    """Records the run while the block runs, and how the block ends, with `state.result` where it ends well.

    Nothing is put before the first unit is committed or quarantined. A run that labels nothing leaves no record, unless it ends
    otherwise than the one before: status goes by the last record.

    Args:
        term: of the run's lease.
    """
    recorder = _Recorder(state, prepared, term)
    state.observers.append(recorder.observe)
    try:
        yield
        result = state.result
        assert result is not None, "the block has set it"
        recorder.record.result = {name: value for name, value in result.to_dict().items() if name not in NOT_RECORDED}
        recorder.end(COMPLETE if result.complete else INCOMPLETE)
    except Exception as error:
        if not is_store_fault(error):  # a store that fails is not asked again
            recorder.end("failed", f"{type(error).__name__}: {' '.join(str(error).split())}")
        raise
    except BaseException:
        recorder.end(INTERRUPTED)
        raise


class _Recorder:
    """The record of a run that goes on, and when it was put last."""

    def __init__(self, state: RunState, prepared: Prepared, term: int):
        self.state = state
        self.store = prepared.job.output_store
        before = prepared.ledger.current.values()
        began = iso(datetime.fromtimestamp(time.time() - (time.monotonic() - state.started), UTC))
        self.record = RunRecord(
            run=state.run,
            term=term,
            started=began,
            written=began,
            host=socket.gethostname(),
            units_planned=state.units_planned,
            documents_before=sum(commit.documents for commit in before),
            units_before=sum(bool(commit.pieces) for commit in before),
        )
        self.put_at: float | None = None
        self.point_at = 0.0

    def observe(self, event: Event) -> None:
        if isinstance(event, Notice):
            return
        now = time.monotonic()
        if self.record.labeling_from is None and self.state.labeling_started is not None:
            self.record.labeling_from = round(self.state.labeling_started - self.state.started, 2)
            self.record.add_point(Point(self.record.labeling_from, 0, 0, 0))
        if now - self.point_at >= POINT_SECONDS:
            self._add_point(now)
        if self.put_at is None or now - self.put_at >= RECORD_SECONDS:
            self._put()

    def end(self, outcome: str, message: str | None = None) -> None:
        if not self.state.units and not self.state.failed_units:
            says_more = outcome in (COMPLETE, INCOMPLETE) and last_outcome(self.store) not in (None, outcome)
            if not says_more:
                return
        self._add_point(time.monotonic())
        self.record.outcome, self.record.message, self.record.ended = outcome, message, iso(datetime.now(UTC))
        self._put()

    def _add_point(self, now: float) -> None:
        state = self.state
        self.record.add_point(Point(now - state.started, state.documents, state.tokens, state.units))
        self.point_at = now

    def _put(self) -> None:
        record, state = self.record, self.state
        record.device, record.dtypes = state.device, list(state.dtypes)
        record.classifiers = state.pools.classifiers if state.pools else 0
        record.documents, record.tokens, record.rejected = state.documents, state.tokens, state.rejected
        record.units, record.units_failed = state.units, state.failed_units
        record.timings = state.timings.to_dict()
        rates = state.rates()
        record.labeling_documents_per_second = None if rates is None else round(rates[0], 1)
        expected = state.committed.documents_expected
        record.documents_expected = None if expected is None else round(expected)
        write_run(self.store, record)
        self.put_at = time.monotonic()
