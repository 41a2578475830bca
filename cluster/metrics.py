"""What a run tells Prometheus, through ray.util.metrics: each node's agent exports what the processes on it have counted.

Ray puts `ray_` before each name, and `WorkerId` and `NodeAddress` beside each tag, so that `run` and `output` add no series. A
process sends what it has counted every ten seconds, and when it ends in an orderly way; one that is killed loses what it has
not sent. The agent keeps the counts of processes that have ended. Without a Ray nothing is counted.

Histograms know their counts; the sums that Ray exports are made of the middles of their buckets. So seconds are counters too.
"""

import functools
import inspect
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

UNIT_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
PASS_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True)
class Metric:
    """A counter, or a histogram of seconds where `boundaries` say how its buckets end."""

    name: str
    description: str
    tags: tuple[str, ...] = ()  # beside those that every metric has
    boundaries: tuple[float, ...] | None = None

    def exported(self) -> list[str]:
        """The names of its series at a node's endpoint."""
        if self.boundaries is None:
            return [f"ray_{self.name}"]
        return [f"ray_{self.name}{part}" for part in ("_bucket", "_count", "_sum")]


EVERYWHERE = ("run", "output")
UNITS = Metric("label_corpus_units_total", "Units that this run has committed.")
DOCUMENTS = Metric("label_corpus_documents_total", "Documents of committed units, labeled or rejected.", ("outcome",))
REJECTS = Metric("label_corpus_rejects_total", "Rejected documents, by why.", ("reason",))
FAILED_UNITS = Metric(
    "label_corpus_failed_units_total", "Units quarantined, by the step that could not finish them.", ("step",)
)
RETRIES = Metric(
    "label_corpus_retries_total",
    "Units (at read: tasks of the reader) that were begun again because the process at work on them had died.",
    ("stage",),
)
TOKENS = Metric(
    "label_corpus_tokens_total",
    "Tokens without padding that went through a model, of units that were labeled.",
    ("model",),
)
PADDING = Metric("label_corpus_padding_tokens_total", "Padding that went through a model beside the tokens.", ("model",))
STAGE_SECONDS = Metric(
    "label_corpus_stage_seconds_total",
    "Seconds of all processes of a stage: working on units, or, actors only, waiting for one.",
    ("stage", "state"),
)
WORK_SECONDS = Metric("label_corpus_stage_work_seconds", "Seconds that a stage works on a unit.", ("stage",), UNIT_SECONDS)
WAIT_SECONDS = Metric(
    "label_corpus_stage_wait_seconds",
    "Seconds that an actor of a stage has waited for a unit, since its last one or since it has loaded what it needs.",
    ("stage",),
    UNIT_SECONDS,
)
CLASSIFIER_SECONDS = Metric(
    "label_corpus_classifier_seconds_total",
    "Seconds of all classifiers for committed units: waiting, copying, computing, writing (the next stage's row).",
    ("part",),
)
BATCH_SECONDS = Metric(
    "label_corpus_batch_seconds",
    "Mean seconds that a model computes for a padded batch of a unit, one value per unit: single passes are not"
    " measured, a GPU would have to be waited for after each.",
    ("model",),
    PASS_SECONDS,
)
DECLARED = (
    *(UNITS, DOCUMENTS, REJECTS, FAILED_UNITS, RETRIES, TOKENS, PADDING),
    *(STAGE_SECONDS, WORK_SECONDS, WAIT_SECONDS, CLASSIFIER_SECONDS, BATCH_SECONDS),
)

_instruments: dict[str, Any] = {}  # Ray's objects, made when a process first counts something


def _instrument(metric: Metric) -> Any:
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    if metric.name not in _instruments:
        from ray.util.metrics import Counter, Histogram

        tags = (*EVERYWHERE, *metric.tags)
        if metric.boundaries is None:
            made = Counter(metric.name, metric.description, tags)
        else:
            made = Histogram(metric.name, metric.description, list(metric.boundaries), tags)
        _instruments[metric.name] = made
    return _instruments[metric.name]


@dataclass(frozen=True)
class Meter:
    """Counts for one run, in whatever process it is sent to.

    Attributes:
        run: the run's id.
        output: the output folder, which names the job.
    """

    run: str
    output: str

    def count(self, metric: Metric, value: float = 1, **tags: str) -> None:
        """Adds to a counter; 0 makes no series."""
        instrument = _instrument(metric)
        if instrument is not None and value > 0:
            instrument.inc(value, self._tags(tags))

    def observe(self, metric: Metric, seconds: float, **tags: str) -> None:
        """Adds a value to a histogram."""
        instrument = _instrument(metric)
        if instrument is not None:
            instrument.observe(seconds, self._tags(tags))

    def worked(self, stage: str, seconds: float) -> None:
        """A stage has spent so long on a unit."""
        self.observe(WORK_SECONDS, seconds, stage=stage)
        self.count(STAGE_SECONDS, seconds, stage=stage, state="working")

    def waited(self, stage: str, seconds: float) -> None:
        """An actor of a stage has waited so long for a unit."""
        self.observe(WAIT_SECONDS, seconds, stage=stage)
        self.count(STAGE_SECONDS, seconds, stage=stage, state="waiting")

    def _tags(self, tags: dict[str, str]) -> dict[str, str]:
        return {"run": self.run, "output": self.output, **tags}


def metered(stage: str, function: Callable[..., Any], meter: Meter, left_out: Callable[[Any], bool]) -> Callable[..., Any]:
    """The same function with the same name, its seconds per row counted; of a generator, those between two rows.

    Args:
        left_out: rows that a stage only passes on (for a generator: those that are no units).
    """
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generate(*arguments: Any, **options: Any) -> Iterator[Any]:
            rows = function(*arguments, **options)
            while True:
                began = time.monotonic()
                row = next(rows, None)
                if row is None:
                    return
                if not left_out(row):
                    meter.worked(stage, time.monotonic() - began)
                yield row

        return generate

    @functools.wraps(function)
    def call(row: Any, **options: Any) -> Any:
        began = time.monotonic()
        done = function(row, **options)
        if not left_out(row):
            meter.worked(stage, time.monotonic() - began)
        return done

    return call


def metered_actor(stage: str, actor: Any, meter: Meter, left_out: Callable[[Any], bool]) -> Any:
    """A subclass of the same name, as which Ray shows its processes, that counts its seconds per row.

    Args:
        left_out: rows that it only passes on.
    """

    class MeteredActor(actor):
        def __init__(self, **told: Any):
            super().__init__(**told)
            self.idle_since = time.monotonic()

        def __call__(self, row: Any) -> Any:
            began = time.monotonic()
            done = super().__call__(row)
            ended = time.monotonic()
            if not left_out(row):
                meter.waited(stage, began - self.idle_since)
                meter.worked(stage, ended - began)
                self.idle_since = ended
            return done

    MeteredActor.__name__ = actor.__name__
    MeteredActor.__qualname__ = actor.__qualname__
    return MeteredActor
