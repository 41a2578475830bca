"""What a newcomer gets wrong first: one line that names the field, the value and the remedy, before anything runs."""

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.config import check_config
from jobs.run.plan import plan
from jobs.start.demo import demo
from jobs.start.train import TrainConfig, train
from pipeline_ops.schema.errors import UserError
from tests.support.corpora import write_jsonl, write_parquet
from tests.support.running import command, make_job

ROW = {"text": "a text", "body": "another one", "number": 1}


def refused(source: object, model: object, target: object, *overrides: str) -> str:
    """The line that plan refuses a job with."""
    with pytest.raises(UserError) as caught:
        plan(make_job(source, model, target, *overrides))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(params=["jsonl", "parquet"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    writes: dict[str, Any] = {"jsonl": write_jsonl, "parquet": write_parquet}
    return writes[request.param](tmp_path / "in" / f"a.{request.param}", [ROW] * 3)


def test_partitions_by_values_that_no_folder_names_are_refused(model: Path, tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in" / "a.parquet", [{"text": "a", "parts": [1], "hash": b"\x00"}])
    for name, kind in (("parts", "list<element: int64>"), ("hash", "binary")):
        said = refused(source, model, tmp_path / "out", f"output.partition_by=[{name}]")
        assert f"output.partition_by: the column {name!r} is {kind}, which the name of a folder cannot hold" in said
        assert f"input.column_types={{{name}: string}}" in said
    assert plan(make_job(source, model, tmp_path / "out", "output.partition_by=[hash]", "input.column_types={hash: string}"))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("input.text_column=txt", "did you mean 'text'? it has 'text', 'body', 'number'"),
        ("input.text_pair_column=bodi", "did you mean 'body'?"),
        ("input.text_column=number", "is int64, not text; name a column of texts"),
        ("output.partition_by=[kind]", "no column 'kind'"),
        ("output.partition_by=[kind]", "there are 'body', 'label'"),
        ("model.max_length=100000", "128 positions"),
        ("model.max_length=1", "give more"),
    ],
)
def test_setting_that_does_not_fit_the_input_or_the_model_is_named(
    source: Path, model: Path, tmp_path: Path, setting: str, said: str
) -> None:
    text = refused(source, model, tmp_path / "out", setting)
    assert text.startswith(f"{setting.split('=')[0]}: ")
    assert said in text


def test_numbers_among_texts_are_rejected_one_by_one(model: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": 1}, {"text": 2}, {"text": "a text"}])
    assert plan(make_job(source, model, tmp_path / "out"))["files_to_run"] == 1


def test_folder_that_is_no_model_is_named(model: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [ROW])
    (tmp_path / "empty").mkdir()
    assert "holds no config.json" in refused(source, tmp_path / "empty", tmp_path / "out")
    pickled = shutil.copytree(model, tmp_path / "pickled")
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    assert "model.allow_pickled_weights" in refused(source, pickled, tmp_path / "out")
    assert plan(make_job(source, pickled, tmp_path / "out", "model.allow_pickled_weights=true"))["files_to_run"] == 1


def test_store_without_credentials_says_where_they_come_from(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    text = refused("s3://bucket/in", model, tmp_path / "out", "storage.endpoint_url=http://127.0.0.1:9")
    assert text.startswith("input.path: 's3://bucket/in'")
    assert "AWS_ACCESS_KEY_ID" in text


def test_training_without_its_label_column_names_those_there_are(model: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [ROW])
    settings = {"input": {"path": str(source)}, "model": {"path": str(model)}, "output": {"path": str(tmp_path / "out")}}
    with pytest.raises(UserError, match=r"input\.label_column: .* 'label'; it has text, body, number"):
        train(check_config(TrainConfig, settings))


def test_demo_in_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match="--folder"):
        demo(str(tmp_path / "file" / "demo"))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ([], "Usage"),
        (["rn", "job.yaml"], "Did you mean 'run'?"),
        (["run"], "Missing argument 'JOB.yaml'"),
        (["inspect", "a text"], "Missing option '--model'"),
        (["plan", "job.yaml", "--cluste", "3"], "--cluster"),
        (["train", "no.yaml"], "no such file 'no.yaml'; give the path of a training file"),
        (["run", "job.yaml", "--model", "x"], "--model; write model.path=VALUE"),
        (["plan", "job.yaml", "--text-column=x"], "--text-column; write input.text_column=VALUE"),
        (["init", "in", "--batch_token", "5"], "write compute.batch_tokens=VALUE"),
        (["train", "job.yaml", "--epochs", "5"], "write training.epochs=VALUE"),
        (["run", "job.yaml", "--retry-faild"], "(Possible options: --retry-failed)"),
        (["run", "job.yaml", "--max-score", "1"], "--max-score; it is an option of show"),
        (["report", "job.yaml", "--truth", "x"], "--truth; it is an option of evaluate, compare"),
        (["evaluate", "job.yaml", "--model-b", "x"], "--model-b; it is an option of compare"),
        (["status", "labeled", "--path-style", "1"], "--path-style; write storage.path_style=VALUE"),
        (["inspect", "a text", "--max-length", "5"], "--max-length; write model.max_length=VALUE"),
    ],
)
def test_command_that_is_not_complete_exits_2(typed: list[str], said: str) -> None:
    finished = command(*typed)
    assert finished.code == 2
    assert said in finished.stdout + finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    "typed",
    [
        ["report", "labeled", "--model", "x"],  # another model would not change the labels
        ["verify", "job.yaml", "--max-length", "5"],
        ["join", "a", "b", "--model", "x"],
        ["inspect", "a text", "--batch-tokens", "5"],
    ],
)
def test_unknown_option_is_not_answered_by_what_does_not_apply(typed: list[str]) -> None:
    finished = command(*typed)
    assert finished.code == 2
    assert f"No such option: {typed[-2]}" in finished.stderr
    assert "VALUE" not in finished.stderr.split("No such option")[1]  # it is in the line of usage
    assert "Possible options" not in finished.stderr


def test_version_is_the_packages() -> None:
    finished = command("--version")
    assert (finished.code, finished.stdout) == (0, f"label-corpus {version('label-corpus')}\n")


def test_missing_path_comes_with_the_nearest_one(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_jsonl(tmp_path / "reviews" / "a.jsonl", [ROW] * 3)
    shutil.copytree(model, tmp_path / "my-classifier")
    assert "does not exist or holds no files; did you mean 'reviews'?" in refused("review", model, "out")
    assert "no such folder 'my-clasifier'" in refused(source, "my-clasifier", "out")
    assert refused(source, "my-clasifier", "out").endswith("; did you mean 'my-classifier'?")
    (tmp_path / "labeled").mkdir()
    finished = command("status", "labelled")
    assert finished.code == 2
    assert finished.stderr.endswith("; did you mean 'labeled'?\n")
