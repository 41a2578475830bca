"""Each kind of head end to end: labels and scores are those of transformers' own pipeline, read as the job says."""

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import pipeline

from jobs.run.plan import plan
from pipeline_ops.schema.errors import UserError
from tests.conftest import Bucket
from tests.models.tiny import make_model
from tests.support.corpora import real_documents, write_jsonl
from tests.support.invariant import check_exactly_once
from tests.support.running import by_key, command, job_settings, keys, make_job, snapshot, write_job_file
from tests.support.serial_chain import run_serially
from tests.support.tiers import mostly_slow

NUM_DOCUMENTS = 200
TOLERANCE = 1e-5
TOPICS = ("art", "law", "maths", "news", "sport")
HEADS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "single_label": (TOPICS, "single_label_classification"),
    "multi_label": (TOPICS, "multi_label_classification"),
    "one_logit": (("toxic",), None),
    "regression": (("LABEL_0",), "regression"),
    "regressions": (("ease", "length"), "regression"),
    "without_names": (("LABEL_0", "LABEL_1"), None),
}


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text[:600] for text in real_documents(NUM_DOCUMENTS, seed=8)]


@pytest.fixture(scope="module")
def head_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def make(head: str) -> Path:
        labels, problem_type = HEADS[head]
        return make_model(tmp_path_factory.mktemp(head) / "model", "roberta", labels, problem_type=problem_type)

    return make


@pytest.fixture
def label(tmp_path: Path, texts: list[str], head_model: Callable[[str], Path]) -> Callable[..., pa.Table]:
    """Labels the texts with a head's model; the rows in input order."""
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])

    def labeled(head: str, *overrides: str) -> pa.Table:
        run_serially(make_job(source, head_model(head), tmp_path / "out", *overrides), quiet=True)
        rows, rejects = check_exactly_once(tmp_path / "out", keys(source, NUM_DOCUMENTS))
        assert rejects == []
        return rows.sort_by("source_row")

    return labeled


def said_by_pipeline(model: Path, texts: list[str], **arguments: Any) -> list[Any]:
    torch.set_num_threads(1)
    classify = pipeline("text-classification", model=str(model), device="cpu", dtype=torch.float32)
    return classify(texts, truncation=True, **arguments)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("activation", mostly_slow(["auto", "softmax", "sigmoid", "none"], quick=["auto"]))
def test_label_and_score_are_those_of_the_pipeline(
    label: Callable[..., pa.Table], head_model: Callable[[str], Path], texts: list[str], head: str, activation: str
) -> None:
    labeled = label(head, f"model.activation={activation}")
    arguments = {} if activation == "auto" else {"function_to_apply": activation}
    expected = said_by_pipeline(head_model(head), texts, **arguments)
    assert labeled["label"].to_pylist() == [answer["label"] for answer in expected]
    np.testing.assert_allclose(labeled["score"], [answer["score"] for answer in expected], rtol=0, atol=TOLERANCE)
    assert len(set(labeled["label"].to_pylist())) == len(HEADS[head][0]), "each label occurs"


def test_multi_label_gives_all_labels_from_the_threshold_on_and_every_score(
    label: Callable[..., pa.Table], head_model: Callable[[str], Path], texts: list[str]
) -> None:
    labeled = label("multi_label", "model.threshold={law: 0.6, art: 0.55}", "output.partition_by=[]")
    expected = said_by_pipeline(head_model("multi_label"), texts, top_k=None)
    thresholds = {"law": 0.6, "art": 0.55}
    for row, answers in zip(labeled.to_pylist(), expected, strict=True):
        given = [answer["label"] for answer in answers if answer["score"] >= thresholds.get(answer["label"], 0.5)]
        assert row["labels"] == given
        assert row["label"] == answers[0]["label"]
        scores = {answer["label"]: answer["score"] for answer in answers}
        np.testing.assert_allclose(row["scores"], [scores[name] for name in TOPICS], rtol=0, atol=TOLERANCE)
    counts = {len(row) for row in labeled["labels"].to_pylist()}
    assert {0, 1, 2} <= counts, "none, one or several"


def test_multi_label_is_partitioned_by_the_best_label_and_may_leave_its_lists_out(label: Callable[..., pa.Table]) -> None:
    labeled = label("multi_label", "output.labels=false")
    assert set(labeled["label"].to_pylist()) == set(TOPICS)
    assert not {"labels", "scores"} & set(labeled.column_names)


def test_top_labels_are_the_pipelines(
    label: Callable[..., pa.Table], head_model: Callable[[str], Path], texts: list[str]
) -> None:
    labeled = label("single_label", "output.top_k=3")
    expected = said_by_pipeline(head_model("single_label"), texts, top_k=3)
    assert labeled["top_labels"].to_pylist() == [[answer["label"] for answer in answers] for answers in expected]
    scores = [[answer["score"] for answer in answers] for answers in expected]
    np.testing.assert_allclose(labeled["top_scores"].to_pylist(), scores, rtol=0, atol=TOLERANCE)
    assert labeled["label"].to_pylist() == [answers[0]["label"] for answers in expected]


def test_more_top_labels_than_there_are_give_all(label: Callable[..., pa.Table]) -> None:
    assert label("without_names", "output.top_k=9")["top_labels"].type.list_size == 2


def test_value_is_put_into_bins_that_partition_the_output(
    label: Callable[..., pa.Table], head_model: Callable[[str], Path], texts: list[str]
) -> None:
    labeled = label("regression", "model.bins=[-0.5, 0.5]", "model.bin_labels=[low, middle, high]")
    values = [answer["score"] for answer in said_by_pipeline(head_model("regression"), texts)]
    np.testing.assert_allclose(labeled["score"], values, rtol=0, atol=TOLERANCE)
    expected = ["low" if value < -0.5 else "middle" if value < 0.5 else "high" for value in values]
    assert labeled["label"].to_pylist() == expected
    assert set(expected) == {"low", "middle", "high"}


def test_document_that_is_not_sure_gets_the_fallback_label(
    label: Callable[..., pa.Table], head_model: Callable[[str], Path], texts: list[str]
):
    labeled = label("single_label", "model.min_score=0.35", "model.fallback_label=other", "model.id2label={law: legal}")
    answers = said_by_pipeline(head_model("single_label"), texts)
    names = {"law": "legal"}
    expected = [names.get(one["label"], one["label"]) if one["score"] >= 0.35 else "other" for one in answers]
    assert labeled["label"].to_pylist() == expected
    assert {"other", "legal"} <= set(expected)
    np.testing.assert_allclose(labeled["score"], [one["score"] for one in answers], rtol=0, atol=TOLERANCE)


def test_labels_without_names_are_told_and_can_be_named(tmp_path: Path, head_model: Callable[[str], Path], texts: list[str]):
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts[:5]])
    job = make_job(source, head_model("without_names"), tmp_path / "out")
    assert "id2label" in plan(job)["settings"]["labels"]["from"]
    named = make_job(source, head_model("without_names"), tmp_path / "out", "model.id2label={LABEL_0: bad, 1: good}")
    assert "id2label gives" not in plan(named)["settings"]["labels"]["from"]
    run_serially(named, quiet=True)
    labeled, _ = check_exactly_once(tmp_path / "out", keys(source, 5))
    assert set(labeled["label"].to_pylist()) <= {"bad", "good"}
    before = snapshot(tmp_path / "out")
    with pytest.raises(UserError, match=r"model\.labels \(was \['bad', 'good'\], is \['LABEL_0', 'LABEL_1'\]\)"):
        run_serially(job, quiet=True)
    assert snapshot(tmp_path / "out") == before


ODD_LABELS = ("a/b c", "x=y&z", "ü 漢字 \U0001f600", "%41", "..", "__HIVE__", " ", "L" * 240)


def test_label_names_of_any_kind_come_back_from_the_folders(tmp_path: Path, texts: list[str]) -> None:
    model = make_model(tmp_path / "model", "bert", ODD_LABELS)
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    run_serially(make_job(source, model, tmp_path / "out"), quiet=True)
    labeled, _ = check_exactly_once(tmp_path / "out", keys(source, NUM_DOCUMENTS))
    expected = said_by_pipeline(model, texts)
    assert labeled.sort_by("source_row")["label"].to_pylist() == [answer["label"] for answer in expected]
    assert len({answer["label"] for answer in expected}) == len(ODD_LABELS)
    everything = f"'{tmp_path}/out/label=*/*.parquet', hive_partitioning = true"
    rows = duckdb.execute(f"SELECT label, count(*) FROM read_parquet({everything}) GROUP BY label").fetchall()
    assert dict(rows) == Counter(answer["label"] for answer in expected)


def test_label_too_long_for_a_folder_is_refused_on_disk_and_written_to_s3(s3: Bucket, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", "bert", ("short", "long " * 60))
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in real_documents(20)])
    with pytest.raises(UserError, match=r"output\.partition_by: .*model\.id2label"):
        run_serially(make_job(source, model, tmp_path / "out"), quiet=True)
    assert not (tmp_path / "out").exists()
    run_serially(make_job(source, model, tmp_path / "out", "output.partition_by=[]"), quiet=True)
    labeled, _ = check_exactly_once(tmp_path / "out", keys(source, 20))
    run_serially(make_job(source, model, f"{s3.url}/out", f"storage.endpoint_url={s3.endpoint_url}"), quiet=True)
    on_s3, _ = check_exactly_once(f"{s3.name}/out", keys(source, 20), s3.filesystem)
    assert set(on_s3["label"].to_pylist()) == {"short", "long " * 60}
    columns = ["label", "num_tokens"]
    assert by_key(on_s3, columns) == by_key(labeled, columns)


def test_a_thousand_labels_are_written_with_and_without_folders(tmp_path: Path, texts: list[str]) -> None:
    model = make_model(tmp_path / "model", "bert", [f"label {number}" for number in range(1000)])
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    for name, partitions in (("folders", "[label]"), ("flat", "[]")):
        job = make_job(source, model, tmp_path / name, f"output.partition_by={partitions}", "output.top_k=3")
        run_serially(job, quiet=True)
    by_folder, _ = check_exactly_once(tmp_path / "folders", keys(source, NUM_DOCUMENTS))
    flat, _ = check_exactly_once(tmp_path / "flat", keys(source, NUM_DOCUMENTS))
    assert by_key(by_folder, ["label", "top_labels"]) == by_key(flat, ["label", "top_labels"])
    assert len(set(flat["label"].to_pylist())) > 50
    assert len(list((tmp_path / "flat").glob("*.parquet"))) == 1


@pytest.mark.parametrize(
    ("head", "overrides", "said"),
    [
        ("single_label", ["model.threshold=0.3"], "model.threshold: 0.3"),
        ("single_label", ["model.bins=[1]"], "model.bins: [1.0]"),
        ("single_label", ["model.bins=[2, 1]"], "model.bins: invalid value [2, 1]"),
        ("single_label", ["model.fallback_label=x"], "model.fallback_label: invalid value 'x'"),
        ("multi_label", ["output.partition_by=[labels]"], "output.partition_by: 'labels'"),
        ("regression", ["output.top_k=2"], "output.top_k: 2"),
    ],
)
def test_setting_that_the_head_cannot_have_exits_2_with_one_line(
    tmp_path: Path, head_model: Callable[[str], Path], head: str, overrides: list[str], said: str
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "one"}])
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(source, head_model(head), tmp_path / "out"))
    finished = command("plan", job_file, *overrides)
    assert (finished.code, len(finished.error_lines)) == (2, 1), finished.stderr
    assert said in finished.error_lines[0]
    assert not (tmp_path / "out").exists()
