"""The job file: YAML, checked by pydantic; each part's model lives in the module that uses it."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cluster.resources import ComputeConfig
from pipeline_ops.models.config import JobModel, ModelConfig
from pipeline_ops.reading.inputs import InputConfig
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.output_columns import OutputConfig, columns_of_models, combined_output
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store

Config = TypeVar("Config", bound=BaseModel)


class NamedModelConfig(ModelConfig):
    """One of several models that label the documents in one pass."""

    name: str = Field(pattern="^[A-Za-z][A-Za-z0-9_]*$", description="begins the names of its columns: letters, digits, _")


class JobConfig(BaseModel):
    """A labeling job."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        title="label-corpus job",
        json_schema_extra={
            "required": ["input", "output"],
            "oneOf": [{"required": ["model"]}, {"required": ["models"]}],
        },
    )

    input: InputConfig = Field(description="what is labeled, and how it is read")
    model: ModelConfig | None = Field(description="the classifier that labels it")
    models: tuple[NamedModelConfig, ...] | None = Field(
        default=None, min_length=1, description="in place of model: several that label it in one pass, each with a name"
    )
    output: OutputConfig = Field(description="where the labels go, and what they look like")
    storage: StorageConfig = Field(default=StorageConfig(), description="how object storage is reached")
    compute: ComputeConfig = Field(default=ComputeConfig(), description="how the work is spread; changes no results")

    @model_validator(mode="before")
    @classmethod
    def _model_or_models(cls, settings: Any) -> Any:
        if not isinstance(settings, dict) or settings.get("models") is None:
            return settings
        if settings.get("model") is not None:
            raise ValueError("model: models is set as well; give one of the two")
        return {"model": None, **settings}

    @model_validator(mode="after")
    def _check_models(self) -> Self:
        if self.model is None and self.models is None:
            raise ValueError("model: missing; give model, or models, a list of models with names")
        if self.models is not None:
            names = [model.name for model in self.models]
            if "partition_by" not in self.output.model_fields_set:
                raise ValueError(
                    f"output.partition_by: missing; name the label column that makes the folders, such as [{names[0]}_label],"
                    f" or [] for none"
                )
            twice = [name for name in names if names.count(name) > 1]
            if twice:
                raise ValueError(f"models: two are called {twice[0]!r}; give each a name of its own")
            try:
                self.output_columns()
            except ValueError as error:
                raise ValueError(f"models: {error}") from error
        return self

    @property
    def input_store(self) -> Store:
        return Store(self.input.path, self.storage)

    @property
    def output_store(self) -> Store:
        return Store(self.output.path, self.storage)

    def named_models(self) -> dict[str, ModelConfig]:
        """The models by their names; the name of a job's only model is empty."""
        if self.models is not None:
            return {model.name: model for model in self.models}
        assert self.model is not None
        return {"": self.model}

    def output_columns(self) -> OutputConfig:
        """The output with the columns of each model; which of the `auto` ones there are depends on the models."""
        return combined_output(self.output, columns_of_models(self.output, list(self.named_models())))


@dataclass(frozen=True)
class ResolvedJob:
    """A job behind prepare(): full paths, models with exact revisions, `auto` columns decided."""

    input: InputConfig
    models: tuple[JobModel, ...]
    output: OutputConfig  # by_model() has the columns of each
    storage: StorageConfig
    compute: ComputeConfig

    @property
    def input_store(self) -> Store:
        return Store(self.input.path, self.storage)

    @property
    def output_store(self) -> Store:
        return Store(self.output.path, self.storage)

    @property
    def has_named_models(self) -> bool:
        """Whether the job file has `models`, which begin their columns' names with their own."""
        return bool(self.models[0].name)

    def to_dict(self) -> dict[str, Any]:
        """The settings as a job file has them, for `_job.json`."""
        models = [model.config.model_dump(mode="json") for model in self.models]
        return {
            "input": self.input.model_dump(mode="json"),
            "model": None if self.has_named_models else models[0],
            "models": models if self.has_named_models else None,
            "output": self.output.model_dump(mode="json"),
            "storage": self.storage.model_dump(mode="json"),
            "compute": self.compute.model_dump(mode="json"),
        }


def load_job(path: str, overrides: list[str] | None = None) -> JobConfig:
    """The job in a YAML file, with `key.sub=value` overrides.

    Raises:
        UserError: no such file, no YAML, an unknown key or an invalid value; one line.
    """
    return load_config(JobConfig, path, overrides or [])


def job_of(job: JobConfig | Mapping[str, Any] | str) -> JobConfig:
    """A job as such, from its settings or from the path of its file; raises as load_job."""
    if isinstance(job, JobConfig):
        return job
    return load_job(job) if isinstance(job, str) else check_config(JobConfig, dict(job))


def load_config(kind: type[Config], path: str, overrides: list[str]) -> Config:
    """A configuration of any kind from a YAML file and overrides; raises as load_job."""
    return check_config(kind, load_settings(kind, path, overrides))


def load_settings(kind: type[BaseModel], path: str, overrides: list[str]) -> dict[str, Any]:
    """The settings of such a file with the overrides, not validated yet; raises UserError where it is no YAML mapping."""
    try:
        with open(path, encoding="utf-8") as file:
            settings = yaml.safe_load(file)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give the path of a {_title(kind)} file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        remedy = "; indent by spaces, not by tabs" if r"'\t'" in str(error) else ""
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}{remedy}") from error
    if settings is None:
        settings = {}
    if not isinstance(settings, dict):
        raise UserError(f"{path}: holds a {type(settings).__name__}, not the keys {', '.join(kind.model_fields)}")
    for setting in overrides:
        override(settings, setting)
    return settings


def check_config(kind: type[Config], settings: dict[str, Any]) -> Config:
    """Validates `settings`; raises UserError that names every mistake in one line."""
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        # each branch of a union has an error of its own: the first branch is what most users meant
        explained = [_explain(kind, mistake) for mistake in error.errors()]
        by_key = {text.split(":", 1)[0]: text for text in reversed(explained)}
        raise UserError("; ".join(reversed(by_key.values()))) from error


def override(settings: dict[str, Any], setting: str) -> None:
    """Sets a `key.sub=value` in `settings`; the value is YAML."""
    key, equals, value = setting.partition("=")
    *folders, name = key.strip().split(".")
    if not equals or not name:
        raise UserError(f"{setting!r}: an override is key.sub=value, e.g. compute.batch_tokens=4096")
    place = settings
    for folder in folders:
        if place.get(folder) is None:
            place[folder] = {}
        place = place[folder]
        if not isinstance(place, dict):
            raise UserError(f"{setting!r}: {folder} is a value, not a section")
    try:
        place[name] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"{setting!r}: the value is not valid YAML: {' '.join(str(error).split())}") from error


def _title(kind: type[BaseModel]) -> str:
    """The name of such a file: job, training."""
    return (kind.model_config.get("title") or "job").removeprefix("label-corpus ")


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model of a section, which may be optional or a list; None for a plain value."""
    for kind in (annotation, *get_args(annotation), *(inner for part in get_args(annotation) for inner in get_args(part))):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _explain(kind: type[BaseModel], mistake: Any) -> str:
    location = [str(part) for part in mistake["loc"]]
    # the branches of a union are named behind the key, e.g. ("compute", "tokenizers", "int")
    fields, place = [], kind
    for part in location:
        if part.isdecimal() and place is not None and fields:  # one of a list
            fields.append(part)
            continue
        if place is None or part not in place.model_fields:
            break
        fields.append(part)
        place = section_of(place.model_fields[part].annotation)
    if not location:  # of the whole; the text names the key
        return mistake["msg"].removeprefix("Value error, ")
    key = ".".join(fields) or ".".join(location)
    if mistake["type"] == "extra_forbidden":
        known = [*place.model_fields] if place else []
        unknown = location[len(fields)]
        near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
        prefix = "".join(f"{field}." for field in fields)
        remedy = f"did you mean {prefix}{near[0]}?" if near else f"known keys: {', '.join(known)}"
        return f"{prefix}{unknown}: unknown key; {remedy}"
    if mistake["type"] == "missing":
        return f"{'.'.join(location)}: missing; it has no default"
    description = ""
    if len(fields) > 1:
        owner, last = section_of(kind.model_fields[fields[0]].annotation), fields[-1]
        if owner is not None and last in owner.model_fields:
            description = owner.model_fields[last].description or ""
    text = mistake["msg"].removeprefix("Value error, ")
    if mistake["type"] == "model_type" and place is not None:
        return f"{key}: invalid value {mistake['input']!r}: expected the keys {', '.join(place.model_fields)}"
    if mistake["type"] == "tuple_type":
        text = "expected a list, such as " + (f"[{mistake['input']}]" if isinstance(mistake["input"], str) else "[a, b]")
    return f"{key}: invalid value {mistake['input']!r}: {text}" + (f" ({description})" if description else "")
