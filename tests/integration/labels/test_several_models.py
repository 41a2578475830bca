"""Several models in one pass: each gives what it gives alone, and each document is in the output once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from jobs.config import JobConfig, check_config, override
from jobs.maintenance.verify import verify
from jobs.run.plan import plan
from pipeline_ops.schema.errors import UserError
from tests.models.architectures import make_classifier
from tests.models.tiny import RAISING_WORD, make_poisonous_model
from tests.support.corpora import real_documents, write_jsonl
from tests.support.invariant import check_exactly_once
from tests.support.running import command, job_settings, keys, make_job, write_job_file
from tests.support.serial_chain import run_serially

TEXTS = [text[:800] for text in real_documents(60, seed=3)]
ANSWERS = ("label", "score", "num_tokens", "truncated", "logits")
PARTITIONS = ("output.partition_by=[quality_label]",)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "quality": make_classifier(folder / "quality", "RoBERTa", ("good", "bad"), 64),
        "topic": make_classifier(folder / "topic", "RoBERTa", ("art", "law", "maths"), 64, seed=1),  # the same tokenizer
        "language": make_classifier(folder / "language", "BERT", ("de", "en"), 128),
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text, "label": "an input's own"} for text in TEXTS])


def settings_of(source: Path, models: dict[str, Any], target: Path, *overrides: str) -> dict[str, Any]:
    settings = job_settings(source, "-", target, *overrides)
    settings.pop("model")
    named = [{"path": str(given)} if isinstance(given, Path) else given for given in models.values()]
    settings["models"] = [{"name": name, "dtype": "float32", **model} for name, model in zip(models, named, strict=True)]
    return settings


def job_of(source: Path, models: dict[str, Any], target: Path, *overrides: str) -> JobConfig:
    return check_config(JobConfig, settings_of(source, models, target, *overrides))


def rows_of(target: Path, source: Path) -> pa.Table:
    labeled, rejects = check_exactly_once(target, keys(source, len(TEXTS)))
    assert rejects == []
    return labeled.sort_by("source_row")


def test_each_model_gives_what_it_gives_alone(models: dict[str, Path], source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    summary = run_serially(job_of(source.parent, models, target, *PARTITIONS, "output.logits=true"), quiet=True)
    together = rows_of(target, source)
    assert {path.name for path in target.glob("quality_label=*")} == {"quality_label=good", "quality_label=bad"}
    assert set(together["label"].to_pylist()) == {"an input's own"}
    tokens = 0
    for name, path in models.items():
        alone_folder = tmp_path / name
        columns = [f"output.{column}_column=its_{column}" for column in ANSWERS]
        run_serially(
            make_job(source.parent, path, alone_folder, "output.logits=true", "output.partition_by=[]", *columns), quiet=True
        )
        alone = rows_of(alone_folder, source)
        for column in ANSWERS:
            found, expected = together[f"{name}_{column}"].to_pylist(), alone[f"its_{column}"].to_pylist()
            if column in ("score", "logits"):
                np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
            else:
                assert found == expected
        tokens += sum(alone["its_num_tokens"].to_pylist())
        counted = {label: summary.labels[f"{name}={label}"] for label in set(together[f"{name}_label"].to_pylist())}
        assert sum(counted.values()) == len(TEXTS)
    assert summary.tokens == tokens
    assert verify(job_of(source.parent, models, target, *PARTITIONS, "output.logits=true"), deep=True)["ok"]
    written = f"read_parquet('{target}/quality_label=*/*.parquet', hive_partitioning=true)"
    query = f"SELECT quality_label, count(*) FROM {written} GROUP BY 1"
    counts = {label: together["quality_label"].to_pylist().count(label) for label in ("good", "bad")}
    assert dict(duckdb.connect().execute(query).fetchall()) == counts


def test_settings_of_each_model_are_its_own(models: dict[str, Path], source: Path, tmp_path: Path) -> None:
    given = {
        "quality": {"path": str(models["quality"]), "min_score": 0.9, "fallback_label": "unsure"},
        "topic": {"path": str(models["topic"]), "problem_type": "multi_label_classification", "threshold": 0.2},
        "windows": {"path": str(models["topic"]), "max_length": 32, "long_documents": "windows", "stride": 4},
    }
    run_serially(job_of(source.parent, given, tmp_path / "out", "output.partition_by=[]", "output.embedding=mean"), quiet=True)
    labeled = rows_of(tmp_path / "out", source)
    assert "unsure" in labeled["quality_label"].to_pylist()
    assert max(map(len, labeled["topic_labels"].to_pylist())) > 1
    assert max(labeled["windows_num_windows"].to_pylist()) > 2
    assert {"quality_labels", "topic_num_windows", "quality_num_windows"}.isdisjoint(labeled.column_names)
    assert all(f"{name}_embedding" in labeled.column_names for name in given)


def test_a_run_names_the_models_whose_labels_have_no_names(
    models: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "a text"}])
    nameless = {"path": str(models["topic"]), "id2label": {number: f"LABEL_{number}" for number in range(3)}}
    given = {"first": nameless, "quality": models["quality"], "second": nameless}
    run_serially(job_of(source, given, tmp_path / "out", "output.partition_by=[]"))
    said = [line for line in capfd.readouterr().err.splitlines() if "LABEL_0" in line]
    assert said == [
        f"{name}'s labels have no names (LABEL_0, ...): set models.{name}.id2label to name them" for name in ("first", "second")
    ]


def test_changed_input_replaces_the_rows_of_all_models(models: dict[str, Path], source: Path, tmp_path: Path) -> None:
    other = write_jsonl(source.parent / "b.jsonl", [{"text": f"another text {row}", "label": "x"} for row in range(5)])
    job = job_of(source.parent, models, tmp_path / "out", *PARTITIONS)
    run_serially(job, quiet=True)
    write_jsonl(other, [{"text": f"a changed text {row}", "label": "x"} for row in range(7)])
    summary = run_serially(job, quiet=True)
    labeled, _ = check_exactly_once(tmp_path / "out", [*keys(source, len(TEXTS)), *keys(other, 7)])
    for name in models:
        counted = {key: count for key, count in summary.labels.items() if key.startswith(f"{name}=")}
        assert sum(counted.values()) == labeled.num_rows
    assert verify(job, deep=True)["ok"]


def test_document_that_one_of_the_models_cannot_read_is_rejected_once(models: dict[str, Path], tmp_path: Path) -> None:
    poisonous = make_poisonous_model(tmp_path / "poisonous", tmp_path / "cured")
    rows = [{"text": "a text"}, {"text": f"with {RAISING_WORD} in it"}, {"text": "another text"}]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    given = {
        "first": {"path": str(poisonous), "trust_remote_code": True},
        "quality": models["quality"],
        "second": {"path": str(poisonous), "trust_remote_code": True, "max_length": 64},
    }
    run_serially(job_of(source, given, tmp_path / "out", "output.partition_by=[]"), quiet=True)
    labeled, rejects = check_exactly_once(tmp_path / "out", keys(source, 3))
    assert sorted(labeled["source_row"].to_pylist()) == [0, 2]
    assert [(reject["source_row"], reject["reason"]) for reject in rejects] == [(1, "model_error")]
    assert rejects[0]["detail"].startswith("model first: ")


def test_model_that_comes_later_is_refused_with_the_reason(models: dict[str, Path], source: Path, tmp_path: Path) -> None:
    two = {name: models[name] for name in ("quality", "topic")}
    run_serially(job_of(source.parent, two, tmp_path / "out", *PARTITIONS), quiet=True)
    refused = (
        r"^models: the output holds labels of quality, topic, this job has language, quality, topic: .* `label-corpus join`"
    )
    with pytest.raises(UserError, match=refused):
        run_serially(job_of(source.parent, models, tmp_path / "out", *PARTITIONS), quiet=True)
    with pytest.raises(UserError, match="this job has one model without a name"):
        run_serially(make_job(source.parent, models["quality"], tmp_path / "out", "output.label_name=its"), quiet=True)
    changed = {"quality": models["quality"], "topic": {"path": str(models["topic"]), "max_length": 32}}
    with pytest.raises(UserError, match=r"models\.topic\.max_length \(was 64, is 32\)"):
        run_serially(job_of(source.parent, changed, tmp_path / "out", *PARTITIONS), quiet=True)


def test_plan_says_what_each_model_is(models: dict[str, Path], source: Path, tmp_path: Path) -> None:
    settings = plan(job_of(source.parent, models, tmp_path / "out", *PARTITIONS))["settings"]
    assert (settings["quality: model.max_length"]["value"], settings["language: model.max_length"]["value"]) == (64, 128)


Change = Callable[[dict[str, Any]], None]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda job: override(job, "model.path=x"), "model: conflicts with models; give one of the two"),
        (lambda job: job.pop("models"), "model.path is missing"),
        (lambda job: job["output"].pop("partition_by"), "output.partition_by: missing; give a label column, such as"),
        (lambda job: override(job, "output.partition_by=[label]"), "output.partition_by: there is no column 'label'"),
        (lambda job: job["models"].append(dict(job["models"][0])), "models: two are named 'quality'"),
        (
            lambda job: (
                job["models"][1].update(name="quality_a"),
                override(job, "output.label_name=a_label"),
                override(job, "output.score_column=label"),
            ),
            "models: two added columns are named 'quality_a_label'; give each a different name",
        ),
        (lambda job: job["models"][0].update(name="a b"), "models.0.name: invalid value 'a b'"),
        (lambda job: job["models"][0].update(maxlength=5), "models.0.maxlength: unknown key; did you mean models.0.max_length"),
        (lambda job: job["models"][1].update(path="nowhere"), "topic: model.path: no such folder 'nowhere'"),
        (lambda job: job["models"][1].update(bins=[1]), "topic: model.bins"),
        (
            # the columns of a multi-label head are known when the model is
            lambda job: (
                job["models"][1].update(name="quality_top", problem_type="multi_label_classification"),
                override(job, "output.top_k=2"),
            ),
            "models: two added columns are named 'quality_top_labels'; give each a different name",
        ),
    ],
)
def test_mistake_in_the_models_exits_2_with_one_line(
    models: dict[str, Path], tmp_path: Path, change: Change, said: str
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "a text"}])
    settings = settings_of(source, models, tmp_path / "out", *PARTITIONS)
    change(settings)
    finished = command("plan", write_job_file(tmp_path / "job.yaml", settings))
    assert (finished.code, len(finished.error_lines)) == (2, 1), finished.stderr
    assert said in finished.error_lines[0]
