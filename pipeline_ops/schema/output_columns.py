"""OutputConfig: where labels go; the names of the columns that labeling adds, for one model or several."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Embedding = Literal["cls", "mean"]


class OutputConfig(BaseModel):
    """Where the labels go and what they look like. Each column that labeling adds can be renamed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(description="the output folder; local, s3:// or what fsspec knows")
    partition_by: tuple[str, ...] = Field(
        default=("label",), description="hive folders; `label` is the label column, [] for none"
    )
    columns: Literal["all", "none"] | tuple[str, ...] = Field(
        default="all", description="input columns to keep beside the label"
    )
    scores: bool = Field(default=False, description="add every label's score, in id2label order")
    logits: bool = Field(default=False, description="add the raw logits, in id2label order")
    labels: bool | Literal["auto"] = Field(
        default="auto", description="multi-label: add the list of all labels from model.threshold on, and every label's score"
    )
    num_windows: bool | Literal["auto"] = Field(
        default="auto", description="model.long_documents: windows: add how many windows a document was read in"
    )
    window_scores: bool = Field(default=False, description="add every label's score in each of the document's windows")
    embedding: Embedding | None = Field(
        default=None,
        description="add the last hidden state: of the token that the head reads (cls), or the mean of all tokens' (mean)",
    )
    embedding_dtype: Literal["float16", "float32"] | None = Field(
        default=None, description="of the numbers in it; float32 unless set"
    )
    top_k: int | None = Field(default=None, ge=1, description="add the k best labels and their scores, best first")
    label_column: str = Field(default="label", description="the label's name, by the model's id2label")
    score_column: str = Field(default="score", description="the label's score, float32")
    scores_column: str = Field(default="scores", description="name of the column that `scores` adds")
    logits_column: str = Field(default="logits", description="name of the column that `logits` adds")
    labels_column: str = Field(default="labels", description="name of the column that `labels` adds")
    embedding_column: str = Field(default="embedding", description="name of the column that `embedding` adds")
    top_labels_column: str = Field(default="top_labels", description="name of a column that `top_k` adds")
    top_scores_column: str = Field(default="top_scores", description="name of a column that `top_k` adds")
    num_tokens_column: str = Field(default="num_tokens", description="tokens fed to the model, special tokens included")
    truncated_column: str = Field(default="truncated", description="whether the model has not read all of the text")
    num_windows_column: str = Field(default="num_windows", description="name of the column that `num_windows` adds")
    window_scores_column: str = Field(default="window_scores", description="name of the column that `window_scores` adds")
    source_file_column: str = Field(default="source_file", description="the input file the document came from")
    source_row_column: str = Field(default="source_row", description="the document's row (or line) in that file, from 0")
    drop_removed: bool = Field(default=False, description="drop the labels of input files that are gone")
    lease_seconds: float = Field(
        default=60, gt=0, description="how long a run that died keeps others from this output; it renews four times as often"
    )

    @model_validator(mode="after")
    def _distinct_names(self) -> "OutputConfig":
        self.check_names()
        if self.embedding_dtype is not None and self.embedding is None:
            raise ValueError("embedding_dtype is for embeddings; give output.embedding as well")
        return self

    def check_names(self) -> None:
        """Raises ValueError where two of the columns that labeling adds have the same name."""
        names = list(self.added_columns().values())
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"two of the columns that labeling adds are called {twice[0]!r}; give each a name of its own")

    def by_model(self) -> dict[str, "OutputConfig"]:
        """{name of a model: its columns' settings}; of a job's only model the name is empty."""
        return {"": self}

    def added_columns(self) -> dict[str, str]:
        """{config key: column name} of the columns that this configuration adds to the input's own."""
        names = {name: getattr(self, name) for name in type(self).model_fields if name.endswith("_column")}
        asked = {
            "scores_column": self.scores,
            "logits_column": self.logits,
            "labels_column": self.labels is True,
            "num_windows_column": self.num_windows is True,
            "window_scores_column": self.window_scores,
            "embedding_column": self.embedding is not None,
            "top_labels_column": self.top_k is not None,
            "top_scores_column": self.top_k is not None,
        }
        return {name: column for name, column in names.items() if asked.get(name, True)}

    def list_columns(self) -> set[str]:
        """Names of the added columns that hold a list per document."""
        lists = {"scores", "logits", "labels", "top_labels", "top_scores", "window_scores", "embedding"}
        return {column for name, column in self.added_columns().items() if name.removesuffix("_column") in lists}

    def partition_columns(self) -> tuple[str, ...]:
        return tuple(self.label_column if name == "label" else name for name in self.partition_by)

    def input_columns(self) -> tuple[str, ...] | None:
        """The input columns to keep; None for all."""
        return {"all": None, "none": ()}[self.columns] if isinstance(self.columns, str) else self.columns


class OutputOfModels(OutputConfig):
    """The output of several models: the columns of each begin with its name; those of the source are common to all."""

    models: dict[str, OutputConfig] = Field(exclude=True)

    def by_model(self) -> dict[str, OutputConfig]:
        return self.models

    def added_columns(self) -> dict[str, str]:
        return {
            key if column == getattr(self, key) else f"{key} (of {name})": column
            for name, model in self.models.items()
            for key, column in model.added_columns().items()
        }

    def list_columns(self) -> set[str]:
        return set().union(*(model.list_columns() for model in self.models.values()))

    def partition_columns(self) -> tuple[str, ...]:
        return self.partition_by


def columns_of_models(output: OutputConfig, models: Sequence[str]) -> dict[str, OutputConfig]:
    """{name of a model: the settings of its columns}; their names begin with the model's, where it has one."""
    columns = [key for key in OutputConfig.model_fields if key.endswith("_column") and not key.startswith("source_")]
    return {
        name: output.model_copy(update={key: f"{name}_{getattr(output, key)}" for key in columns}) if name else output
        for name in models
    }


def combined_output(output: OutputConfig, by_model: Mapping[str, OutputConfig]) -> OutputConfig:
    """The output of a job as a new object; of a job's only model, which has no name, it is that model's.

    Args:
        output: the settings that all models share.
        by_model: those of each model's columns, by its name.

    Raises:
        ValueError: two columns would have the same name.
    """
    return by_model[""] if "" in by_model else OutputOfModels(**output.model_dump(), models=dict(by_model))
