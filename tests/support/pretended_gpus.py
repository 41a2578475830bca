"""`python -m tests.support.pretended_gpus ...` is `label-corpus ...` with classifiers that take GPUs but compute on a core.

For clusters whose nodes only say that they have GPUs. The job file gives compute.batch_tokens, which a GPU would tell.
"""

import time
from functools import partial
from typing import Any

from jobs import label_corpus
from jobs.run import chain
from pipeline_ops.models.device import probe_models
from pipeline_ops.stages.classifier import ClassifyActor

UNIT_S = 0.5  # that a unit takes at least: a run that is over at once sees no nodes come and go


class CoreClassifyActor(ClassifyActor):
    """The classifier, on a core."""

    def __init__(self, **told: Any):
        super().__init__(**{**told, "use_gpu": False})

    def classify(self, row: Any) -> Any:
        time.sleep(UNIT_S)
        return super().classify(row)


def probe_on_a_core(models: Any, storage: Any, gpus_per_classifier: float) -> dict[str, Any]:
    """As probe_models, where there is no GPU to look at."""
    return probe_models(models, storage, 0)


if __name__ == "__main__":
    from jobs.cli import main
    from tests.support import pretended_gpus  # by its name, for the workers: here it is __main__

    label_corpus.probe_models = pretended_gpus.probe_on_a_core
    label_corpus.label_units = partial(chain.label_units, classify_actor=pretended_gpus.CoreClassifyActor)
    main()
