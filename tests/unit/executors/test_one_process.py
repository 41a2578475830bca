"""One process for all stages: what it is shown to do, and that nobody waits for it without need."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.attempts import AttemptCounts, StageActivity
from cluster.resources import ComputeConfig
from jobs.executors.one_process import OneProcessExecutor
from jobs.executors.unit_threads import WrittenUnit, watched_units
from pipeline_ops.schema.output_columns import OutputConfig
from tests.support.stage_rows import context_of


def test_process_that_classifies_is_not_shown_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[StageActivity] = []

    def looked_at() -> dict[str, int]:
        """The busy stages of the next two looks; the first one may have begun before this call."""
        looks = len(shown)
        while len(shown) < looks + 2:
            time.sleep(0.001)
        return {stage: count for stage, count in shown[-1].busy.items() if count}

    def units(tasks: Any, context: Any, tokenizers: Any, attempts: AttemptCounts, threads: int) -> Iterator[WrittenUnit]:
        attempts.begin("task a")
        assert looked_at() == {"read": 1}
        attempts.begin("classify unit")
        assert looked_at() == {"classify": 1}, "reading goes on when the unit is written"
        attempts.end("classify unit")
        assert looked_at() == {"read": 1}
        yield 0, {}

    monkeypatch.setattr("jobs.executors.unit_threads.POLL_S", 0.005)
    monkeypatch.setattr("jobs.executors.unit_threads.written_units", units)
    context = context_of([], OutputConfig(path="out"))
    assert list(watched_units([], context, [], 1, shown.append)) == [(0, {})]


def test_no_calls_need_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.executors.one_process.MODULES", ())
    executor = OneProcessExecutor(ComputeConfig())
    executor.close()
    assert list(executor.run_tasks(len, [])) == []
