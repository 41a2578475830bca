"""Run records under `_runs/`: start, progress, speed and outcome of each run, one object per run, replaced while it runs.

They are for status and reports only; what is labeled is decided by the commits. A run that labels nothing leaves no record,
unless it ends otherwise than the one before.
"""

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipeline_ops.schema.units import iso
from pipeline_ops.storage.store import Store

RUNS_FOLDER = "_runs"
TIMELINE_POINTS = 240  # of a run; at twice as many, every second one is dropped
RUNNING = "running"
COMPLETE = "complete"  # every document of the input is labeled, or rejected for a reason that is accepted
INCOMPLETE = "incomplete"
INTERRUPTED = "interrupted"  # by Ctrl-C or SIGTERM


@dataclass(frozen=True)
class Point:
    """Progress of a run: seconds since its start, and what it had committed by then."""

    seconds: float
    documents: int
    tokens: int
    units: int


@dataclass
class RunRecord:
    """One run. Times are ISO 8601, UTC."""

    run: str
    term: int  # of its lease: later runs have higher ones, whatever their clocks say
    started: str
    written: str  # when this record was put
    host: str
    units_planned: int  # an estimate: line formats are cut into units while they are read
    documents_before: int  # in the output when it began
    units_before: int
    documents_expected: int | None = None  # of the input when all is labeled, estimated; None: not known yet
    outcome: str = RUNNING  # then complete, incomplete, interrupted or failed
    message: str | None = None  # why it failed
    ended: str | None = None
    device: str | None = None  # the GPU; None: CPUs
    dtypes: list[str] = field(default_factory=list)
    classifiers: int = 0
    labeling_from: float | None = None  # seconds from its start until the first classifier began to label
    labeling_documents_per_second: float | None = None  # since the first classifier began, with its work in progress
    documents: int = 0
    units: int = 0
    tokens: int = 0
    rejected: int = 0
    units_failed: int = 0
    timeline: list[list[float]] = field(default_factory=list)  # of Points
    timings: dict[str, Any] | None = None  # until the record was put: see jobs.timings; None: of an earlier version
    result: dict[str, Any] | None = None  # its JSON line, without what is said of the report

    @property
    def name(self) -> str:
        return f"{self.term:010}-{self.run}.json"

    def points(self) -> list[Point]:
        return [Point(seconds, int(documents), int(tokens), int(units)) for seconds, documents, tokens, units in self.timeline]

    def add_point(self, point: Point) -> None:
        self.timeline.append([round(point.seconds, 2), point.documents, point.tokens, point.units])
        if len(self.timeline) >= 2 * TIMELINE_POINTS:
            self.timeline[:] = self.timeline[1::2]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str | bytes) -> "RunRecord":
        return RunRecord(**json.loads(text))


def write_run(store: Store, record: RunRecord) -> None:
    """Puts a run's record, replacing the earlier one."""
    record.written = iso(datetime.now(UTC))
    store.put(f"{RUNS_FOLDER}/{record.name}", record.to_json().encode())


def last_outcome(store: Store) -> str | None:
    """The outcome that the newest run has recorded; None without a record. Raises what read_runs raises."""
    runs = read_runs(store, newest=1)
    return runs[0].outcome if runs else None


def read_runs(store: Store, newest: int) -> list[RunRecord]:
    """The newest runs' records, oldest first.

    Raises:
        OSError: the store cannot be read, or a record is malformed.
    """
    files = [file for file in store.list_all(RUNS_FOLDER) if file.path.endswith(".json")][-newest:]
    records = []
    for file, content in zip(files, store.read_files(files), strict=True):
        try:
            records.append(RunRecord.from_json(content))
        except (ValueError, TypeError) as error:
            raise OSError(f"{file.path} is no run record: {error}") from error
    return records
