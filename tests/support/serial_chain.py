"""The chain without Ray: the same stages with the same rows, one unit after the other, in the tests' process.

For tests of what is read, labeled, committed and swept, which Ray's processes would make twenty times as long. What Ray makes
of the chain is what the tests that ask for `ray_address` are about.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import pyarrow as pa
import pytest

from cluster.attempts import StageActivity
from cluster.metrics import Meter
from cluster.resources import Machines, Pools
from jobs import label_corpus
from jobs.run import chain
from jobs.run import commit_writer as committing
from jobs.run.prepare import Prepared
from pipeline_ops.schema.failures import Failure
from pipeline_ops.stages.classifier import ClassifyActor
from pipeline_ops.stages.reader import read_task
from pipeline_ops.stages.tokenizer import TokenizeActor
from pipeline_ops.stages.writer import write_row
from pipeline_ops.writing.commit_record import Commit


class NoDeaths:
    """As many attempts as there are begun: what dies here takes the test with it."""

    def begin(self, key: str) -> int:
        return 0

    def end(self, key: str) -> None:
        pass


def label_serially(
    prepared: Prepared,
    pools: Pools,
    probed: dict[str, Any],
    meter: Meter,
    tell: Callable[[StageActivity], None] | None = None,
) -> Generator[Commit | Failure, None, None]:
    """As chain.label_units."""
    stages = chain.stages_of(prepared, pools, probed, NoDeaths())
    tokenize, classify = TokenizeActor(**stages.tokenize), ClassifyActor(**stages.classify)
    for task in stages.tasks:
        for row in read_task(pa.Table.from_pylist([task]), **stages.read):
            yield chain.decode_outcome(write_row(classify(tokenize(row)), **stages.write).to_pylist()[0])


def run_serially(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
    """As streaming.run_tasks."""
    return ((number, function(*arguments)) for number, arguments in enumerate(calls))


def use_serial_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    machines = Machines(cpus=4, cores=2, gpus=0, here=True)
    monkeypatch.setattr(label_corpus, "connected", lambda: nullcontext(machines))
    monkeypatch.setattr(label_corpus, "label_units", label_serially)
    monkeypatch.setattr(committing, "run_tasks", run_serially)
