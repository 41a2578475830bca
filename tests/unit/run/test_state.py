"""The JSON line's rates and shares, from commits and the times at which they came."""

from types import SimpleNamespace
from unittest import mock

import pytest

from cluster.resources import Pools
from jobs.run.result import RunResult
from jobs.run.state import Event, Notice, RunState, result_of
from pipeline_ops.schema.failures import failure_of
from pipeline_ops.schema.units import Piece
from pipeline_ops.writing.commit_record import ClassifySeconds, Commit

NOW = 1000.0  # by the run's clock


def commit_of(unit: str, flops: float | None = 40e12, seconds: ClassifySeconds = ClassifySeconds()) -> Commit:
    piece = Piece(unit, "v1", 0, 10, True)
    return Commit(unit, "0" * 12, (piece,), (), None, 10, 0, 80, 100, 0, {"A": 10}, classify_seconds=seconds, flops=flops)


def run_of(*commits: Commit, device: str | None = "NVIDIA A100-SXM4-40GB", share: float = 1.0) -> RunState:
    """Ten seconds of start, then four of labeling, then one."""
    state = RunState(run="run", output="out", files=2, started=NOW - 15)
    state.begin_labeling(Pools(1, 2, share, None, {}, 1, 2), device, ["bfloat16"])
    for commit in commits:
        state.add(commit)
    state.labeling_started, state.last_commit = NOW - 5, NOW - 1
    return state


def summary_of(*commits: Commit, device: str | None = "NVIDIA A100-SXM4-40GB", share: float = 1.0) -> RunResult:
    state = run_of(*commits, device=device, share=share)
    with mock.patch("jobs.run.state.time", SimpleNamespace(monotonic=lambda: NOW)):
        return result_of(state, {commit.unit: commit for commit in commits}, 0)


def test_summary_of_a_run_says_how_well_the_gpus_were_used() -> None:
    seconds = ClassifySeconds(waiting=9, copying=0.25, computing=0.5, writing=0.25)
    summary = summary_of(commit_of("a", seconds=seconds), commit_of("b", seconds=seconds))
    assert summary.mfu == pytest.approx(4 / 312, abs=1e-4), "80 TFLOP in 20 seconds, those of waiting too"
    assert summary.model_flops_per_second == pytest.approx(80e12 / 4)
    assert summary.classify_seconds == {"waiting": 18, "copying": 0.5, "computing": 1, "writing": 0.5}
    assert (summary.startup_seconds, summary.labeling_seconds) == (10, 4)
    assert summary.finish_seconds == 1
    assert (summary.tokens_per_second, summary.documents_per_second) == pytest.approx((160 / 15, 20 / 15), abs=0.1)
    assert (summary.padding_share, summary.classifiers) == (0.2, 2)
    assert (summary.labeling_documents_per_second, summary.labeling_tokens_per_second) == (5, 40)


def test_summary_of_classifiers_that_share_a_gpu_compares_each_with_its_share() -> None:
    seconds = ClassifySeconds(computing=1)
    assert summary_of(commit_of("a", seconds=seconds), share=0.5).mfu == pytest.approx(80 / 312, abs=1e-4)


@pytest.mark.parametrize(
    ("commits", "device"),
    [
        ([commit_of("a", flops=None), commit_of("b", seconds=ClassifySeconds(computing=1))], "NVIDIA A100-SXM4-40GB"),
        ([commit_of("a", seconds=ClassifySeconds(computing=1))], None),
        ([commit_of("a", seconds=ClassifySeconds(computing=1))], "Some GPU"),
    ],
)
def test_summary_without_flops_or_peak_makes_up_no_utilization(commits: list[Commit], device: str | None) -> None:
    summary = summary_of(*commits, device=device)
    assert summary.mfu is None
    assert (summary.model_flops_per_second is None) == (commits[0].flops is None)


def test_summary_of_a_run_with_nothing_to_do_has_no_times_of_labeling() -> None:
    summary = result_of(RunState(run="run", output="out", files=2, units_skipped=3), {}, 0)
    assert (summary.units_skipped, summary.classifiers, summary.tokens_per_second) == (3, 0, 0)
    assert summary.labeling_documents_per_second is None
    for key in ("startup_seconds", "labeling_seconds", "finish_seconds", "model_flops_per_second", "mfu"):
        assert getattr(summary, key) is None
    assert set(summary.classify_seconds.values()) == {0}


def test_observers_see_each_event_once_after_it_is_counted() -> None:
    state = RunState(run="run", output="out", files=1, units_planned=2)
    seen: list[tuple[Event, int, int]] = []
    state.observers.append(lambda event: seen.append((event, state.units, state.failed_units)))
    commit, failure = commit_of("a"), failure_of(ValueError("broken"), commit_of("b").pieces, "read")
    state.notify("a notice")
    state.add(commit)
    state.add(failure)
    assert seen == [(Notice("a notice"), 0, 0), (commit, 1, 0), (failure, 1, 1)]
    assert (state.documents, state.tokens, state.padded_tokens, state.labels["A"]) == (10, 80, 100, 10)


def test_quarantined_units_of_earlier_runs_are_not_this_runs_failures() -> None:
    earlier = failure_of(ValueError("broken"), commit_of("b").pieces, "read")
    state = RunState(run="run", output="out", files=1, quarantined=[earlier], quarantined_before=1)
    assert state.failed_units == 0
    state.add(failure_of(ValueError("broken"), commit_of("c").pieces, "read"))
    assert (state.failed_units, result_of(state, {}, 0).units_failed) == (1, 2)


def test_progress_knows_that_the_last_units_are_small() -> None:
    state = RunState(run="run", output="out", files=1, units_planned=2)
    state.begin_labeling(Pools(1, 2, 0, None, {}, 1, 2), None, ["float32"], [0.4, 0.8, 0.9, 1.0])
    shares = []
    for name in "abcde":
        state.add(commit_of(name))
        shares.append(state.committed.share)
    assert shares == pytest.approx([0.4, 0.8, 0.9, 1.0, 1.0])
