"""Documents that share batches are labeled as by the pipeline, one at a time, whatever padding does to the model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, ConvBertConfig, pipeline

from jobs.cli.app import execute
from jobs.label_corpus import run
from jobs.start.inspect import InspectConfig, inspect_text
from pipeline_ops.schema.errors import UserError
from tests.models import tiny
from tests.models.architectures import SHAPE, make_classifier
from tests.models.with_code import AT_RANDOM, MEAN_OF_EMBEDDINGS, with_addition
from tests.support.corpora import real_documents, write_jsonl
from tests.support.invariant import check_exactly_once
from tests.support.running import job_settings, keys, make_job, write_job_file
from tests.support.serial_chain import run_serially

TEXTS = [text[:300] for text in real_documents(40, seed=5) if text.strip()]
LABELS = ("art", "law", "maths")
LINE = "answers depend on padding, so rows of equal length share a batch"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])


@pytest.fixture(scope="module")
def convbert(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the tokenizer of the tests' BERT."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    config = ConvBertConfig(**SHAPE, vocab_size=len(tokenizer), max_position_embeddings=128)
    return tiny.save_classifier(tmp_path_factory.mktemp("convbert") / "model", config, tokenizer, LABELS, 0, texts=TEXTS)


def check(target: Path, source: Path, model: Path) -> None:
    """Each document is labeled once, as by the pipeline, one at a time."""
    labeled, rejects = check_exactly_once(target, keys(source, len(TEXTS)))
    assert rejects == []
    rows = labeled.sort_by("source_row")
    torch.set_num_threads(1)
    classify: Any = pipeline("text-classification", model=str(model), device="cpu", dtype=torch.float32, trust_remote_code=True)
    expected = [classify(text, truncation=True) for text in TEXTS]
    assert rows["label"].to_pylist() == [answers[0]["label"] for answers in expected]
    scores = [answers[0]["score"] for answers in expected]
    np.testing.assert_allclose(rows["score"], pa.array(scores), rtol=0, atol=1e-5)


def test_documents_of_a_kind_that_depends_on_padding_are_labeled_as_alone_and_the_run_says_so(
    tmp_path: Path, source: Path, convbert: Path
) -> None:
    result = run_serially(make_job(source, convbert, tmp_path / "out"), quiet=True)
    check(tmp_path / "out", source, convbert)
    assert result.without_padding == [f"convbert: {LINE}"]
    assert result.padding_share == 0
    (record,) = (tmp_path / "out" / "_runs").iterdir()
    assert json.loads(record.read_text())["result"]["without_padding"] == result.without_padding


def test_plan_and_inspect_say_which_models_get_no_padding(
    tmp_path: Path, source: Path, model: Path, convbert: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for path, lines in ((convbert, [f"convbert: {LINE}"]), (model, [])):
        job_file = write_job_file(tmp_path / "job.yaml", job_settings(source, path, tmp_path / "out"))
        for options in ([], ["--check-model"]):
            assert execute(["plan", str(job_file), *options]) == 0
            printed, shown = capfd.readouterr()
            assert json.loads(printed.splitlines()[-1])["without_padding"] == lines
            assert (LINE in shown) == bool(lines)
            assert ("padding is harmless" in shown) == (bool(options) and not lines)
        steps = inspect_text("What a film!", InspectConfig.model_validate({"model": {"path": str(path), "dtype": "float32"}}))
        assert steps.get("padding") == (lines[0] if lines else None)
        assert (0 in steps["attention_mask"]) == (not lines), "padded to a multiple of 8"


def test_plan_that_checks_a_model_refuses_other_machines(tmp_path: Path, source: Path, model: Path) -> None:
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(source, model, tmp_path / "out"))
    assert execute(["plan", str(job_file), "--check-model", "--cluster", "1xH100"]) == 2


def test_documents_of_a_decoder_without_a_padding_token_are_labeled_as_alone(tmp_path: Path, source: Path) -> None:
    model = make_classifier(tmp_path / "model", "GPT-2", LABELS, max_length=128)
    config = AutoConfig.from_pretrained(model)
    config.pad_token_id = None
    config.save_pretrained(model)
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings |= {"pad_token": None, "tokenizer_class": "PreTrainedTokenizerFast"}  # Qwen's would bring one along
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    assert AutoTokenizer.from_pretrained(model).pad_token_id is None
    result = run_serially(make_job(source, model, tmp_path / "out"), quiet=True)
    check(tmp_path / "out", source, model)
    assert result.without_padding == []
    assert result.padding_share > 0


def test_model_whose_answers_are_random_ends_the_run_in_one_line(tmp_path: Path, source: Path, model: Path) -> None:
    random = with_addition(model, tmp_path / "model", AT_RANDOM)
    with pytest.raises(UserError, match="cannot label: its answer to a text changes from one pass to the next") as caught:
        run_serially(make_job(source, random, tmp_path / "out", "model.trust_remote_code=true"), quiet=True)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").glob("label=*"))


@pytest.mark.slow
def test_documents_of_an_unlisted_model_that_depends_on_padding_are_labeled_as_alone_by_rays_processes(
    tmp_path: Path, source: Path, model: Path, ray_address: str
) -> None:
    unlisted = with_addition(model, tmp_path / "model", MEAN_OF_EMBEDDINGS)
    result = run(make_job(source, unlisted, tmp_path / "out", "model.trust_remote_code=true"), quiet=True)
    check(tmp_path / "out", source, unlisted)
    assert result.without_padding == [f"bert: {LINE}"]
