"""train: from a labeled corpus to a model folder that the job accepts; what it refuses, and what it leaves untouched."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from jobs.config import check_config
from jobs.start.demo import demo
from jobs.start.labeled_input import list_inputs, read_labeled
from jobs.start.train import TargetConfig, TrainConfig, train
from pipeline_ops.models.config import ModelConfig
from pipeline_ops.models.resolve import resolve_model
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.training.config import TrainingConfig
from tests.conftest import Bucket
from tests.support import REPOSITORY
from tests.support.corpora import write_bytes, write_csv, write_jsonl, write_parquet
from tests.support.running import command, output_files, snapshot, write_job_file

WORDS = {1: ["good", "fine", "great"], 0: ["bad", "poor", "awful"]}
ROWS = [
    {"id": str(index), "review": f"{WORDS[stars][index % 3]} {WORDS[stars][index % 2]}", "stars": stars, "score": 0.5}
    for index in range(30)
    for stars in WORDS
]
UNUSABLE = [{"review": None, "stars": 1}, {"review": " ", "stars": 0}, {"review": "no label", "stars": None}]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    write_parquet(folder / "a.parquet", ROWS[:20])
    write_jsonl(folder / "b.jsonl.zst", [*ROWS[20:40], *UNUSABLE])
    write_csv(folder / "c.csv", ROWS[40:])
    return folder


def settings(source: object, target: object, **changes: Any) -> dict[str, Any]:
    options = {"dim": 16, "n_heads": 2, "n_layers": 1, "hidden_dim": 32, "max_position_embeddings": 32}
    return {
        "input": {"path": str(source), "text_column": "review", "label_column": "stars"},
        "model": {"architecture": {"model_type": "distilbert", "vocab_size": 120, "options": options}},
        "training": {"max_length": 16, "max_steps": 4, "learning_rate": 0.001},
        "output": {"path": str(target)},
        **changes,
    }


def configured(source: object, target: object, **changes: Any) -> TrainConfig:
    return check_config(TrainConfig, settings(source, target, **changes))


def test_train_command_writes_a_model_that_the_job_accepts(corpus: Path, tmp_path: Path):
    job_file = write_job_file(tmp_path / "train.yaml", settings(corpus, tmp_path / "model"))
    finished = command("train", job_file, "training.max_steps=2")
    assert finished.code == 0, finished.stderr
    assert (finished.result["documents"], finished.result["skipped"], finished.result["steps"]) == (60, 3, 2)
    assert finished.result["skipped_by_reason"] == {"null_text": 1, "empty_text": 1, "no_label": 1}
    assert "skipped 3 of 63 rows: 1 without a text, 1 with an empty text, 1 without a label" in finished.stderr
    assert finished.result["max_length"] == 16
    assert "max_length 16" in finished.stderr
    assert finished.result["output"] == str(tmp_path / "model")
    assert "| learning rate | 0.001 |" in (tmp_path / "model" / "README.md").read_text()
    facts, *_ = resolve_model(ModelConfig(path=str(tmp_path / "model")), StorageConfig())
    assert (facts.head.labels, facts.max_length, facts.head.activation) == (("0", "1"), 16, "softmax")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "model", "train.yaml"]


def test_model_is_readable_as_the_umask_says(corpus: Path, tmp_path: Path):
    before = os.umask(0o027)
    try:
        train(configured(corpus, tmp_path / "models" / "model"))
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "models").rglob("*")}
    assert modes.pop("model") == 0o750
    assert "model.safetensors" in modes
    assert set(modes.values()) == {0o640}


def test_every_setting_of_a_training_is_in_the_readme():
    text = (REPOSITORY / "jobs" / "README.md").read_text()
    keys = [f"training.{name}" for name in TrainingConfig.model_fields] + [
        f"output.{name}" for name in TargetConfig.model_fields
    ]
    assert [key for key in keys if f"`{key}`" not in text] == []


def test_train_on_s3_continues_from_its_own_model(s3: Bucket, corpus: Path, tmp_path: Path):
    s3.filesystem.put(str(corpus), f"{s3.name}/", recursive=True)
    storage = {"endpoint_url": s3.endpoint_url, "cache_folder": str(tmp_path / "cache")}
    train(configured(f"{s3.url}/in", f"{s3.url}/first", storage=storage))
    report = train(configured(f"{s3.url}/in", f"{s3.url}/second", storage=storage, model={"path": f"{s3.url}/first"}))
    assert report["documents"] == 60
    facts, *_ = resolve_model(ModelConfig(path=f"{s3.url}/second"), StorageConfig.model_validate(storage))
    assert facts.head.labels == ("0", "1")
    names = {path.rsplit("/", 1)[-1] for path in output_files(f"{s3.name}/second", s3.filesystem)}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names


def test_train_into_a_used_folder_is_refused_or_replaces_all_of_it(corpus: Path, tmp_path: Path):
    target = tmp_path / "model"
    write_jsonl(target / "old.jsonl", [{"a": 1}])
    before = snapshot(target)
    with pytest.raises(UserError, match=r"output.path: .*holds 'old.jsonl'; .*output.overwrite=true"):
        train(configured(corpus, target))
    assert snapshot(target) == before
    train(configured(corpus, target, output={"path": str(target), "overwrite": True}))
    assert (target / "model.safetensors").is_file()
    assert not (target / "old.jsonl").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "model"]


@pytest.mark.parametrize("place", ["model", "model/labeled"])
@pytest.mark.parametrize("name", ["_job.json", "_commits/00-aa.json", "_lease/0000000001.json"])
def test_train_never_replaces_the_labels_of_a_job(corpus: Path, tmp_path: Path, place: str, name: str):
    target = tmp_path / "model"
    write_bytes(tmp_path / place / name, b"{}")
    write_bytes(tmp_path / place / "label=1" / "00-aa.parquet", b"labels")
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match=r"output.path: .*holds the labels of a job"):
        train(configured(corpus, target, output={"path": str(target), "overwrite": True}))
    assert snapshot(tmp_path) == before


def test_train_never_replaces_labels_on_s3(s3: Bucket, corpus: Path):
    s3.filesystem.pipe(f"{s3.name}/model/_job.json", b"{}")
    s3.filesystem.pipe(f"{s3.name}/model/label=1/00-aa.parquet", b"labels")
    before = output_files(s3.name, s3.filesystem)
    target = {"path": f"{s3.url}/model", "overwrite": True}
    with pytest.raises(UserError, match=r"output.path: .*holds the labels of a job"):
        train(configured(corpus, "", output=target, storage={"endpoint_url": s3.endpoint_url}))
    assert output_files(s3.name, s3.filesystem) == before


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("in", "in", r"output\.path: .*is inside the input .*: the model's files would become input"),
        ("in", ".", r"input\.path: .*is inside the output"),
        ("in", "in/model", r"output\.path: .*is inside the input"),
        ("in", "link/model", r"output\.path: .*is inside the input"),
        ("in", "link", r"input\.path: .*is inside the output"),
        ("link", "in", r"input\.path: .*is inside the output"),
        ("*/a.parquet", "in", r"output\.path: .*is inside the input"),
        ("link/a.parquet", "in", r"input\.path: .*is inside the output"),
        ("links", "in", r"output\.path: .*holds the input file .*links/b\.jsonl\.zst"),
        ("links", "links/deep", r"output\.path: .*is inside the input"),
        ("in", "file", r"output\.path: .*is a file; give a folder"),
    ],
)
def test_train_never_replaces_or_joins_its_corpus_or_a_file(
    corpus: Path, tmp_path: Path, source: str, target: str, message: str
):
    write_bytes(tmp_path / "file", b"")
    (tmp_path / "link").symlink_to(corpus)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "b.jsonl.zst").symlink_to(corpus / "b.jsonl.zst")
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match=message) as raised:
        train(configured(tmp_path / source, "", output={"path": str(tmp_path / target), "overwrite": True}))
    assert "\n" not in str(raised.value)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("target", ["model", ".", "link"])
def test_train_never_replaces_the_model_that_it_starts_from(corpus: Path, tmp_path: Path, target: str):
    write_bytes(tmp_path / "models" / "model" / "config.json", b"{}")
    (tmp_path / "models" / "link").symlink_to(tmp_path / "models" / "model")
    before = snapshot(tmp_path)
    start, output = tmp_path / "models" / "model", {"path": str(tmp_path / "models" / target), "overwrite": True}
    with pytest.raises(UserError, match=r"output\.path: .*holds model\.path"):
        train(configured(corpus, "", model={"path": str(start)}, output=output))
    assert snapshot(tmp_path) == before


def test_train_never_replaces_its_corpus_or_its_start_on_s3(s3: Bucket):
    s3.filesystem.pipe(f"{s3.name}/in/a.csv", b"review,stars\ngood,1\n")
    s3.filesystem.pipe(f"{s3.name}/models/one/config.json", b"{}")
    before = output_files(s3.name, s3.filesystem)
    for target, message in (("in/", "input"), ("in/model", "is inside the input"), ("models", "holds model.path")):
        output, storage = {"path": f"{s3.url}/{target}", "overwrite": True}, {"endpoint_url": s3.endpoint_url}
        with pytest.raises(UserError, match=message):
            train(configured(f"{s3.url}/in", "", model={"path": f"{s3.url}/models/one"}, output=output, storage=storage))
    assert output_files(s3.name, s3.filesystem) == before


def test_demo_never_deletes_labels_that_are_not_its_own(tmp_path: Path):
    write_bytes(tmp_path / "labeled" / "_job.json", b'{"config": {"model": {"path": "mine"}}}')
    with pytest.raises(UserError, match=r"--folder: .*labeled' is not the output of a demo"):
        demo(str(tmp_path))
    assert (tmp_path / "labeled" / "_job.json").is_file()


def test_train_that_fails_leaves_the_old_model(corpus: Path, tmp_path: Path):
    target = tmp_path / "model"
    write_jsonl(target / "old.jsonl", [{"a": 1}])
    before = snapshot(target)
    with pytest.raises(UserError, match="n_heads"):
        train(
            configured(
                corpus,
                target,
                model={"architecture": {"model_type": "distilbert", "options": {"dim": 16, "n_heads": 3}}},
                output={"path": str(target), "overwrite": True},
            )
        )
    assert snapshot(target) == before


def test_read_labeled_stops_at_the_limit(corpus: Path, tmp_path: Path):
    config = configured(corpus, tmp_path / "model")
    found = read_labeled(list_inputs(config.input, config.storage), config.input, config.storage, 15)
    assert found.texts == [row["review"] for row in ROWS[:15]]
    assert found.labels == [str(row["stars"]) for row in ROWS[:15]]
    assert found.sources == [(str(corpus / "a.parquet"), row) for row in range(15)]
    assert not found.skipped


def test_read_labeled_label_named_like_a_column_that_the_job_adds(corpus: Path, tmp_path: Path):
    config = configured(corpus, tmp_path / "model")
    source = config.input.model_copy(update={"label_column": "score"})
    assert set(read_labeled(list_inputs(source, config.storage), source, config.storage, 1000).labels) == {"0.5"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": {"path": "IN", "text_column": "review", "label_column": "grade"}}, "no column 'grade'; it has .*stars"),
        ({"input": {"path": "IN", "text_column": "body", "label_column": "stars"}}, "input.text_column"),
        ({"input": {"path": "IN/none.csv", "label_column": "stars"}}, "input.path"),
        ({"model": {}}, "model: .*one of model.path and model.architecture"),
        ({"model": {"path": "a", "architecture": {"model_type": "bert"}}}, "one of model.path and model.architecture"),
        ({"training": {"epoch": 3}}, "training.epoch: unknown key; did you mean training.epochs"),
    ],
)
def test_train_mistakes_are_named_in_one_line(corpus: Path, tmp_path: Path, changes: dict[str, Any], message: str):
    for section in changes.values():
        if "path" in section:
            section["path"] = section["path"].replace("IN", str(corpus))
    with pytest.raises(UserError, match=message) as raised:
        train(configured(corpus, tmp_path / "model", **changes))
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_model_that_cannot_be_found_is_said_before_the_documents_are_read(corpus: Path, tmp_path: Path):
    settings = {"input": {"path": str(corpus)}, "model": {"path": "some-user/some-model"}, "training": {"epochs": 1}}
    settings["output"] = {"path": str(tmp_path / "model")}
    finished = command("train", write_job_file(tmp_path / "train.yaml", settings))
    assert (finished.code, finished.stdout) == (2, "")
    assert "some-user/some-model" in finished.error_lines[-1]
    assert "model.architecture" in finished.error_lines[-1]
    assert len(finished.error_lines) <= 2


def test_a_corpus_of_which_most_rows_are_rejected_is_refused(corpus: Path, tmp_path: Path):
    write_jsonl(corpus / "d.jsonl", [{"text": "another column", "stars": 1}] * 100)
    job_file = write_job_file(tmp_path / "train.yaml", settings(corpus, tmp_path / "model"))
    finished = command("train", job_file, "--quiet")
    assert (finished.code, finished.stdout) == (2, "")
    assert "input.max_reject_share: 101 of 163 rows" in finished.stderr
    assert "rejected as null_text; does input.text_column name the texts?" in finished.stderr
    assert not (tmp_path / "model").exists()
    assert command("train", job_file, "--quiet", "input.max_reject_share=0.7", "training.max_steps=1").code == 0
