"""Units in the threads of one process: where the next one goes on if it ends."""

import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa

from cluster.attempts import AttemptCounts
from jobs.executors.unit_threads import written_units
from pipeline_ops.reading.spans import spans_to_json
from pipeline_ops.schema.failures import Failure
from pipeline_ops.stages.classifier import ClassifyActor
from tests.support.corpora import write_jsonl
from tests.support.reading_path import prepare, spans_of
from tests.support.stage_rows import models_of, read_context

FILES = 40


def test_process_that_ends_after_any_unit_has_named_a_task_before_all_that_are_missing(tmp_path: Path, model: Path) -> None:
    source = tmp_path / "in"
    for number in range(FILES):
        write_jsonl(source / f"file-{number:02}.jsonl", [{"text": f"text {number}"}])
    waits = Random(1)

    class Classify(ClassifyActor):
        def load(self) -> list[Any]:
            return []

        def count_flops(self) -> list[Any]:
            return []

        def __call__(self, row: pa.Table) -> pa.Table:
            time.sleep(waits.random() / 100)
            return row  # which the write stage cannot write: a failed unit

    files, settings = prepare(source)
    models = models_of(model, settings.output)
    context = replace(read_context(settings), models=tuple(models))
    tasks = [spans_to_json(spans_of([file])) for file in files]
    for threads in (1, 4):
        missing = list(range(FILES))
        for first, row in written_units(tasks, context, [models[0].tokenizer], AttemptCounts(), Classify, threads):
            assert first <= missing[0]
            (piece,) = Failure.from_json(row["failure"]).pieces
            missing.remove([file.path for file in files].index(piece.path))
        assert missing == []
        assert first > FILES - 2 * threads
