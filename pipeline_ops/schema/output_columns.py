"""OutputConfig: the output folder, and the names of the columns that labeling adds, for one model or several."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline_ops.schema.errors import secret_error

Embedding = Literal["cls", "mean"]
TableFormat = Literal["none", "delta", "iceberg"]
NO_TABLE: dict[str, Any] = {"table": "none", "catalog": None}  # settings of an output that is published as no table

# properties of catalogs: token, credential, s3.secret-access-key, adls.sas-token, header.Authorization, header.X-Api-Key, ...
SECRET_WORDS = (
    r"(token|credentials?|password|passwd|secret|api-key|access-key(-id)?|account-key|connection-string|authorization)"
)
SECRET_KEY = re.compile(rf"(?i){SECRET_WORDS}$")
SECRET_IN_URL = re.compile(rf"(?i)://[^/@]*:[^/@]*@|[?&][^=&]*{SECRET_WORDS}=")


class OutputConfig(BaseModel):
    """The `output` section of a job file: folder, partitioning and columns. Each added column can be renamed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(description="the output folder: a local path, s3:// or another fsspec URL")
    partition_by: tuple[str, ...] = Field(
        default=("label",), description="columns of the hive partition folders; `label` is the label column; [] for none"
    )
    columns: Literal["all", "none"] | tuple[str, ...] = Field(default="all", description="input columns to copy to the output")
    scores: bool = Field(default=False, description="add every label's score, in id2label order")
    logits: bool = Field(default=False, description="add the raw logits, in id2label order")
    labels: bool | Literal["auto"] = Field(
        default="auto", description="multi-label: add the list of labels that reach model.threshold, and every label's score"
    )
    num_windows: bool | Literal["auto"] = Field(
        default="auto", description="model.long_documents: windows: add the number of windows of each document"
    )
    window_scores: bool = Field(default=False, description="add every label's score in each window of the document")
    embedding: Embedding | None = Field(
        default=None,
        description="add the last hidden state: of the token that the head reads (cls) or the mean over all tokens (mean)",
    )
    embedding_dtype: Literal["float16", "float32"] | None = Field(
        default=None, description="type of the embedding's values; float32 unless set"
    )
    top_k: int | None = Field(
        default=None, ge=1, description="add the k labels with the highest scores, and these scores, in descending order"
    )
    label_name: str = Field(default="label", description="name of the label column; its values are from the model's id2label")
    score_column: str = Field(default="score", description="name of the column with the label's score, float32")
    scores_column: str = Field(default="scores", description="name of the column that `scores` adds")
    logits_column: str = Field(default="logits", description="name of the column that `logits` adds")
    labels_column: str = Field(default="labels", description="name of the column that `labels` adds")
    embedding_column: str = Field(default="embedding", description="name of the column that `embedding` adds")
    top_labels_column: str = Field(default="top_labels", description="name of a column that `top_k` adds")
    top_scores_column: str = Field(default="top_scores", description="name of a column that `top_k` adds")
    num_tokens_column: str = Field(
        default="num_tokens",
        description="name of the column with the number of tokens fed to the model, special tokens included",
    )
    truncated_column: str = Field(default="truncated", description="name of the column that is true if the text was truncated")
    num_windows_column: str = Field(default="num_windows", description="name of the column that `num_windows` adds")
    window_scores_column: str = Field(default="window_scores", description="name of the column that `window_scores` adds")
    source_file_column: str = Field(default="source_file", description="name of the column with the document's input file")
    source_row_column: str = Field(
        default="source_row", description="name of the column with the document's row (or line) in that file, from 0"
    )
    drop_removed: bool = Field(default=False, description="drop the labels of input files that were removed")
    lease_seconds: float = Field(
        default=60, gt=0, description="lease duration: how long a crashed run blocks others; renewed every quarter of it"
    )
    table: TableFormat = Field(
        default="none", description="also publish the committed files as a table: a Delta Lake or an Iceberg table"
    )
    catalog: dict[str, str] | None = Field(
        default=None,
        description="of output.table: iceberg: `table` (namespace.name), `name`, and pyiceberg's properties such as uri",
    )
    publish_seconds: float = Field(
        default=300, gt=0, description="seconds between two published versions while a run goes; its end publishes one, too"
    )
    keep_versions_days: float = Field(
        default=7,
        ge=0,
        le=36_500,
        description="days that replaced files are kept, for readers of the table's earlier versions",
    )

    @model_validator(mode="before")
    @classmethod
    def _earlier_key(cls, settings: Any) -> Any:
        """Accept `label_column`, as `label_name` was called, in job files and in `_job.json`."""
        if not isinstance(settings, dict) or "label_column" not in settings:
            return settings
        if "label_name" in settings:
            raise ValueError("label_column is an earlier name of output.label_name; give label_name alone")
        return {"label_name" if key == "label_column" else key: value for key, value in settings.items()}

    @field_validator("catalog")
    @classmethod
    def _table_without_secrets(cls, catalog: dict[str, str] | None) -> dict[str, str] | None:
        if catalog is None:
            return None
        for key, value in catalog.items():
            if SECRET_KEY.search(key) or SECRET_IN_URL.search(value):
                name = catalog.get("name", "default")
                variable = f"{name}__{key}".upper().replace("-", "_").replace(".", "__")
                raise secret_error(
                    f"{key} holds a secret, which does not belong into the job file; give it in ~/.pyiceberg.yaml, or as"
                    f" PYICEBERG_CATALOG__{variable}"
                )
        names = catalog.get("table", "").split(".")
        if len(names) < 2 or not all(names):
            raise ValueError("give the table's name, as table: NAMESPACE.NAME")
        return catalog

    @model_validator(mode="after")
    def _of_a_table(self) -> "OutputConfig":
        if self.catalog is not None and self.table != "iceberg":
            raise ValueError("catalog has no effect without output.table: iceberg; set it, or leave catalog out")
        return self

    @model_validator(mode="after")
    def _distinct_names(self) -> "OutputConfig":
        self.check_names()
        if self.embedding_dtype is not None and self.embedding is None:
            raise ValueError("embedding_dtype has no effect without output.embedding; set it to cls or mean")
        return self

    def check_names(self) -> None:
        """Raises ValueError if two added columns have the same name."""
        names = list(self.added_columns().values())
        duplicates = [name for name in names if names.count(name) > 1]
        if duplicates:
            raise ValueError(f"two added columns are named {duplicates[0]!r}; give each a different name")

    def by_model(self) -> dict[str, "OutputConfig"]:
        """{model name: settings of its columns}; the name is empty for a job with `model`."""
        return {"": self}

    def added_columns(self) -> dict[str, str]:
        """{config key: column name} of the columns that labeling adds to the input's."""
        names = {name: getattr(self, name) for name in type(self).model_fields if _names_a_column(name)}
        optional = {
            "scores_column": self.scores,
            "logits_column": self.logits,
            "labels_column": self.labels is True,
            "num_windows_column": self.num_windows is True,
            "window_scores_column": self.window_scores,
            "embedding_column": self.embedding is not None,
            "top_labels_column": self.top_k is not None,
            "top_scores_column": self.top_k is not None,
        }
        return {name: column for name, column in names.items() if optional.get(name, True)}

    def list_columns(self) -> set[str]:
        """Names of the added columns of a list type."""
        lists = {"scores", "logits", "labels", "top_labels", "top_scores", "window_scores", "embedding"}
        return {column for name, column in self.added_columns().items() if name.removesuffix("_column") in lists}

    def partition_columns(self) -> tuple[str, ...]:
        """Column names of the hive partition folders, outermost first."""
        return tuple(self.label_name if name == "label" else name for name in self.partition_by)

    def input_columns(self) -> tuple[str, ...] | None:
        """The input columns to copy to the output; None for all."""
        return {"all": None, "none": ()}[self.columns] if isinstance(self.columns, str) else self.columns


class OutputOfModels(OutputConfig):
    """The output of several models: the column names of each begin with its name; the `source_` columns are shared."""

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


def _names_a_column(key: str) -> bool:
    return key == "label_name" or key.endswith("_column")


def columns_of_models(output: OutputConfig, models: Sequence[str]) -> dict[str, OutputConfig]:
    """{model name: settings of its columns}; the names of these columns begin with the model's, unless that is empty."""
    columns = [key for key in OutputConfig.model_fields if _names_a_column(key) and not key.startswith("source_")]
    return {
        name: output.model_copy(update={key: f"{name}_{getattr(output, key)}" for key in columns}) if name else output
        for name in models
    }


def combined_output(output: OutputConfig, by_model: Mapping[str, OutputConfig]) -> OutputConfig:
    """Combine the settings that all models share with those of each model; a new object.

    Args:
        output: the shared settings.
        by_model: {model name: settings of its columns}, as of columns_of_models(); a single entry with an empty name is
            returned as it is.

    Raises:
        ValueError: two added columns have the same name.
    """
    if "" in by_model:
        return by_model[""]
    try:
        return OutputOfModels(**output.model_dump(), models=dict(by_model))
    except ValidationError as error:  # of several lines
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error
