"""ModelConfig, ModelFacts, JobModel."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pydantic import Field

from pipeline_ops.models.heads import Head, HeadConfig
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.tokenizing.sequences import LongDocumentsConfig, Windows


class ModelConfig(HeadConfig, LongDocumentsConfig):
    """Which sequence classifier labels the documents, and how its answers are read."""

    path: str = Field(description="hub id, local folder, or folder on object storage")
    revision: str | None = Field(default=None, description="hub revision; resolved to its commit and recorded")
    max_length: int | None = Field(
        default=None, ge=1, description="tokens per document at the most; default: the model's limit"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(default="auto", description="of weights and arithmetic")
    allow_new_weights: bool = Field(default=False, description="label with a head that has not been trained")
    allow_pickled_weights: bool = Field(default=False, description="load weights that are not safetensors: they can run code")
    compile: bool = Field(
        default=False, description="torch.compile: minutes of start for faster passes; may change the last bits of scores"
    )
    trust_remote_code: bool = Field(default=False, description="run Python code that comes with the model")


@dataclass(frozen=True)
class ModelFacts:
    """What results depend on, as resolved; recorded with the output."""

    path: str
    revision: str | None  # commit on the hub
    weights: str  # identity of the weight files
    tokenizer: str  # hash of the tokenizer and its settings
    max_length: int
    head: Head
    pad_id: int
    pad_type_id: int
    pad_left: bool
    has_type_ids: bool
    pairs: bool = False  # documents are pairs of texts
    windows: Windows | None = None  # None: long documents are truncated

    def to_dict(self) -> dict[str, Any]:
        """Flat, for records."""
        fields = asdict(self)
        return {**fields.pop("head"), **(fields.pop("windows") or {}), **fields}


@dataclass(frozen=True)
class JobModel:
    """A model of a job, as the stages are told of it."""

    name: str  # begins its columns' names; empty where it is the only one
    config: ModelConfig
    facts: ModelFacts
    tokenizer: str  # JSON of its backend, which cuts at max_length
    output: OutputConfig  # with its own columns' names
    token_flops: float | None = None  # about
    dtype: str = ""  # what config.dtype means where the classifiers run

    @property
    def reads(self) -> tuple[Any, ...]:
        """Models for which this is equal read the same tokens."""
        facts = self.facts
        windows = None if facts.windows is None else (facts.windows.stride, facts.windows.max_windows)
        padding = (facts.pad_id, facts.pad_type_id, facts.pad_left)
        return (facts.tokenizer, facts.max_length, *padding, facts.has_type_ids, facts.pairs, windows)


def tokenization_ids(models: Sequence[JobModel]) -> list[int]:
    """For each model the number of what it reads: the same for models that read the same tokens."""
    numbers: dict[tuple[Any, ...], int] = {}
    return [numbers.setdefault(model.reads, len(numbers)) for model in models]


def with_dtypes(models: Sequence[JobModel], dtypes: Sequence[str]) -> tuple[JobModel, ...]:
    """The models with what their dtypes have turned out to be."""
    return tuple(replace(model, dtype=dtype) for model, dtype in zip(models, dtypes, strict=True))


def distinct_tokenizations(models: Sequence[JobModel]) -> list[JobModel]:
    """For each number of tokenization_ids the first model that has it."""
    numbers = tokenization_ids(models)
    return [models[numbers.index(number)] for number in range(max(numbers) + 1)]
