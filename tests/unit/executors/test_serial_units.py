"""Units in the threads of one process: which read tasks are done when the process dies."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.attempts import AttemptCounts
from jobs.executors.serial_units import written_units
from pipeline_ops.reading.spans import spans_to_json
from pipeline_ops.stages.classifier import ClassifyActor
from tests.support.corpora import write_jsonl
from tests.support.reading_path import prepare, spans_of
from tests.support.stage_rows import models_of, read_context

WAIT_S = 30


def test_units_that_overtake_a_slow_one_leave_its_task_undone(tmp_path: Path, model: Path) -> None:
    source = tmp_path / "in"
    for name in "abc":
        write_jsonl(source / f"{name}.jsonl", [{"text": name}])
    go_on = threading.Event()

    class Classify(ClassifyActor):
        def load(self) -> list[Any]:
            return []

        def count_flops(self) -> list[Any]:
            return []

        def __call__(self, row: pa.Table) -> pa.Table:
            if "a.jsonl" in json.dumps(row.to_pylist(), default=str):
                assert go_on.wait(WAIT_S)
            return row

    files, settings = prepare(source)
    models = models_of(model, settings.output)
    context = replace(read_context(settings), models=tuple(models))
    work = [spans_to_json(spans_of([file])) for file in files], context, [models[0].tokenizer]
    units = written_units(*work, AttemptCounts(), Classify, threads=2)
    assert [next(units)[0], next(units)[0]] == [0, 0]
    go_on.set()
    assert [number for number, _ in units] == [0]
    one_by_one = written_units(*work, AttemptCounts(), Classify)
    assert [number for number, _ in one_by_one] == [0, 1, 2]
