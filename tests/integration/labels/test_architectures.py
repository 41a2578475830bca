"""Each architecture, head and way to read documents: label and score are transformers' own, as pipeline_ops/README.md says."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from tests.models.architectures import ARCHITECTURES, make_classifier
from tests.support import REPOSITORY
from tests.support.corpora import EDGE_CASES, real_documents, write_jsonl
from tests.support.invariant import check_exactly_once
from tests.support.running import keys, make_job
from tests.support.serial_chain import run_serially

TOLERANCE = 1e-5
LABELS = ("art", "law", "maths")
MAX_LENGTH = 64
STRIDE = 8
# without the empty text, for which some tokenizers have no token, and transformers' models of them no answer
TEXTS = [text[:900] for text in (*real_documents(30, seed=5), *EDGE_CASES) if text]
PAIRS = TEXTS[7:] + TEXTS[:7]
QUESTION = "what is it about?"
PARITY: dict[tuple[str, str], str] = {}  # (architecture, way): what was found


@pytest.fixture(scope="module")
def classifier_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, tuple[str, ...]], Path]:
    @cache
    def make(architecture: str, labels: tuple[str, ...]) -> Path:
        return make_classifier(tmp_path_factory.mktemp("classifier") / "model", architecture, labels, MAX_LENGTH)

    return make


@pytest.fixture
def label(tmp_path: Path) -> Callable[..., pa.Table]:
    """Labels the texts; the rows in input order."""
    rows = [{"text": text, "other": other, "question": QUESTION} for text, other in zip(TEXTS, PAIRS, strict=True)]
    source = write_jsonl(tmp_path / "in.jsonl", rows)

    def labeled(model: Path, *overrides: str) -> pa.Table:
        run_serially(make_job(source, model, tmp_path / "out", "output.scores=true", *overrides), quiet=True)
        table, rejects = check_exactly_once(tmp_path / "out", keys(source, len(TEXTS)))
        assert rejects == []
        return table.sort_by("source_row")

    return labeled


def check(labeled: pa.Table, expected: list[list[dict[str, Any]]]) -> None:
    """Compares with the pipeline's answers, of each document the best first."""
    assert labeled["label"].to_pylist() == [answers[0]["label"] for answers in expected]
    np.testing.assert_allclose(labeled["score"], [answers[0]["score"] for answers in expected], rtol=0, atol=TOLERANCE)
    names = [answer["label"] for answer in sorted(expected[0], key=lambda answer: LABELS.index(answer["label"]))]
    scores = [[{answer["label"]: answer["score"] for answer in answers}[name] for name in names] for answers in expected]
    np.testing.assert_allclose(labeled["scores"].to_pylist(), scores, rtol=0, atol=TOLERANCE)


def said_by_pipeline(model: Path, documents: list[Any], **arguments: Any) -> list[Any]:
    torch.set_num_threads(1)
    classify = pipeline("text-classification", model=str(model), device="cpu", dtype=torch.float32)
    return classify(documents, truncation=True, top_k=None, batch_size=1, **arguments)


def said_window_by_window(model: Path, documents: list[tuple[str, ...]], how: str) -> list[list[dict[str, Any]]]:
    """A straightforward reference: each window alone through the model, then the mean of the logits or scores."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    classifier = AutoModelForSequenceClassification.from_pretrained(model).eval()
    names = list(classifier.config.id2label.values())
    answers = []
    for texts in documents:
        lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
        # of a pair the longer text is read in windows
        strategy = "only_first" if len(texts) == 1 or lengths[0] > lengths[1] else "only_second"
        windows = tokenizer(
            *texts, truncation=strategy, max_length=MAX_LENGTH, stride=STRIDE, return_overflowing_tokens=True, padding=False
        )
        found = []
        for number in range(len(windows["input_ids"])):
            inputs = {name: torch.tensor([windows[name][number]]) for name in tokenizer.model_input_names if name in windows}
            with torch.inference_mode():
                found.append(classifier(**inputs).logits[0])
        values = torch.stack(found)
        scores = values.mean(dim=0).softmax(dim=-1) if how == "logits" else values.softmax(dim=-1).mean(dim=0)
        named = [{"label": name, "score": float(score)} for name, score in zip(names, scores, strict=True)]
        answers.append(sorted(named, key=lambda answer: -answer["score"]))
    return answers


def read_one(model: Path, label: Callable[..., pa.Table], kind: str | None = None) -> None:
    asked = [] if kind is None else [f"model.problem_type={kind}"]
    arguments = {} if kind is None else {"function_to_apply": "sigmoid"}
    check(label(model, *asked), said_by_pipeline(model, TEXTS, **arguments))


def read_pairs(model: Path, label: Callable[..., pa.Table]) -> None:
    documents = [{"text": text, "text_pair": other} for text, other in zip(TEXTS, PAIRS, strict=True)]
    check(label(model, "input.text_pair_column=other"), said_by_pipeline(model, documents))


def read_windows(model: Path, label: Callable[..., pa.Table], how: str) -> None:
    labeled = label(model, "model.long_documents=windows", f"model.stride={STRIDE}", f"model.aggregate_on={how}")
    check(labeled, said_window_by_window(model, [(text,) for text in TEXTS], how))
    assert max(labeled["num_windows"].to_pylist()) > 3
    assert not any(labeled["truncated"].to_pylist())


def read_windows_of_pairs(model: Path, label: Callable[..., pa.Table]) -> None:
    """One of the texts is short, as a question is: else transformers has no windows of pairs to compare with."""
    labeled = label(
        model,
        "input.text_column=question",
        "input.text_pair_column=text",
        "model.long_documents=windows",
        f"model.stride={STRIDE}",
    )
    check(labeled, said_window_by_window(model, [(QUESTION, text) for text in TEXTS], "logits"))
    assert max(labeled["num_windows"].to_pylist()) > 3


READ: dict[str, Callable[[Callable[..., Path], Callable[..., pa.Table]], None]] = {
    "single label": lambda model, label: read_one(model(LABELS), label),
    "multi-label": lambda model, label: read_one(model(LABELS), label, "multi_label_classification"),
    "one value": lambda model, label: read_one(model(("art",)), label),
    "pairs": lambda model, label: read_pairs(model(LABELS), label),
    "windows": lambda model, label: read_windows(model(LABELS), label, "logits"),
    "windows of pairs": lambda model, label: read_windows_of_pairs(model(LABELS), label),
}


@pytest.mark.parametrize("way", READ)
def test_answers_are_those_of_transformers_however_documents_are_read(
    way: str, classifier_of: Callable[..., Path], label: Callable[..., pa.Table]
) -> None:
    """With the architecture for which nothing is an exception; the others are below."""
    READ[way](partial(classifier_of, "RoBERTa"), label)


@pytest.mark.slow
@pytest.mark.parametrize("way", READ)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_of_an_architecture_are_those_of_transformers(
    architecture: str, way: str, classifier_of: Callable[..., Path], label: Callable[..., pa.Table]
) -> None:
    READ[way](partial(classifier_of, architecture), label)
    PARITY[architecture, way] = "equal"


def test_scores_of_windows_may_be_what_is_aggregated(
    classifier_of: Callable[..., Path], label: Callable[..., pa.Table]
) -> None:
    read_windows(classifier_of("RoBERTa", LABELS), label, "scores")


@pytest.mark.slow
def test_table_in_readme_says_what_has_been_found() -> None:
    wanted = [(architecture, way) for architecture in ARCHITECTURES for way in READ]
    if not all(case in PARITY for case in wanted):
        pytest.skip("some of the comparisons have not been made")
    lines = [f"| | {' | '.join(READ)} |", "| --- " * (1 + len(READ)) + "|"]
    for architecture in ARCHITECTURES:
        lines.append(f"| {architecture} | {' | '.join(PARITY[architecture, way] for way in READ)} |")
    assert "\n".join(lines) in (REPOSITORY / "pipeline_ops" / "README.md").read_text(encoding="utf-8")
