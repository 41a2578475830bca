"""The job file: what is accepted, and one line for what is not."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.config import JobConfig, check_config, load_job, override
from pipeline_ops.schema.errors import UserError
from tests.support.running import command, write_job_file

SECTIONS: dict[str, Any] = {"input": {"path": "in"}, "model": {"path": "some/model"}, "output": {"path": "out"}}


@pytest.fixture
def job_file(tmp_path: Path) -> str:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(SECTIONS))
    return str(path)


def mistake(path: str, *overrides: str) -> str:
    """The one line that says what is wrong."""
    with pytest.raises(UserError) as caught:
        load_job(path, list(overrides))
    text = str(caught.value)
    assert "\n" not in text
    assert "pydantic" not in text
    return text


def test_job_with_the_needed_keys_has_defaults_for_the_rest(job_file: str) -> None:
    job = load_job(job_file)
    assert (job.input.path, job.named_models()[""].path, job.output.path) == ("in", "some/model", "out")
    assert (job.input.text_column, job.output.partition_by, job.compute.unit_bytes) == ("text", ("label",), "auto")


def test_job_with_every_key_written_out_is_the_same(job_file: str, tmp_path: Path) -> None:
    job = load_job(job_file)
    (tmp_path / "full.yaml").write_text(yaml.safe_dump(json.loads(job.model_dump_json())))
    assert load_job(str(tmp_path / "full.yaml")) == job


@pytest.mark.parametrize(
    ("setting", "section", "key", "expected"),
    [
        ("compute.batch_tokens=4096", "compute", "batch_tokens", 4096),
        ("compute.gpus_per_classifier=0.5", "compute", "gpus_per_classifier", 0.5),
        ("compute.gpus_per_classifier=0", "compute", "gpus_per_classifier", 0),
        ("compute.tokenizers=auto", "compute", "tokenizers", "auto"),
        ("model.max_length=128", "model", "max_length", 128),
        ("model.revision=main", "model", "revision", "main"),
        ("output.columns=[id, year]", "output", "columns", ("id", "year")),
        ("output.columns=none", "output", "columns", "none"),
        ("output.partition_by=[]", "output", "partition_by", ()),
        ("output.scores=true", "output", "scores", True),
        ("input.path=s3://bucket/a=b/*.jsonl", "input", "path", "s3://bucket/a=b/*.jsonl"),
        ("input.quote=null", "input", "quote", None),
        ("input.escape=\\", "input", "escape", "\\"),
        ("input.header=false", "input", "header", False),
        ("input.header=[said, stars]", "input", "header", ("said", "stars")),
        ('input.delimiter="\\t"', "input", "delimiter", "\t"),
        ("input.column_types={year: int16}", "input", "column_types", {"year": "int16"}),
        ("input.column_types.year=int16", "input", "column_types", {"year": "int16"}),
        ("storage.endpoint_url=http://127.0.0.1:9000", "storage", "endpoint_url", "http://127.0.0.1:9000"),
    ],
)
def test_override_sets_the_key(job_file: str, setting: str, section: str, key: str, expected: object) -> None:
    assert getattr(getattr(load_job(job_file, [setting]), section), key) == expected


def test_override_later_ones_win_over_earlier_ones_and_the_file(job_file: str) -> None:
    job = load_job(job_file, ["output.path=first", "output.path=second"])
    assert job.output.path == "second"
    assert load_job(job_file).output.path == "out"


def test_overrides_alone_make_a_job(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    job = load_job(str(tmp_path / "empty.yaml"), ["input.path=a", "model.path=b", "output.path=c"])
    assert (job.input.path, job.named_models()[""].path, job.output.path) == ("a", "b", "c")


@pytest.mark.parametrize(
    ("setting", "unknown", "nearest"),
    [
        ("input.text_colum=body", "input.text_colum", "input.text_column"),
        ("compute.batch_token=1", "compute.batch_token", "compute.batch_tokens"),
        ("computes.batch_tokens=1", "computes", "compute"),
        ("model.maxlength=1", "model.maxlength", "model.max_length"),
        ("output.partitionby=[]", "output.partitionby", "output.partition_by"),
    ],
)
def test_unknown_key_is_named_with_the_nearest_one(job_file: str, setting: str, unknown: str, nearest: str) -> None:
    text = mistake(job_file, setting)
    assert text.startswith(f"{unknown}: ")
    assert f"{nearest}?" in text


def test_unknown_key_near_to_none_names_those_there_are(job_file: str) -> None:
    text = mistake(job_file, "xyz=1")
    assert text.startswith("xyz: ")
    assert all(section in text for section in JobConfig.model_fields)


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("compute.batch_tokens=many", "compute.batch_tokens"),
        ("compute.batch_tokens=-1", "compute.batch_tokens"),
        ("compute.tokenizers=0", "compute.tokenizers"),
        ("compute.tokenizers=2.5", "compute.tokenizers"),
        ("compute.gpus_per_classifier=-1", "compute.gpus_per_classifier"),
        ("compute.unit_bytes=32MB", "compute.unit_bytes"),
        ("model.max_length=12.5", "model.max_length"),
        ("model.dtype=float8", "model.dtype"),
        ("input.format=xml", "input.format"),
        ("input.path=", "input.path"),
        ("input.path=[a]", "input.path"),
        ("input.delimiter='||'", "input.delimiter"),
        ("input.delimiter=§", "input.delimiter"),
        ("input.escape='\"'", "input.escape"),
        ("input.quote=','", "input.quote"),
        ("input.header=[]", "input.header"),
        ("input.header=[a, a]", "input.header"),
        ("input.header=[a, '']", "input.header"),
        ("input.column_types={year: integer}", "input.column_types"),
        ("input.column_types=[a]", "input.column_types"),
        ("output.columns=some", "output.columns"),
        ("output.scores=perhaps", "output.scores"),
        ("input=5", "input"),
    ],
)
def test_value_that_does_not_do_names_key_and_value(job_file: str, setting: str, key: str) -> None:
    text = mistake(job_file, setting)
    assert text.startswith(f"{key}: ")
    assert "; " not in text.removeprefix(key)[:20]
    assert text.count(f"{key}:") == 1  # once, not per branch of a union


def test_several_mistakes_are_all_named_in_one_line(job_file: str) -> None:
    text = mistake(job_file, "compute.batch_tokens=many", "input.formats=csv", "model.dtype=float8")
    assert all(f"{key}: " in text for key in ("compute.batch_tokens", "input.formats", "model.dtype"))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", ["input.path", "model.path", "output.path"]),
        ("input: {path: a}\n", ["model.path", "output.path"]),
        ("input: {}\nmodel: {path: m}\noutput: {path: o}\n", ["input.path"]),
    ],
)
def test_missing_keys_are_named(tmp_path: Path, content: str, named: list[str]) -> None:
    (tmp_path / "job.yaml").write_text(content)
    text = mistake(str(tmp_path / "job.yaml"))
    assert [part.split(" is missing: ")[0] for part in text.split("; ")] == named


@pytest.mark.parametrize("content", [b"- a\n- b\n", b"just text", b"a: [b", b"\xff\xfe\x00", b"a: b: c", b"5"])
def test_file_that_is_no_job_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    assert str(path) in mistake(str(path))


def test_tabs_are_told_from_other_broken_yaml(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("input:\n\tpath: in\n")
    assert "by spaces, not by tabs" in mistake(str(tmp_path / "job.yaml"))
    (tmp_path / "job.yaml").write_text("input: {path: in\n")
    assert "not by tabs" not in mistake(str(tmp_path / "job.yaml"))


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("input=null", "input.path is missing: a file, folder or glob"),
        ("output=5", "output: invalid value 5: give a path, or {path: PATH, ...}"),
        ("model=null", "model.path is missing: a hub id or a folder; or give models"),
        ("compute=5", "compute: invalid value 5: expected the keys tokenizers"),
        ("output.partition_by=label", "expected a list, such as [label]"),
        ("storage.endpoint_url=minio.local:9000", "such as https://minio.local:9000"),
    ],
)
def test_value_of_the_wrong_kind_comes_with_one_that_does(job_file: str, setting: str, remedy: str) -> None:
    assert remedy in mistake(job_file, setting)


def test_file_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").touch()
    assert mistake(str(tmp_path / "quite-another.yaml")).endswith("quite-another.yaml'; give the path of a job file")
    assert mistake(str(tmp_path / "jbo.yaml")) == f"no such file '{tmp_path}/jbo.yaml'; did you mean '{tmp_path}/job.yaml'?"
    assert (
        mistake(str(tmp_path))
        == f"{tmp_path} is a folder; give the path of a job file; `label-corpus init {tmp_path}` writes one"
    )


def test_section_may_be_a_path_alone(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("input: tweets/\nmodel: my-classifier\noutput: labeled/\n")
    job = load_job(str(tmp_path / "job.yaml"))
    assert job == check_config(JobConfig, {name: {"path": value.path} for name, value in job if name in SECTIONS})
    changed = load_job(str(tmp_path / "job.yaml"), ["model.max_length=64", "output.scores=true", "model=another", "input=in"])
    assert changed.model is not None
    assert (changed.model.path, changed.model.max_length, changed.input.path) == ("another", 64, "in")
    assert (changed.output.path, changed.output.scores) == ("labeled/", True)


@pytest.mark.parametrize("setting", ["compute", "=5", "compute.=5", "input.path.deeper=5", "compute.batch_tokens=[1"])
def test_override_that_is_none_is_quoted(job_file: str, setting: str) -> None:
    assert repr(setting) in mistake(job_file, setting)


def test_override_changes_only_its_key() -> None:
    settings: dict[str, Any] = {"compute": {"batch_tokens": 1, "tokenizers": 2}, "storage": None}
    override(settings, "compute.batch_tokens=5")
    override(settings, "storage.region=eu-west-1")
    assert settings == {"compute": {"batch_tokens": 5, "tokenizers": 2}, "storage": {"region": "eu-west-1"}}


@pytest.mark.parametrize("key", ["aws_secret_access_key", "secret", "key", "token"])
def test_secrets_are_no_settings_and_are_not_repeated(job_file: str, key: str) -> None:
    text = mistake(job_file, f"storage.{key}=hush-hush")
    assert text.startswith(f"storage.{key}: unknown key")
    assert "hush-hush" not in text


@pytest.mark.parametrize(
    "columns",
    [
        {"label_name": "score"},
        {"label_name": "source_file"},
        {"scores": True, "scores_column": "score"},
        {"num_tokens_column": "truncated"},
    ],
)
def test_two_added_columns_of_one_name_are_a_users_mistake(columns: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="output"):
        check_config(JobConfig, {**SECTIONS, "output": {"path": "out", **columns}})


def test_job_cannot_be_changed_after_it_was_checked(job_file: str) -> None:
    job: Any = load_job(job_file)
    with pytest.raises(ValueError, match="frozen"):
        job.compute = None


TRAINING: dict[str, Any] = {**SECTIONS, "input": {"path": "in", "label_column": "stars"}}


@pytest.mark.parametrize(
    "settings",
    [
        TRAINING,
        {**SECTIONS, "training": {"epochs": 1}},
        {**SECTIONS, "model": {"architecture": {"model_type": "bert"}}},
        {**SECTIONS, "output": {"path": "out", "overwrite": True}},
    ],
)
@pytest.mark.parametrize("name", ["run", "plan", "verify", "status", "sweep", "submit"])
def test_training_file_in_place_of_a_job_is_named(tmp_path: Path, settings: dict[str, Any], name: str) -> None:
    path = write_job_file(tmp_path / "train.yaml", settings)
    finished = command(name, path)
    assert finished.code == 2
    assert f"{path}: is a training file, not a labeling job; label-corpus train {path} " in finished.stderr
    assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "settings",
    [
        SECTIONS,
        {**SECTIONS, "compute": {"unit_bytes": 1000}},
        {**SECTIONS, "output": {"path": "out", "partition_by": []}},
        {**TRAINING, "models": [{"name": "a", "path": "m"}]},
    ],
)
def test_job_in_place_of_a_training_file_is_named(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = write_job_file(tmp_path / "job.yaml", settings)
    finished = command("train", path, "model.revision=main")
    assert finished.code == 2
    assert f"{path}: is a labeling job, not a training file; label-corpus run {path} " in finished.stderr
    assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize("setting", ["input.label_column=stars", "training.epochs=1", "output.overwrite=true"])
def test_overrides_make_a_training_of_a_file_that_can_be_either(tmp_path: Path, setting: str) -> None:
    path = write_job_file(
        tmp_path / "train.yaml", {"input": str(tmp_path / "in"), "model": "m", "output": str(tmp_path / "out")}
    )
    finished = command("train", path, setting)
    assert finished.code == 2
    assert "input.path: " in finished.stderr, finished.stderr  # which is not there
    assert "is a labeling job" not in finished.stderr


def test_key_of_a_training_in_a_job_is_an_unknown_key(tmp_path: Path) -> None:
    path = write_job_file(tmp_path / "job.yaml", {**TRAINING, "compute": {"unit_bytes": 1000}})
    assert "input.label_column: unknown key" in mistake(str(path))
