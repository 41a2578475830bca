"""`label-corpus schema`: an editor that goes by it accepts what the commands accept, and marks unknown keys."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from jobs.config import JobConfig, check_config
from jobs.start.json_schema import schema_of
from jobs.start.train import TrainConfig
from tests.support import REPOSITORY
from tests.support.running import command

JOBS = [
    "{input: tweets/, model: my-classifier, output: labeled/}",
    "{input: {path: a}, model: {path: m}, output: {path: o}}",
    "{input: {path: a, text_column: body, column_types: {year: int32}, quote: null}, model: {path: m, max_length: 128},"
    " output: {path: o, partition_by: [], columns: none}}",
    "{input: {path: a}, model: {path: m, id2label: {0: bad, LABEL_1: good}, threshold: {x: 0.5}}, output: {path: o},"
    " compute: {classifiers: {min: 1, max: 4}, tokenizers: auto, max_failed_units: null},"
    " storage: {endpoint_url: 'http://127.0.0.1:9000'}}",
    "{input: {path: a}, models: [{name: x, path: m}, {name: y, path: n}], output: {path: o, partition_by: [x_label]}}",
]
TRAININGS = [
    "{input: reviews.csv, model: my-encoder, output: my-classifier}",
    "{input: {path: a, label_column: l}, model: {path: m}, output: {path: o}}",
    "{input: {path: a}, model: {architecture: {model_type: distilbert, options: {dim: 64}}}, training: {epochs: 1},"
    " output: {path: o, overwrite: true}}",
]
MISTAKES = [
    "{input: {path: a, text_colum: body}, model: {path: m}, output: {path: o}}",
    "{input: {path: a}, model: {path: m}, output: {path: o}, computes: {}}",
    "{input: {path: a}, model: {path: m}, output: {path: o}, compute: {classifiers: {min: 1, most: 4}}}",
    "{input: {path: a}, model: {path: m}, output: {path: o, partition_by: label}}",
    "{input: {path: a}, model: {path: m, dtype: float8}, output: {path: o}}",
    "{input: {path: a}, output: {path: o}}",
    "{input: {path: a}, model: {path: m}, models: [{name: x, path: m}], output: {path: o, partition_by: []}}",
    "{model: {path: m}, output: {path: o}}",
]


def mistakes(kind: Any, file: str) -> list[str]:
    # an editor's keys are text
    return [error.message for error in Draft202012Validator(schema_of(kind)).iter_errors(json.loads(as_json(file)))]


def as_json(file: str) -> str:
    return json.dumps(yaml.safe_load(file))


def objects(schema: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of an object with keys, and where it stands."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield place, schema
        for name, part in schema.items():
            yield from objects(part, f"{place}/{name}")


@pytest.mark.parametrize("kind", ["job", "train"])
def test_schema_has_a_title_and_says_what_each_key_means(kind: Any) -> None:
    schema = schema_of(kind)
    Draft202012Validator.check_schema(schema)
    assert schema["title"].startswith("label-corpus")
    found = dict(objects(schema))
    assert len(found) >= 6
    for place, section in found.items():
        assert section["additionalProperties"] is False, place
        assert [key for key, value in section["properties"].items() if not value.get("description")] == [], place


@pytest.mark.parametrize("file", JOBS)
def test_good_job_is_valid(file: str) -> None:
    check_config(JobConfig, yaml.safe_load(file))
    assert mistakes("job", file) == []


@pytest.mark.parametrize("file", TRAININGS)
def test_good_training_is_valid(file: str) -> None:
    check_config(TrainConfig, yaml.safe_load(file))
    assert mistakes("train", file) == []


def test_job_file_of_the_repository_is_valid() -> None:
    assert mistakes("job", (REPOSITORY / "jobs" / "sst2.yaml").read_text()) == []


@pytest.mark.parametrize("file", MISTAKES)
def test_mistake_is_marked(file: str) -> None:
    with pytest.raises(ValueError):
        check_config(JobConfig, yaml.safe_load(file))
    assert mistakes("job", file) != []


def test_command_prints_one_line_that_is_the_schema() -> None:
    for arguments, kind in (([], "job"), (["job"], "job"), (["train"], "train")):
        finished = command("schema", *arguments)
        assert finished.code == 0, finished.stderr
        assert len(finished.stdout.splitlines()) == 1
        assert finished.result == schema_of(kind)  # pyright: ignore[reportArgumentType]
    assert command("schema", "jobs").code == 2
