"""`python -m tests.support.watched_modules ...` is `label-corpus ...` whose stages write down the modules of their processes.

Beside the output, in `modules/STAGE`, as a JSON list. It imports no more than the stages do.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MODULES = "modules"


def watched_read(task: Any, context: Any, attempts: Any) -> Iterator[Any]:
    from pipeline_ops.stages.reader import read_task

    yield from read_task(task, context, attempts)
    _write_down("read", context)


def watched_write(row: Any, context: Any, attempts: Any) -> Any:
    from pipeline_ops.stages.writer import write_task

    written = write_task(row, context, attempts)
    _write_down("write", context)
    return written


def watched(stage: str, actor: Any) -> Any:
    """The stage's actor, which writes down the modules after each unit."""

    class WatchedActor(actor):
        def __call__(self, row: Any) -> Any:
            done = super().__call__(row)
            _write_down(stage, self.context)
            return done

    return WatchedActor


def _write_down(stage: str, context: Any) -> None:
    folder = Path(context.output.path).parent / MODULES
    folder.mkdir(exist_ok=True)
    (folder / stage).write_text(json.dumps(sorted(sys.modules)))


if __name__ == "__main__":
    from functools import partial

    from jobs import label_corpus
    from jobs.cli import main
    from jobs.executors.ray_executor import RayExecutor
    from pipeline_ops.stages.classifier import ClassifyActor
    from pipeline_ops.stages.tokenizer import TokenizeActor
    from tests.support import watched_modules as here  # by its name, for the workers: here it is __main__

    stages = RayExecutor(
        here.watched_read, here.watched("tokenize", TokenizeActor), here.watched("classify", ClassifyActor), here.watched_write
    )
    label_corpus.run = partial(label_corpus.run, executor=stages)
    main()
