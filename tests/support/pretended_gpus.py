"""`python -m tests.support.pretended_gpus ...` is `label-corpus ...` with classifiers that take GPUs but compute on a core.

For clusters whose nodes only claim to have GPUs. The job file gives compute.batch_tokens, which otherwise follows from the GPU.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from jobs import label_corpus
from jobs.executors.ray_executor import RayExecutor
from pipeline_ops.loading.device import probe_models
from pipeline_ops.stages.classifier import ClassifyActor, ProgressAttempts
from pipeline_ops.stages.context import StageContext

UNIT_S = 0.5  # that a unit takes at least: a run that is over at once sees no nodes come and go


class CoreClassifyActor(ClassifyActor):
    """The classifier, on a core."""

    def __init__(self, context: StageContext, attempts: ProgressAttempts):
        super().__init__(replace(context, use_gpu=False), attempts)

    def classify(self, row: Any) -> Any:
        time.sleep(UNIT_S)
        return super().classify(row)


def probe_on_a_core(models: Any, storage: Any, gpus_per_classifier: float) -> dict[str, Any]:
    """As probe_models, where there is no GPU to look at."""
    return probe_models(models, storage, 0)


@dataclass(frozen=True)
class CoreExecutor(RayExecutor):
    """Ray, with the model probed and run on a core."""

    classify_actor: type[ClassifyActor] = CoreClassifyActor

    def run_tasks(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], **needs: Any
    ) -> Iterator[tuple[int, Any]]:
        return super().run_tasks(probe_on_a_core if function is probe_models else function, calls, **needs)


if __name__ == "__main__":
    from jobs.cli import main
    from tests.support import pretended_gpus  # by its name, for the workers: here it is __main__

    label_corpus.run = partial(label_corpus.run, executor=pretended_gpus.CoreExecutor())
    main()
