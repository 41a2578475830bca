"""Pairs of texts, long documents in windows and embeddings, as a user has them: columns, rejects, refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.numpy import save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, ViTConfig

from jobs.run.plan import plan
from pipeline_ops.schema.errors import UserError
from tests.models.architectures import make_classifier
from tests.models.tiny import RAISING_WORD, make_poisonous_model
from tests.support.corpora import EDGE_CASES, real_documents, write_csv, write_jsonl, write_parquet
from tests.support.invariant import check_exactly_once
from tests.support.running import keys, make_job
from tests.support.serial_chain import run_serially
from tests.support.tiers import mostly_slow

LABELS = ("art", "law", "maths")
WINDOWS = ("model.long_documents=windows", "model.max_length=32")
TEXTS = [text[:1500] for text in (*real_documents(40, seed=9), *EDGE_CASES) if text]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("model") / "model", "RoBERTa", LABELS, 64)


@pytest.fixture
def label(tmp_path: Path, classifier: Path) -> Callable[..., pa.Table]:
    """Labels the texts; the rows in input order."""
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])

    def labeled(*overrides: str, model: Path = classifier, name: str = "out") -> pa.Table:
        run_serially(make_job(source, model, tmp_path / name, *overrides), quiet=True)
        table, rejects = check_exactly_once(tmp_path / name, keys(source, len(TEXTS)))
        assert rejects == []
        return table.sort_by("source_row")

    return labeled


def test_windows_have_their_number_and_scores_in_columns(label: Callable[..., pa.Table]) -> None:
    labeled = label(
        *WINDOWS, "output.window_scores=true", "output.scores=true", "model.aggregate=max", "model.aggregate_on=scores"
    )
    assert labeled.schema.field("num_windows").type == pa.int32()
    assert labeled.schema.field("window_scores").type == pa.list_(pa.list_(pa.float32(), 3))
    for row in labeled.to_pylist():
        assert len(row["window_scores"]) == row["num_windows"]
        np.testing.assert_allclose(np.max(row["window_scores"], axis=0), row["scores"], rtol=0, atol=1e-6)
        assert row["label"] == LABELS[int(np.argmax(row["scores"]))]
        assert row["score"] == pytest.approx(max(row["scores"]))
        assert not row["truncated"]
    assert max(labeled["num_windows"].to_pylist()) > 1


def test_first_window_says_what_truncation_says(label: Callable[..., pa.Table]) -> None:
    cut = label("model.max_length=32", name="cut")
    first = label(*WINDOWS, "model.aggregate=first", name="first")
    one = label(*WINDOWS, "model.max_windows=1", name="one")
    assert cut["label"].equals(first["label"])
    assert cut["label"].equals(one["label"])
    np.testing.assert_allclose(cut["score"], first["score"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(cut["score"], one["score"], rtol=0, atol=1e-5)
    assert one["truncated"].equals(cut["truncated"])
    assert one["num_tokens"].equals(cut["num_tokens"])
    assert not any(first["truncated"].to_pylist())


def test_windows_give_the_same_whatever_the_units_and_batches_are(label: Callable[..., pa.Table]) -> None:
    together = label(*WINDOWS, "model.stride=4", "output.logits=true", "compute.batch_tokens=100000", name="together")
    apart = label(
        *WINDOWS, "model.stride=4", "output.logits=true", "compute.batch_tokens=64", "compute.unit_bytes=3000", name="apart"
    )
    assert together["label"].equals(apart["label"])
    np.testing.assert_allclose(
        np.array(together["logits"].to_pylist()), np.array(apart["logits"].to_pylist()), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    "architecture", mostly_slow(["RoBERTa", "ModernBERT", "Longformer", "Qwen2, no padding id", "PLBart"], quick=["RoBERTa"])
)
@pytest.mark.parametrize("kind", ["cls", "mean"])
def test_embedding_is_the_pooled_last_hidden_state(
    label: Callable[..., pa.Table], classifier: Path, tmp_path: Path, architecture: str, kind: str
) -> None:
    model = make_classifier(tmp_path / "model", architecture, LABELS, 64)
    labeled = label(f"output.embedding={kind}", model=model)
    assert labeled.schema.field("embedding").type == pa.list_(pa.float32(), 32)
    np.testing.assert_allclose(labeled["embedding"].to_pylist(), hidden_states(model, TEXTS, kind), rtol=0, atol=1e-5)


def hidden_states(model: Path, texts: list[str], kind: str) -> np.ndarray:
    tokenizer, classifier = (
        AutoTokenizer.from_pretrained(model),
        AutoModelForSequenceClassification.from_pretrained(model).eval(),
    )
    reads_last = classifier.config.model_type in ("qwen2", "plbart")
    found = []
    for text in texts:
        with torch.inference_mode():
            inputs = tokenizer(text, truncation=True, return_tensors="pt")
            output = classifier(**inputs, output_hidden_states=True)
            layers = output.decoder_hidden_states if classifier.config.is_encoder_decoder else output.hidden_states
            hidden = layers[-1][0]
        found.append(hidden.mean(dim=0) if kind == "mean" else hidden[-1 if reads_last else 0])
    return torch.stack(found).numpy()


def test_embedding_of_windows_is_their_mean_and_may_be_half_as_large(label: Callable[..., pa.Table]) -> None:
    whole = label("output.embedding=cls", name="whole")
    windows = label("model.long_documents=windows", "output.embedding=cls", "output.embedding_dtype=float16", name="windows")
    assert windows.schema.field("embedding").type == pa.list_(pa.float16(), 32)
    short = [row for row, count in enumerate(windows["num_windows"].to_pylist()) if count == 1]
    assert 3 < len(short) < len(TEXTS)
    np.testing.assert_allclose(
        np.array(windows["embedding"].to_pylist())[short], np.array(whole["embedding"].to_pylist())[short], rtol=1e-3, atol=1e-2
    )


def test_document_of_which_one_window_makes_the_model_raise_is_rejected_once(tmp_path: Path) -> None:
    model = make_poisonous_model(tmp_path / "model", tmp_path / "cured")
    bad = " ".join(["word"] * 400 + [RAISING_WORD] + ["word"] * 400 + [RAISING_WORD])
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "a text"}, {"text": bad}, {"text": "word " * 500}])
    run_serially(make_job(source, model, tmp_path / "out", *WINDOWS, "model.trust_remote_code=true"), quiet=True)
    labeled, rejects = check_exactly_once(tmp_path / "out", keys(source, 3))
    assert sorted(labeled["source_row"].to_pylist()) == [0, 2]
    assert [(reject["source_row"], reject["reason"]) for reject in rejects] == [(1, "model_error")]


@pytest.mark.parametrize("file_format", ["jsonl", "csv", "parquet"])
def test_pairs_are_read_from_every_format_and_may_be_left_out_of_the_output(
    file_format: str, classifier: Path, tmp_path: Path
) -> None:
    rows = [{"id": str(row), "text": text, "other": TEXTS[-row]} for row, text in enumerate(TEXTS[:20])]
    write = {"jsonl": write_jsonl, "csv": write_csv, "parquet": write_parquet}[file_format]
    source = write(tmp_path / f"in.{file_format}", rows)
    found = {}
    for columns in ("all", "[id]", "[other]", "none"):
        job = make_job(source, classifier, tmp_path / columns, "input.text_pair_column=other", f"output.columns={columns}")
        run_serially(job, quiet=True)
        labeled, _ = check_exactly_once(tmp_path / columns, keys(source, 20))
        found[columns] = labeled.sort_by("source_row")
        kept = {"all": {"id", "text", "other"}, "[id]": {"id"}, "[other]": {"other"}, "none": set()}[columns]
        assert {"id", "text", "other"} & set(labeled.column_names) == kept
    assert all(table["score"].equals(found["all"]["score"]) for table in found.values())


def test_pair_of_which_one_text_is_missing_is_rejected_and_says_which(classifier: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "a", "other": "b"}, {"text": "a", "other": None}, {"text": None, "other": "b"}]
    rows += [{"text": "a"}, {"text": "a", "other": 5}, {"text": None, "other": None}, {"text": "", "other": ""}]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    run_serially(make_job(source, classifier, tmp_path / "out", "input.text_pair_column=other"), quiet=True)
    labeled, rejects = check_exactly_once(tmp_path / "out", keys(source, 7))
    assert sorted(labeled["source_row"].to_pylist()) == [0, 6]
    found = {reject["source_row"]: (reject["reason"], reject["detail"]) for reject in rejects}
    assert {row: reason for row, (reason, _) in found.items()} == dict.fromkeys((1, 2, 3, 5), "null_text") | {4: "not_a_string"}
    assert found[1][1].startswith("other: ")
    assert found[2][1].startswith("text: ")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["input.text_pair_column=second"], "input.text_pair_column: there is no column 'second'"),
        (["input.text_pair_column=text"], "input.text_pair_column: invalid value 'text': .*a pair is two columns"),
        (["model.stride=5"], "model.stride: 5 is for windows"),
        ([*WINDOWS, "model.stride=30"], "model.stride: 30 is not less than the 30 tokens of text in a window"),
        (["output.window_scores=true"], "output.window_scores: true is for documents in windows"),
        (["output.embedding_dtype=float16"], "embedding_dtype has no effect without output.embedding"),
        (["output.embedding=max"], "output.embedding: invalid value 'max'"),
        (
            [*WINDOWS, "output.partition_by=[window_scores]", "output.window_scores=true"],
            "output.partition_by: 'window_scores'",
        ),
        (["input.text_pair_column=other", "model.max_length=4"], "model.max_length: 4 leaves no room beside 4 special tokens"),
    ],
)
def test_setting_that_does_not_do_is_refused_before_anything_is_read(
    classifier: Path, tmp_path: Path, overrides: list[str], said: str
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "a", "other": "b"}])
    with pytest.raises(UserError, match=said):
        plan(make_job(source, classifier, tmp_path / "out", *overrides))
    assert not (tmp_path / "out").exists()


def test_output_of_other_windows_is_refused_with_the_keys_that_differ(classifier: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "a text"}])
    run_serially(make_job(source, classifier, tmp_path / "out", *WINDOWS, "model.stride=4"), quiet=True)
    with pytest.raises(UserError, match=r"model\.stride \(was 4, is 5\)"):
        run_serially(make_job(source, classifier, tmp_path / "out", *WINDOWS, "model.stride=5"), quiet=True)
    with pytest.raises(UserError, match=r"model\.long_documents"):
        run_serially(make_job(source, classifier, tmp_path / "out", "model.max_length=32"), quiet=True)


def test_text_without_any_token_is_rejected(tmp_path: Path) -> None:
    model = make_classifier(tmp_path / "model", "Qwen2, no padding id", LABELS, 64)
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": ""}, {"text": "a"}, {"text": ""}, {"text": " "}])
    for name, settings in {"cut": (), "windows": WINDOWS}.items():
        run_serially(make_job(source, model, tmp_path / name, *settings), quiet=True)
        labeled, rejects = check_exactly_once(tmp_path / name, keys(source, 4))
        assert sorted(labeled["source_row"].to_pylist()) == [1, 3]
        assert [(reject["source_row"], reject["reason"]) for reject in rejects] == [(0, "too_short"), (2, "too_short")]


def test_model_of_a_kind_that_classifies_no_texts_is_refused_in_one_line(classifier: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "a text"}])
    ViTConfig().save_pretrained(tmp_path / "vit")
    save_file({"classifier.weight": np.zeros((2, 4), np.float32)}, tmp_path / "vit" / "model.safetensors")
    AutoTokenizer.from_pretrained(classifier).save_pretrained(tmp_path / "vit")
    with pytest.raises(UserError, match=r"^model.path: .* is a vit model, and transformers has no sequence classifier"):
        plan(make_job(source, tmp_path / "vit", tmp_path / "out"))
