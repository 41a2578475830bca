"""The job file: YAML, validated by pydantic; the model of each section is in the module that uses it."""

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from cluster.resources import ComputeConfig
from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.models.config import JobModel, ModelConfig
from pipeline_ops.schema.errors import SECRET, UserError
from pipeline_ops.schema.output_columns import OutputConfig, columns_of_models, combined_output
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.paths import did_you_mean
from pipeline_ops.storage.store import Store

Config = TypeVar("Config", bound=BaseModel)
PATH_SECTIONS = ("input", "model", "output")  # may be written as a path alone


def _path_alone(settings: Any) -> Any:
    return {"path": settings} if isinstance(settings, str) else settings


PathAlone = BeforeValidator(_path_alone)  # accepts `input: tweets/` as `input: {path: tweets/}`


def allow_path_alone(schema: dict[str, Any]) -> None:
    """Extends the JSON Schema of a configuration file, in place, by what PathAlone accepts."""
    for name in PATH_SECTIONS:
        section = schema["properties"][name]
        text = {"type": "string", "description": f"{name}.path alone"}
        branches = section.pop("anyOf", None) or [{"$ref": section.pop("$ref")}]
        section["anyOf"] = [*branches, text]


def _job_schema(schema: dict[str, Any]) -> None:
    schema["required"] = ["input", "output"]
    schema["oneOf"] = [{"required": ["model"]}, {"required": ["models"]}]
    allow_path_alone(schema)


# a file is a training file if it has one of these and no key that only a job has; every other file is a job
TRAINING_KEYS = {"training", "input.label_column", "input.corrections", "model.architecture", "output.overwrite"}
JOB_KEYS = {"models", "compute"}  # and all of `output` but these:
TRAINING_OUTPUT_KEYS = {"path", "overwrite"}


class NamedModelConfig(ModelConfig):
    """One of several models that label the documents in one pass."""

    name: str = Field(pattern="^[A-Za-z][A-Za-z0-9_]*$", description="prefix of its column names: letters, digits, _")


class JobConfig(BaseModel):
    """A labeling job."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        title="label-corpus job",
        json_schema_extra=_job_schema,
    )

    input: Annotated[InputConfig, PathAlone] = Field(description="the input files and how to read them")
    model: Annotated[ModelConfig | None, PathAlone] = Field(description="the classifier")
    models: tuple[NamedModelConfig, ...] | None = Field(
        default=None, min_length=1, description="in place of model: several named classifiers, all run in one pass"
    )
    output: Annotated[OutputConfig, PathAlone] = Field(description="the output folder and its columns")
    storage: StorageConfig = Field(default=StorageConfig(), description="endpoint and region of the object storage")
    compute: ComputeConfig = Field(default=ComputeConfig(), description="parallelism and batch sizes; they change no results")

    @model_validator(mode="before")
    @classmethod
    def _model_or_models(cls, settings: Any) -> Any:
        if not isinstance(settings, dict) or settings.get("models") is None:
            return settings
        if settings.get("model") is not None:
            raise ValueError("model: conflicts with models; give one of the two")
        return {"model": None, **settings}

    @model_validator(mode="after")
    def _check_models(self) -> Self:
        if self.model is None and self.models is None:
            raise ValueError("model.path is missing: a hub id or a folder; or give models, a list of models with names")
        if self.models is not None:
            names = [model.name for model in self.models]
            if "partition_by" not in self.output.model_fields_set:
                raise ValueError(
                    f"output.partition_by: missing; give a label column, such as [{names[0]}_label], or [] for none"
                )
            duplicates = [name for name in names if names.count(name) > 1]
            if duplicates:
                raise ValueError(f"models: two are named {duplicates[0]!r}; give each a different name")
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
        """{name: model}; the name is empty for a job with `model`."""
        if self.models is not None:
            return {model.name: model for model in self.models}
        assert self.model is not None
        return {"": self.model}

    def output_columns(self) -> OutputConfig:
        """The output with the columns of each model; `auto` columns stay undecided, as they depend on the model."""
        return combined_output(self.output, columns_of_models(self.output, list(self.named_models())))


@dataclass(frozen=True)
class ResolvedJob:
    """A job as resolved by prepare(): full paths, models with exact revisions, `auto` columns decided."""

    input: InputConfig
    models: tuple[JobModel, ...]
    output: OutputConfig  # by_model() gives the columns of each model
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
        """True for a job with `models`, whose column names begin with the model names."""
        return bool(self.models[0].name)

    def to_dict(self) -> dict[str, Any]:
        """The settings in the layout of a job file, for `_job.json`."""
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
    """Load and validate a job file.

    Args:
        path: of a YAML file.
        overrides: `key.sub=value` strings; each value is YAML.

    Raises:
        UserError: no such file, invalid YAML, a training file, an unknown key or an invalid value; one line.
    """
    return load_config(JobConfig, path, overrides or [])


def job_of(job: JobConfig | Mapping[str, Any] | str) -> JobConfig:
    """The job from its settings or from the path of its file; raises as load_job."""
    if isinstance(job, JobConfig):
        return job
    return load_job(job) if isinstance(job, str) else check_config(JobConfig, dict(job))


def load_config(kind: type[Config], path: str, overrides: list[str]) -> Config:
    """Load and validate a configuration file of the given model; arguments and errors as load_job."""
    return check_config(kind, load_settings(kind, path, overrides))


def load_settings(kind: type[BaseModel], path: str, overrides: list[str]) -> dict[str, Any]:
    """Settings of a configuration file with the overrides applied, not validated.

    Raises:
        UserError: it is no YAML mapping, or a job file in place of a training file, or the reverse.
    """
    try:
        with open(path, encoding="utf-8") as file:
            settings = yaml.safe_load(file)
    except OSError as error:
        raise UserError(_unreadable(kind, path, error)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        remedy = "; indent by spaces, not by tabs" if r"'\t'" in str(error) else ""
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}{remedy}") from error
    if settings is None:
        settings = {}
    if not isinstance(settings, dict):
        raise UserError(f"{path}: is a {type(settings).__name__}; expected the keys {', '.join(kind.model_fields)}")
    is_empty = not settings  # such a file can be either
    if _title(kind) == "job" and _is_training(settings):
        raise UserError(
            f"{path}: is a training file, not a labeling job; label-corpus train {path} trains the model, which is then"
            f" model.path of a job"
        )
    for setting in overrides:
        override(settings, setting)
    if _title(kind) == "training" and not is_empty and not _is_training(settings):  # overrides may name the labels
        raise UserError(
            f"{path}: is a labeling job, not a training file; label-corpus run {path} labels the corpus, and"
            f" a training file names its labels by input.label_column"
        )
    return settings


def _unreadable(kind: type[BaseModel], path: str, error: OSError) -> str:
    """Why a configuration file cannot be read, and what to give instead."""
    wanted = f"give the path of a {_title(kind)} file"
    if isinstance(error, FileNotFoundError):
        return f"no such file {path!r}{did_you_mean(path) or f'; {wanted}'}"
    if isinstance(error, IsADirectoryError) and os.path.exists(os.path.join(path, "_job.json")):
        return f"{path} is a folder with labels; give the job file that they are of"
    if isinstance(error, IsADirectoryError):
        return f"{path} is a folder; {wanted}" + (f"; `label-corpus init {path}` writes one" if _title(kind) == "job" else "")
    return f"{path}: {error.strerror}; {wanted}"


def _is_training(settings: dict[str, Any]) -> bool:
    """Whether settings are a training's, not a labeling job's: each would replace or mix up what the other one has written."""
    keys = {*settings}
    for section in ("input", "model", "output"):
        keys |= {f"{section}.{key}" for key in settings[section]} if isinstance(settings.get(section), dict) else set()
    only_of_jobs = {key for key in keys if key.startswith("output.")} - {f"output.{key}" for key in TRAINING_OUTPUT_KEYS}
    return bool(keys & TRAINING_KEYS) and not keys & (JOB_KEYS | only_of_jobs)


def check_config(kind: type[Config], settings: dict[str, Any]) -> Config:
    """Validate `settings`; raises a UserError that lists every error in one line."""
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        # pydantic reports an error per branch of a union; the first branch is the common form of the value
        explained = [_explain(kind, details) for details in error.errors()]
        by_key = {text.split(":", 1)[0]: text for text in reversed(explained)}
        raise UserError("; ".join(reversed(by_key.values()))) from error


def setting_like(kind: type[BaseModel], name: str, *, exactly: bool) -> str | None:
    """The setting that somebody may mean by an option of this name, such as model.path by --model; None if there is none."""
    settings: dict[str, str] = {}
    for section, field in kind.model_fields.items():
        keys = getattr(section_of(field.annotation), "model_fields", {})
        settings |= {f"{section}_{key}": f"{section}.{key}" for key in keys}
        settings |= {key: f"{section}.{key}" for key in keys if key not in settings}
        settings |= {section: f"{section}.path"} if "path" in keys else {}
    wanted = name.strip("-").replace("-", "_").replace(".", "_")
    near = difflib.get_close_matches(wanted, settings, n=1, cutoff=1.0 if exactly else 0.75)
    return settings[near[0]] if near else None


def override(settings: dict[str, Any], setting: str) -> None:
    """Apply a `key.sub=value` override to `settings` in place; the value is YAML. Raises UserError if it is malformed."""
    key, equals, value = setting.partition("=")
    *sections, name = key.strip().split(".")
    if not equals or not name:
        raise UserError(f"{setting!r}: invalid override; expected key.sub=value, e.g. compute.batch_tokens=4096")
    target = settings
    for section in sections:
        if target.get(section) is None:
            target[section] = {}
        elif target is settings and section in PATH_SECTIONS:
            target[section] = _path_alone(target[section])
        target = target[section]
        if not isinstance(target, dict):
            raise UserError(f"{setting!r}: {section} is a value, not a section; override {section} itself")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"{setting!r}: the value is not valid YAML: {' '.join(str(error).split())}") from error
    if not sections and name in PATH_SECTIONS and isinstance(parsed, str) and isinstance(settings.get(name), dict):
        settings[name]["path"] = parsed  # model=other/ leaves the other settings of the section
    else:
        target[name] = parsed


def _title(kind: type[BaseModel]) -> str:
    """The kind of file in an error: job, training."""
    return (kind.model_config.get("title") or "job").removeprefix("label-corpus ")


MEANT_PATHS = {"input.path": "a file, folder or glob", "model.path": "a hub id or a folder", "output.path": "a folder"}


def _missing(key: str, section: type[BaseModel] | None) -> str:
    """Says that a setting is missing; of a section its path, if it has one."""
    if section is not None and "path" in section.model_fields:
        key = f"{key}.path"
    return f"{key} is missing" + (f": {MEANT_PATHS[key]}" if key in MEANT_PATHS else "; it has no default")


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model of a section from its annotation, which may be optional or a list; None for a plain value."""
    for kind in (annotation, *get_args(annotation), *(inner for part in get_args(annotation) for inner in get_args(part))):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _explain(kind: type[BaseModel], details: Any) -> str:
    """One of pydantic's error details as `key: message`."""
    location = [str(part) for part in details["loc"]]
    # a location ends with the branch of a union, e.g. ("compute", "tokenizers", "int")
    fields, model = [], kind
    for part in location:
        if part.isdecimal() and model is not None and fields:  # an index of a list
            fields.append(part)
            continue
        if model is None or part not in model.model_fields:
            break
        fields.append(part)
        model = section_of(model.model_fields[part].annotation)
    if not location:  # an error of a model validator: its message names the key
        return details["msg"].removeprefix("Value error, ")
    key = ".".join(fields) or ".".join(location)
    if details["type"] == "extra_forbidden":
        known = [*model.model_fields] if model else []
        unknown = location[len(fields)]
        near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
        prefix = "".join(f"{field}." for field in fields)
        if not near and model is kind:
            near = [setting for setting in [setting_like(kind, unknown, exactly=False)] if setting]
        remedy = f"did you mean {prefix}{near[0]}?" if near else f"known keys: {', '.join(known)}"
        return f"{prefix}{unknown}: unknown key; {remedy}"
    if details["type"] == "missing" or (details["type"] == "model_type" and details["input"] is None):
        return _missing(key, model)
    description = ""
    if len(fields) > 1:
        owner, last = section_of(kind.model_fields[fields[0]].annotation), fields[-1]
        if owner is not None and last in owner.model_fields:
            description = owner.model_fields[last].description or ""
    text = details["msg"].removeprefix("Value error, ")
    if details["type"] == SECRET:
        return f"{key}: {text}"
    if details["type"] == "model_type" and model is not None:
        fields_of = model.model_fields
        expected = "give a path, or {path: PATH, ...}" if "path" in fields_of else f"expected the keys {', '.join(fields_of)}"
        return f"{key}: invalid value {details['input']!r}: {expected}"
    if details["type"] == "tuple_type":
        text = "expected a list, such as " + (f"[{details['input']}]" if isinstance(details["input"], str) else "[a, b]")
    return f"{key}: invalid value {details['input']!r}: {text}" + (f" ({description})" if description else "")
