"""A model's configuration (ModelConfig), what it resolves to (ModelFacts), and what the stages get of it (JobModel)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pydantic import Field

from pipeline_ops.models.heads import Head, HeadConfig
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.tokenizing.windows import LongDocumentsConfig, Windows


class ModelConfig(HeadConfig, LongDocumentsConfig):
    """Which sequence classifier labels the documents, and how its logits become labels."""

    path: str = Field(description="hub id, local folder, or folder on object storage")
    revision: str | None = Field(default=None, description="hub revision; resolved to its commit and recorded")
    base: str | None = Field(default=None, description="an adapter's model, in place of the one that it names; paths as path")
    base_revision: str | None = Field(default=None, description="hub revision of an adapter's model")
    max_length: int | None = Field(
        default=None, ge=1, description="tokens per document at the most; default: the model's limit"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(default="auto", description="of weights and arithmetic")
    allow_new_weights: bool = Field(default=False, description="label with a head that has not been trained")
    allow_pickled_weights: bool = Field(default=False, description="load weights that are not safetensors: they can run code")
    compile: bool | Literal["auto"] = Field(
        default="auto",
        description="true, false or auto (where it gains): torch.compile, a slower start for faster passes, which may change"
        " the last bits of scores; false: no kernel is compiled",
    )
    trust_remote_code: bool = Field(default=False, description="run Python code that comes with the model")


@dataclass(frozen=True)
class AdaptedModel:
    """The model that an adapter adapts; see adapters.Adapter."""

    base: str  # path
    base_revision: str | None  # commit on the hub
    base_weights: str  # identity of the weight files


@dataclass(frozen=True)
class ModelFacts:
    """A resolved model as far as results depend on it; recorded with the output."""

    path: str
    revision: str | None  # commit on the hub
    weights: str  # identity of the weight files
    tokenizer_hash: str  # of the tokenizer and its settings
    max_length: int
    head: Head
    pad_id: int
    pad_type_id: int
    pad_left: bool
    has_type_ids: bool
    pairs: bool = False  # documents are pairs of texts
    windows: Windows | None = None  # None: long documents are truncated
    model_type: str = ""  # the architecture, as transformers names it
    adapted: AdaptedModel | None = None  # None: a whole model

    def to_dict(self) -> dict[str, Any]:
        """One flat dictionary, as files' metadata, `_job.json` and the report have it."""
        fields = asdict(self)
        fields["tokenizer"] = fields.pop("tokenizer_hash")
        return {**fields.pop("head"), **(fields.pop("windows") or {}), **(fields.pop("adapted") or {}), **fields}


@dataclass(frozen=True)
class SharedLayers:
    """What a model takes from the pass of an earlier one of the job, since it is the same in both."""

    model: str  # name of the earlier one
    layers: int  # the lowest ones; 0 if the encoder is shared whole and has no plain list of layers
    num_layers: int
    share: float  # of a pass; 1: everything below the head


@dataclass(frozen=True)
class JobModel:
    """A resolved model, as shipped to the stages."""

    name: str  # prefix of its columns' names; empty for a job's only model
    config: ModelConfig
    facts: ModelFacts
    tokenizer: str | bytes  # tokenizing.sequences.definition_of
    output: OutputConfig  # with its own columns' names
    token_flops: float | None = None  # per token, estimated; see flops.token_flops_of
    remarks: tuple[str, ...] = ()  # sentences about its files, for whoever plans or runs the job
    tokens_per_core: float | None = None  # that a core tokenizes in a second, measured; None: its tokenizer is a fast one
    dtype: str = ""  # config.dtype, resolved where the classifiers run; empty until then
    shared: SharedLayers | None = None  # by its files; None also where these are not known before they are loaded

    @property
    def share_of_pass(self) -> float:
        """How much of a pass through the model is its own: what no earlier model of the job computes for it, about."""
        return 1.0 if self.shared is None else 1.0 - self.shared.share

    @property
    def own_token_flops(self) -> float | None:
        """token_flops without those of what it shares."""
        return None if self.token_flops is None else self.token_flops * self.share_of_pass

    @property
    def tokenization_key(self) -> tuple[Any, ...]:
        """Equal for models whose inputs are the same token ids, padding included."""
        facts = self.facts
        windows = None if facts.windows is None else (facts.windows.stride, facts.windows.max_windows)
        padding = (facts.pad_id, facts.pad_type_id, facts.pad_left)
        return (facts.tokenizer_hash, facts.max_length, *padding, facts.has_type_ids, facts.pairs, windows)


def model_notes(models: Sequence[JobModel]) -> list[str]:
    """The remarks of all models, with the name of each; a job's only model has none."""
    return [f"{model.name}: {remark}" if model.name else remark for model in models for remark in model.remarks]


def tokenization_ids(models: Sequence[JobModel]) -> list[int]:
    """For each model the index of its tokenization; models with equal tokenization_key share one."""
    ids: dict[tuple[Any, ...], int] = {}
    return [ids.setdefault(model.tokenization_key, len(ids)) for model in models]


def with_dtypes(models: Sequence[JobModel], dtypes: Sequence[str]) -> tuple[JobModel, ...]:
    """The models with their resolved dtypes, one per model."""
    return tuple(replace(model, dtype=dtype) for model, dtype in zip(models, dtypes, strict=True))


def distinct_tokenizations(models: Sequence[JobModel]) -> list[JobModel]:
    """One model per tokenization, in the order of tokenization_ids: the first of those that share it."""
    ids = tokenization_ids(models)
    return [models[ids.index(tokenization)] for tokenization in range(max(ids) + 1)]
