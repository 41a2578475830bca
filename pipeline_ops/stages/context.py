"""StageContext: what the stages of a run have in common."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline_ops.models.config import JobModel
from pipeline_ops.reading.inputs import InputConfig
from pipeline_ops.reading.reader import ReadSettings
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.config import StorageConfig


@dataclass(frozen=True)
class StageContext:
    """What a run's stages depend on besides the unit in their row; one object, sent to every stage.

    Attributes:
        models: resolved, without their tokenizers: JSON of megabytes, which TokenizeActor alone takes.
        fingerprint: of the settings that change results.
        line_types: types of the columns of JSON Lines files.
        unit_bytes: bytes of documents per unit.
        batch_tokens: padded tokens per batch, at most.
        use_gpu: models run on the GPU that the process has been given, else on one core.
    """

    input: InputConfig
    output: OutputConfig
    storage: StorageConfig
    models: tuple[JobModel, ...]
    fingerprint: str
    line_types: pa.Schema
    unit_bytes: int
    batch_tokens: int
    use_gpu: bool

    def read_settings(self) -> ReadSettings:
        return ReadSettings(self.input, self.storage, self.output, self.line_types, self.unit_bytes, self.fingerprint)

    def file_metadata(self) -> dict[str, Any]:
        """What each Parquet file records about its labels; with several models, by their names under `models`."""
        models = {model.name: {**model.facts.to_dict(), "dtype": model.dtype} for model in self.models}
        return {**models.get("", {"models": models}), "fingerprint": self.fingerprint}
