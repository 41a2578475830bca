"""What a run writes down about itself while it goes, as `_runs/…` (pipeline_ops/runs.py): for `status`, and for the report."""

import socket
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from jobs.run.prepare import Prepared
from jobs.run.result import RunResult, Timeline
from pipeline_ops.output.run_records import Point, RunRecord, write_run
from pipeline_ops.schema.errors import is_store_fault
from pipeline_ops.schema.units import iso
from pipeline_ops.writing.commit_record import Commit

RECORD_SECONDS = 20  # between two puts of the record
POINT_SECONDS = 2  # between two points of the timeline, until it has many
OF_THE_OUTPUT = ("labels", "failed", "report", "report_error", "report_seconds")  # of a result: not known yet, or long


class Recording:
    """Keeps a run's record. Nothing is put before `begin`: a run that labels nothing leaves none."""

    def __init__(self, run: str, term: int, prepared: Prepared, timeline: Timeline):
        self.output, self.storage, self.timeline = prepared.job.output.path, prepared.job.storage, timeline
        before = prepared.ledger.current.values()
        began = datetime.fromtimestamp(time.time() - (time.monotonic() - timeline.started), UTC)
        self.record = RunRecord(
            run=run,
            term=term,
            started=iso(began),
            written=iso(began),
            host=socket.gethostname(),
            units_planned=prepared.plan.num_units,
            documents_before=sum(commit.documents for commit in before),
            units_before=sum(bool(commit.pieces) for commit in before),
        )
        self.begun = False
        self.put_at = self.point_at = 0.0

    def begin(self, device: str | None, dtypes: Sequence[str], classifiers: int) -> None:
        """The first unit is labeled."""
        record = self.record
        record.device, record.dtypes, record.classifiers = device, list(dtypes), classifiers
        if self.timeline.labeling is not None:
            record.labeling_from = round(self.timeline.labeling - self.timeline.started, 2)
            record.add_point(Point(record.labeling_from, 0, 0, 0))
        self.begun = True
        self._put()

    def add(self, commit: Commit) -> None:
        """A unit is committed."""
        self.timeline.add(commit)
        record, now = self.record, time.monotonic()
        record.documents += commit.documents
        record.tokens += commit.tokens
        record.rejected += commit.rejected
        record.units += 1
        if now - self.point_at >= POINT_SECONDS:
            self._point(now)
        if now - self.put_at >= RECORD_SECONDS:
            self._put()

    def quarantine(self) -> None:
        """A unit has failed."""
        self.record.units_failed += 1

    def end(self, result: RunResult) -> None:
        """The run has come to its end."""
        told = {name: value for name, value in result.to_dict().items() if name not in OF_THE_OUTPUT}
        self.record.result = told
        self._end("complete" if result.complete else "incomplete")

    def end_by(self, error: BaseException) -> None:
        """The run ends by an exception, which the caller raises again. Nothing is asked of a store that has failed."""
        if isinstance(error, Exception):
            if not is_store_fault(error):
                self._end("failed", f"{type(error).__name__}: {' '.join(str(error).split())}")
        else:
            self._end("interrupted")

    def _end(self, outcome: str, message: str | None = None) -> None:
        if not self.begun:
            return
        self._point(time.monotonic())
        self.record.outcome, self.record.message, self.record.ended = outcome, message, iso(datetime.now(UTC))
        self._put()

    def _point(self, now: float) -> None:
        record = self.record
        record.add_point(Point(now - self.timeline.started, record.documents, record.tokens, record.units))
        self.point_at = now

    def _put(self) -> None:
        write_run(self.record, self.output, self.storage)
        self.put_at = time.monotonic()
