"""Each architecture, head and way to read documents: label and score are transformers' own, as pipeline_ops/README.md says."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pyarrow as pa
import pytest

from tests.models.architectures import ARCHITECTURES, make_classifier
from tests.support import REPOSITORY
from tests.support.corpora import EDGE_CASES, real_documents, write_jsonl
from tests.support.invariant import check_exactly_once
from tests.support.reference_answers import Answers, check_answers, pipeline_of, said_window_by_window
from tests.support.running import keys, make_job
from tests.support.serial_chain import run_in_two_threads

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
    """Labels the texts, in several units, of which two are in work at a time; the rows in input order."""
    rows = [{"text": text, "other": other, "question": QUESTION} for text, other in zip(TEXTS, PAIRS, strict=True)]
    source = write_jsonl(tmp_path / "in.jsonl", rows)

    def labeled(model: Path, *overrides: str) -> pa.Table:
        run_in_two_threads(
            make_job(source, model, tmp_path / "out", "output.scores=true", "compute.unit_bytes=9000", *overrides), quiet=True
        )
        table, rejects = check_exactly_once(tmp_path / "out", keys(source, len(TEXTS)))
        assert rejects == []
        return table.sort_by("source_row")

    return labeled


def check(labeled: pa.Table, expected: list[Answers]) -> None:
    check_answers(labeled, expected, LABELS)


def read_one(model: Path, label: Callable[..., pa.Table], kind: str | None = None) -> None:
    asked = [] if kind is None else [f"model.problem_type={kind}"]
    arguments = {} if kind is None else {"function_to_apply": "sigmoid"}
    check(label(model, *asked), pipeline_of(model, **arguments)(TEXTS))


def read_pairs(model: Path, label: Callable[..., pa.Table]) -> None:
    documents = [{"text": text, "text_pair": other} for text, other in zip(TEXTS, PAIRS, strict=True)]
    check(label(model, "input.text_pair_column=other"), pipeline_of(model)(documents))


def read_windows(model: Path, label: Callable[..., pa.Table], how: str) -> None:
    labeled = label(model, "model.long_documents=windows", f"model.stride={STRIDE}", f"model.aggregate_on={how}")
    check(labeled, said_window_by_window(model, [(text,) for text in TEXTS], how, max_length=MAX_LENGTH, stride=STRIDE))
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
    documents = [(QUESTION, text) for text in TEXTS]
    check(labeled, said_window_by_window(model, documents, "logits", max_length=MAX_LENGTH, stride=STRIDE))
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
