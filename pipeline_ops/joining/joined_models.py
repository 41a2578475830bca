"""The models of a joined output: their names and columns, its settings, and its record in `_job.json`."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.file_formats import format_and_compression
from pipeline_ops.joining.joined_unit import Source
from pipeline_ops.output.labeled_output import Labeled, schema_of
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.output_columns import NO_TABLE, OutputConfig, combined_output

JOIN = "join"  # key of _job.json: the outputs that are joined
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
ROW_KEYS = ("text_unit", "encoding", "delimiter", "quote", "escape", "header")  # of `input`: which row has which number


@dataclass(frozen=True)
class JoinedModel:
    """A model of one of the outputs.

    Attributes:
        source: index of the output.
        its_name: there; empty for an output's only model.
        name: in the joined output, whose columns of the model begin with it.
        renamed: {column there: column in the joined output}.
    """

    source: int
    its_name: str
    name: str
    columns: OutputConfig
    renamed: dict[str, str]


def joined_models(outputs: Sequence[Labeled], names: Sequence[str] | None) -> list[JoinedModel]:
    """The models of all outputs, in their order.

    Args:
        names: of the models; None: the names that they have, and of a model without one the last part of its path.

    Raises:
        UserError: too few or too many names, one that cannot be a name, or two models of one name.
    """
    found = [(number, name, one) for number, one in enumerate(outputs) for name in one.record["models"]]
    if names is None:
        names = [name or _name_of(one.record["models"][name]["path"]) for _, name, one in found]
    if len(names) != len(found):
        known = ", ".join(f"{name or one.record['models'][name]['path']} of {one.path}" for _, name, one in found)
        raise UserError(f"--names: {len(names)} given, for {len(found)} models: {known}; give a name for each, in this order")
    for name in names:
        if not NAME.fullmatch(name):
            raise UserError(f"--names: {name!r} is no name of a model: letters, digits and _ only, such as quality,topic")
        if list(names).count(name) > 1:
            raise UserError(
                f"--names: two models are named {name!r}; give each a different name, such as --names quality,topic"
            )
    return [_model(number, its, name, one, outputs[0]) for (number, its, one), name in zip(found, names, strict=True)]


def _name_of(path: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", path.rstrip("/").rsplit("/", 1)[-1]).strip("_")


def _model(number: int, its_name: str, name: str, output: Labeled, first: Labeled) -> JoinedModel:
    """The model with its columns named as by `models:` of one job."""
    columns = output.columns.by_model()[its_name]
    keys = [key for key in OutputConfig.model_fields if key == "label_name" or key.endswith("_column")]
    prefix = f"{its_name}_" if its_name else ""
    renamed = {key: f"{name}_{getattr(columns, key).removeprefix(prefix)}" for key in keys if not key.startswith("source_")}
    source = {key: getattr(first.columns, key) for key in keys if key.startswith("source_")}
    joined = columns.model_copy(update=renamed | source)
    added, joined_added = columns.added_columns(), joined.added_columns()
    return JoinedModel(
        number, its_name, name, joined, {added[key]: joined_added[key] for key in added if not key.startswith("source_")}
    )


def joined_output(outputs: Sequence[Labeled], models: Sequence[JoinedModel], path: str) -> OutputConfig:
    """The settings of the joined output, which is partitioned as the first output is.

    Raises:
        UserError: two columns have one name.
    """
    first = outputs[0]
    renamed = {its: ours for model in models if model.source == 0 for its, ours in model.renamed.items()}
    partitions = tuple(renamed.get(name, name) for name in first.columns.partition_columns())
    settings = {**first.record["config"]["output"], "path": path, "partition_by": partitions, **NO_TABLE}
    shared = OutputConfig.model_validate(settings)
    try:
        output = combined_output(shared, {model.name: model.columns for model in models})
    except ValueError as error:
        raise UserError(f"--names: {error}") from error
    own = {renamed.get(name, name) for name in schema_of(first).names if name not in renamed}
    for model in models:
        for name in model.renamed.values():
            if name in own:
                raise UserError(f"--names: the input has a column {name!r}; give the model {model.name!r} another name")
    return output


def sources_of(outputs: Sequence[Labeled], models: Sequence[JoinedModel]) -> list[Source]:
    """What is taken of each output: all columns of the first one, of the others their models'.

    Raises:
        UserError: a column has types that do not go together.
    """
    found = []
    for number, output in enumerate(outputs):
        own = [model for model in models if model.source == number]
        renamed = {its: ours for model in own for its, ours in model.renamed.items()}
        schema = schema_of(output, None if number == 0 else list(renamed))
        files, rows = output.columns.source_file_column, output.columns.source_row_column
        names = tuple(model.name for model in own)
        found.append(Source(output.store, schema, output.partition_types, renamed, files, rows, names))
    return found


def check_same_rows(outputs: Sequence[Labeled], paths: Sequence[str]) -> None:
    """Checks that the outputs have read the input in the same way: a row's number means the same document.

    Args:
        paths: input files.

    Raises:
        UserError: settings differ.
    """
    first = outputs[0]
    for other in outputs[1:]:
        for key in ROW_KEYS:
            ours, theirs = _setting(first, key), _setting(other, key)
            if ours != theirs:
                raise UserError(
                    f"input.{key}: {ours!r} in {first.path!r}, {theirs!r} in {other.path!r}, so their rows are not the same;"
                    f" label one of them again with the other's setting"
                )
        if _setting(first, "format") != _setting(other, "format"):
            for path in paths:
                ours, theirs = _format(first, path), _format(other, path)
                if ours != theirs:
                    raise UserError(
                        f"input.format: {path!r} was read as {ours} for {first.path!r}, as {theirs} for {other.path!r}, so"
                        f" their rows are not the same; label one of them again with the other's setting"
                    )


def _setting(output: Labeled, key: str) -> Any:
    return output.record["config"]["input"].get(key, InputConfig.model_fields[key].default)


def _format(output: Labeled, path: str) -> str | None:
    given = _setting(output, "format")
    return format_and_compression(path)[0] if given == "auto" else given


def joined_record(outputs: Sequence[Labeled], models: Sequence[JoinedModel], output: OutputConfig) -> dict[str, Any]:
    """The content of the joined output's `_job.json`: that of the first one, with the models of all."""
    first = outputs[0].record
    settings = {key: value for key, value in first["settings"].items() if not key.startswith("model")}
    facts = {}
    configs = []
    for model in models:
        record = outputs[model.source].record
        settings |= dict(_model_settings(record["settings"], model))
        facts[model.name] = {**record["models"][model.its_name], "output": model.columns.model_dump(mode="json")}
        configs.append({**_model_config(record["config"], model.its_name), "name": model.name})
    joined = [
        {
            "path": one.path,
            "fingerprint": one.record["fingerprint"],
            "models": [model.name for model in models if model.source == number],
        }
        for number, one in enumerate(outputs)
    ]
    settings |= {"output.partition_by": list(output.partition_by)}
    identity = [settings, [one["fingerprint"] for one in joined]]
    return {
        **first,
        "fingerprint": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
        "settings": settings,
        "config": {**first["config"], "model": None, "models": configs, "output": output.model_dump(mode="json")},
        "models": facts,
        JOIN: joined,
    }


def _model_settings(settings: dict[str, Any], model: JoinedModel) -> Iterator[tuple[str, Any]]:
    prefix = f"models.{model.its_name}." if model.its_name else "model."
    for key, value in settings.items():
        if key.startswith(prefix):
            yield f"models.{model.name}.{key.removeprefix(prefix)}", value


def _model_config(config: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in config["models"] if one["name"] == name) if name else config["model"]


def check_continues(before: dict[str, Any], record: dict[str, Any], path: str) -> None:
    """Checks that a joined output is continued with the outputs and names that it was begun with.

    Args:
        before: the `_job.json` of the output at `path`.
        record: what joined_record gives now.

    Raises:
        UserError: it is no joined output, or one of others.
    """
    if JOIN not in before:
        raise UserError(f"--output: {path!r} holds labels that a run has written; give another folder")
    was, now = before[JOIN], record[JOIN]
    described = " and ".join(one["path"] for one in was)
    if [one["models"] for one in was] != [one["models"] for one in now]:
        names = ",".join(name for one in was for name in one["models"])
        raise UserError(f"--output: {path!r} joins {described} with --names {names}; give these, or another folder")
    for old, new in zip(was, now, strict=True):
        if old["fingerprint"] != new["fingerprint"]:
            raise UserError(
                f"--output: {path!r} joins {described}, and {new['path']!r} holds labels of other settings than"
                f" {old['path']!r} did; give another folder"
            )
