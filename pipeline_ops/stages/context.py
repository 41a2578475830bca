"""StageContext: what the stages of a run have in common."""

from dataclasses import dataclass
from typing import Any

from pipeline_ops.models.config import JobModel
from pipeline_ops.reading.spans import ReadSettings


@dataclass(frozen=True)
class StageContext(ReadSettings):
    """What a run's stages depend on besides the unit in their row; one object, sent to every stage.

    Attributes:
        models: resolved, without their tokenizers: megabytes, which TokenizeActor alone takes.
        batch_tokens: padded tokens per batch, at most.
        use_gpu: models run on the GPU that the process has been given, else on one core; without Ray on up to four.
    """

    models: tuple[JobModel, ...]
    batch_tokens: int
    use_gpu: bool

    def file_metadata(self) -> dict[str, Any]:
        """What each Parquet file records about its labels; with several models, by their names under `models`."""
        models = {model.name: {**model.facts.to_dict(), "dtype": model.dtype} for model in self.models}
        return {**models.get("", {"models": models}), "fingerprint": self.fingerprint}
