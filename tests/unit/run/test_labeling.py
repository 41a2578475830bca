"""Which outcomes of units reach the output, and when; GPUs that a cluster does not offer."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from cluster.resources import Machines
from jobs.executors.executor import Work, ignored
from jobs.label_corpus import run
from jobs.run import labeling
from jobs.run.labeling import defer_failures
from pipeline_ops.schema.errors import StoreError, UserError
from pipeline_ops.schema.failures import MODEL_LOAD_STEP, Failure, failure_of
from pipeline_ops.schema.units import Piece
from pipeline_ops.writing.commit_record import Commit
from tests.support.corpora import write_jsonl
from tests.support.running import make_job
from tests.support.serial_chain import SerialExecutor


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


class Cluster(SerialExecutor):
    """Nodes that were joined without their GPUs."""

    def connected(self, work: Work = Work(), notify: Callable[[str], None] = ignored) -> AbstractContextManager[Machines]:
        return nullcontext(Machines(cpus=4, cores=4, gpus=0))


@pytest.mark.parametrize(("gpus", "setting", "warned"), [(2, "auto", True), (2, "0", False), (0, "auto", False)])
def test_gpus_that_a_cluster_does_not_offer_are_named(
    gpus: int,
    setting: str,
    warned: bool,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(labeling, "installed_gpus", lambda: gpus)
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "a text"}])
    job = make_job(source, model, tmp_path / "out", f"compute.gpus_per_classifier={setting}")
    assert run(job, executor=Cluster(), report=False).labeled == 1
    assert ("a node has 2 GPUs" in capsys.readouterr().err) == warned
