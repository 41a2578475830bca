"""Prometheus metrics of a run, through ray.util.metrics: each node's agent exports the counts of its processes.

Ray prefixes each name with `ray_` and adds the tags `WorkerId` and `NodeAddress`, so that `run` and `output` add no series. A
process exports its counts every ten seconds and at an orderly exit; a killed process loses those since its last export. The
agent keeps the counts of ended processes. Without a Ray session nothing is counted.

Seconds are counters as well as histograms: the sums of histograms that Ray exports are estimated from the middles of buckets.
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
    """A counter, or a histogram of seconds if it has `boundaries`, the upper ends of its buckets."""

    name: str
    description: str
    tags: tuple[str, ...] = ()  # besides those of every metric
    boundaries: tuple[float, ...] | None = None

    def exported(self) -> list[str]:
        """The names of its series at a node's metrics endpoint."""
        if self.boundaries is None:
            return [f"ray_{self.name}"]
        return [f"ray_{self.name}{part}" for part in ("_bucket", "_count", "_sum")]


EVERYWHERE = ("run", "output")
UNITS = Metric("label_corpus_units_total", "Units committed by this run.")
DOCUMENTS = Metric("label_corpus_documents_total", "Documents of committed units, labeled or rejected.", ("outcome",))
REJECTS = Metric("label_corpus_rejects_total", "Rejected documents, by reason.", ("reason",))
FAILED_UNITS = Metric("label_corpus_failed_units_total", "Units quarantined, by the step that failed.", ("step",))
RETRIES = Metric(
    "label_corpus_retries_total",
    "Units (at read: read tasks) that were retried because the process working on them had died.",
    ("stage",),
)
TOKENS = Metric(
    "label_corpus_tokens_total",
    "Tokens without padding that went through a model, for labeled units.",
    ("model",),
)
PADDING = Metric("label_corpus_padding_tokens_total", "Padding tokens that went through a model.", ("model",))
STAGE_SECONDS = Metric(
    "label_corpus_stage_seconds_total",
    "Seconds of all processes of a stage: working on units, or (actors) waiting for one.",
    ("stage", "state"),
)
WORK_SECONDS = Metric("label_corpus_stage_work_seconds", "Seconds that a stage takes for a unit.", ("stage",), UNIT_SECONDS)
WAIT_SECONDS = Metric(
    "label_corpus_stage_wait_seconds",
    "Seconds that an actor of a stage waited for a unit, since its last one or since its start.",
    ("stage",),
    UNIT_SECONDS,
)
CLASSIFIER_SECONDS = Metric(
    "label_corpus_classifier_seconds_total",
    "Seconds of all classifiers for committed units: waiting, copying, computing (pauses between kernels included), writing.",
    ("part",),
)
BATCH_SECONDS = Metric(
    "label_corpus_batch_seconds",
    "Mean seconds of a forward pass, one value per unit: timing single passes would synchronize the GPU after each.",
    ("model",),
    PASS_SECONDS,
)
DECLARED = (
    *(UNITS, DOCUMENTS, REJECTS, FAILED_UNITS, RETRIES, TOKENS, PADDING),
    *(STAGE_SECONDS, WORK_SECONDS, WAIT_SECONDS, CLASSIFIER_SECONDS, BATCH_SECONDS),
)

_instruments: dict[str, Any] = {}  # Ray's objects, created at first use in each process


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
    """Updates the metrics of one run, from any process.

    Attributes:
        run: the run's id.
        output: the output folder, which identifies the job.
    """

    run: str
    output: str

    def count(self, metric: Metric, value: float = 1, **tags: str) -> None:
        """Adds to a counter; 0 creates no series."""
        instrument = _instrument(metric)
        if instrument is not None and value > 0:
            instrument.inc(value, self._tags(tags))

    def observe(self, metric: Metric, seconds: float, **tags: str) -> None:
        """Adds a value to a histogram."""
        instrument = _instrument(metric)
        if instrument is not None:
            instrument.observe(seconds, self._tags(tags))

    def worked(self, stage: str, seconds: float) -> None:
        """Records the seconds that a stage has spent on a unit."""
        self.observe(WORK_SECONDS, seconds, stage=stage)
        self.count(STAGE_SECONDS, seconds, stage=stage, state="working")

    def waited(self, stage: str, seconds: float) -> None:
        """Records the seconds that an actor of a stage has waited for a unit."""
        self.observe(WAIT_SECONDS, seconds, stage=stage)
        self.count(STAGE_SECONDS, seconds, stage=stage, state="waiting")

    def _tags(self, tags: dict[str, str]) -> dict[str, str]:
        return {"run": self.run, "output": self.output, **tags}


def metered(stage: str, function: Callable[..., Any], meter: Meter, excluded: Callable[[Any], bool]) -> Callable[..., Any]:
    """`function`, under its name, with its seconds per row recorded; those of a generator from row to row.

    Args:
        excluded: true for rows that are not recorded: those that a stage only passes on, or a generator's failed ones.
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
                if not excluded(row):
                    meter.worked(stage, time.monotonic() - began)
                yield row

        return generate

    @functools.wraps(function)
    def call(row: Any, **options: Any) -> Any:
        began = time.monotonic()
        done = function(row, **options)
        if not excluded(row):
            meter.worked(stage, time.monotonic() - began)
        return done

    return call


def metered_actor(stage: str, actor: Any, meter: Meter, excluded: Callable[[Any], bool]) -> Any:
    """A subclass of `actor` that records its seconds per row, under the same name, which Ray shows for its processes.

    Args:
        excluded: true for rows that are not recorded: those that it only passes on.
    """

    class MeteredActor(actor):
        def __init__(self, **arguments: Any):
            super().__init__(**arguments)
            self.idle_since = time.monotonic()

        def __call__(self, row: Any) -> Any:
            began = time.monotonic()
            done = super().__call__(row)
            ended = time.monotonic()
            if not excluded(row):
                meter.waited(stage, began - self.idle_since)
                meter.worked(stage, ended - began)
                self.idle_since = ended
            return done

    MeteredActor.__name__ = actor.__name__
    MeteredActor.__qualname__ = actor.__qualname__
    return MeteredActor
