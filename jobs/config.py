"""The job file: YAML, checked by pydantic; each part's model lives in the module that uses it."""

import difflib
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.resources import ComputeConfig
from pipeline_ops.inputs import InputConfig
from pipeline_ops.models import ModelConfig
from pipeline_ops.schema import OutputConfig, UserError
from pipeline_ops.storage import StorageConfig

Config = TypeVar("Config", bound=BaseModel)


class JobConfig(BaseModel):
    """A labelling job."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    input: InputConfig
    model: ModelConfig
    output: OutputConfig
    storage: StorageConfig = StorageConfig()
    compute: ComputeConfig = ComputeConfig()


def load_job(path: str, overrides: list[str] | None = None) -> JobConfig:
    """The job in a YAML file, with `key.sub=value` overrides.

    Raises:
        UserError: no such file, no YAML, an unknown key, or a value that does not do; one line.
    """
    return load_config(JobConfig, path, overrides or [])


def load_config(kind: type[Config], path: str, overrides: list[str]) -> Config:
    """A configuration of any kind from a YAML file and overrides; raises as load_job."""
    try:
        with open(path, encoding="utf-8") as file:
            settings = yaml.safe_load(file)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give the path of a job file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if settings is None:
        settings = {}
    if not isinstance(settings, dict):
        raise UserError(f"{path}: holds a {type(settings).__name__}, not the keys {', '.join(kind.model_fields)}")
    for setting in overrides:
        override(settings, setting)
    return check_config(kind, settings)


def check_config(kind: type[Config], settings: dict[str, Any]) -> Config:
    """Validates `settings`; raises UserError in one line with every mistake."""
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        # the branches of a union complain one by one: the first is what most users meant
        explained = [_explain(kind, mistake) for mistake in error.errors()]
        by_key = {text.split(":", 1)[0]: text for text in reversed(explained)}
        raise UserError("; ".join(reversed(by_key.values()))) from error


def override(settings: dict[str, Any], setting: str) -> None:
    """Puts a `key.sub=value` into `settings`; the value is YAML."""
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


def _explain(kind: type[BaseModel], mistake: Any) -> str:
    location = [str(part) for part in mistake["loc"]]
    # the branches of a union are named behind the key, e.g. ("compute", "tokenizers", "int")
    fields, place = [], kind
    for part in location:
        if place is None or part not in place.model_fields:
            break
        fields.append(part)
        annotation = place.model_fields[part].annotation
        place = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
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
        owner = kind.model_fields[fields[0]].annotation
        if isinstance(owner, type) and issubclass(owner, BaseModel):
            description = owner.model_fields[fields[1]].description or ""
    text = mistake["msg"].removeprefix("Value error, ")
    return f"{key}: {mistake['input']!r} does not do: {text}" + (f" ({description})" if description else "")
