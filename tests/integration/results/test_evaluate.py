"""Labels against a column of the input: what `evaluate` says is what the output's plain files say to DuckDB."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from jobs.config import JobConfig, check_config
from jobs.report.evaluation import evaluation_context
from jobs.report.html import render
from jobs.results.evaluate import evaluate, missing_truth_error, save_evaluation
from jobs.results.evaluation_tables import print_evaluation
from jobs.results.open_output import find_labeled
from pipeline_ops.models.heads import Head
from pipeline_ops.schema.errors import UserError
from tests.models.tiny import make_model
from tests.support.compared_outputs import MadeOutput, spread_logits
from tests.support.corpora import real_documents, write_jsonl
from tests.support.labeled_units import whole
from tests.support.running import command, job_settings, make_job, snapshot
from tests.support.serial_chain import run_serially

NAMES = ("NEGATIVE", "POSITIVE")
TOPICS = ("art", "law", "maths")
NUM_DOCUMENTS = 60


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Documents with truths of each kind; some have none, and one has no text."""
    texts = [f"<b>[bold]{number}</b> {text[:500]}" for number, text in enumerate(real_documents(NUM_DOCUMENTS, seed=5))]
    return [
        {
            "text": None if number == 7 else text,
            "label": None if number % 10 == 3 else NAMES[number % 2],
            "topics": None if number == 4 else [TOPICS[place] for place in range(3) if (number >> place) & 1],
            "grade": number % 5 / 2,
        }
        for number, text in enumerate(texts)
    ]


@pytest.fixture
def labeled(tmp_path: Path, rows: list[dict[str, Any]], model: Path):
    source = write_jsonl(tmp_path / "in" / "a.jsonl", rows)

    def label(model_path: Path = model, *overrides: str) -> Path:
        named = ("output.label_name=predicted", "output.partition_by=[predicted]", *overrides)
        run_serially(make_job(source, model_path, tmp_path / "out", "compute.unit_bytes=8000", *named), quiet=True)
        return tmp_path / "out"

    return label


def query(output: Path, sql: str) -> list[tuple]:
    files = f"read_parquet('{output}/**/*.parquet', hive_partitioning = true)"
    return duckdb.execute(sql.replace("OUTPUT", files)).fetchall()


def test_accuracy_and_confusion_are_duckdbs(labeled, capsys: pytest.CaptureFixture[str]) -> None:
    output = labeled()
    result = evaluate(find_labeled(str(output)), "label")
    [(accuracy, count)] = query(output, "SELECT avg((label = predicted)::int), count(*) FROM OUTPUT WHERE label IS NOT NULL")
    assert (result["evaluated"], result["accuracy"]) == (count, pytest.approx(accuracy, abs=1e-6))
    assert (result["documents"], result["labeled"], result["rejected"], result["without_truth"]) == (60, 59, 1, 6)
    found = dict(zip(result["confusion"]["labels"], result["confusion"]["matrix"], strict=True))
    for truth, label, pairs in query(
        output, "SELECT label, predicted, count(*) FROM OUTPUT WHERE label IS NOT NULL GROUP BY ALL"
    ):
        assert found[truth][result["confusion"]["labels"].index(label)] == pairs
    worst = query(
        output,
        "SELECT source_row, label, predicted, score, left(text, 300) FROM OUTPUT WHERE label <> predicted"
        " ORDER BY score DESC, source_row LIMIT 20",
    )
    keys = ("source_row", "truth", "label", "score", "text")
    mistakes = sorted((one["score"], *map(one.get, keys)) for one in result["confident_mistakes"])
    assert mistakes == sorted((row[3], *row) for row in worst)
    print_evaluation(result)
    screen = capsys.readouterr().err
    assert f"accuracy {result['accuracy']:.4f}" in screen
    assert "[bold]" in screen, "texts are no markup"
    for mistake in result["confident_mistakes"]:
        assert f"row {mistake['source_row']} of a.jsonl" in screen, "counted from 0, as the column source_row is: no line"


def text_of(page: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())


def section(evaluation: dict[str, Any]) -> str:
    context = evaluation_context(evaluation)
    return render("evaluation.html.j2", evaluation=context, documents=evaluation["documents"])


def test_columns_that_may_be_the_truth_are_named_most_likely_first(tmp_path: Path) -> None:
    several = Head(TOPICS, "sigmoid", "multi_label", thresholds=(0.5,) * 3)
    value = Head(("LABEL_0",), "none", "value")

    def said(head: Head, truth, folder: str) -> str:
        made = MadeOutput(tmp_path / folder, head, spread_logits(len(head.labels), 0), truth=truth)
        made.add(whole("/in/x", 30))
        return str(missing_truth_error(made.opened(), None, "out put"))

    lists = said(several, lambda _, rows: [["sea", "law"] for _ in rows], "lists")
    assert "'truth' (1 of 2 values can be predicted: 'law', 'sea')" in lists
    assert lists.endswith("Type: label-corpus evaluate 'out put' --truth truth")
    assert "expected a column with true numbers" in (numbers := said(value, lambda _, rows: [1.5] * len(rows), "numbers"))
    assert "--truth truth" in numbers
    usual = said(Head(TOPICS, "softmax"), lambda _, rows: ["sea"] * len(rows), "usual")
    assert "'truth' (holds 'sea')" in usual
    none = said(Head(TOPICS, "softmax"), None, "none")
    assert "no column looks like one with true labels such as 'art', 'law', 'maths'; the output has 'text' of the input" in none


@pytest.mark.parametrize(("right", "constant"), [(0.9, True), (0.3, False)])
def test_majority_baseline_confusions_and_min_score_are_in_plain_sight(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], right: float, constant: bool
) -> None:
    """400 documents, of which 60 % are art; the surer the model, the more often it is right."""
    made = MadeOutput(tmp_path, Head(TOPICS, "softmax"), confident_logits(right), truth=lambda _, rows: truths_of(rows))
    made.add(whole("/in/x", 400))
    result = evaluate(made.opened(), "truth")
    assert result["baseline"] == {"label": "art", "accuracy": 0.6}
    assert (result["accuracy"] > 0.6) is constant
    suggested = result["risk_coverage"]["suggested"]
    [(kept, correct)] = query(
        tmp_path,
        f"SELECT count(*), avg((label = truth)::int) FROM OUTPUT WHERE score >= {(suggested or {}).get('min_score', 0)}::float",
    )
    print_evaluation(result)
    confused = result["confusion"]["mistakes"][0]
    for shown in (capsys.readouterr().err, text_of(section(result))):
        assert "majority baseline (always art): accuracy 0.6000" in shown
        assert ("a constant would do as well" in shown) is not constant
        assert f"{confused['documents']}" in shown
        assert f"{confused['share']:.1%}" in shown
        if suggested:
            assert (kept, correct) == (suggested["documents"], pytest.approx(suggested["accuracy"], abs=1e-6))
            assert f"suggested model.min_score: {suggested['min_score']:g}. It keeps {kept / 400:.1%} of the labels" in shown
        else:
            assert "no model.min_score is suggested: with none 80% of the kept labels are right" in shown
        assert "None" not in shown
    assert (suggested is not None) is constant


def truths_of(rows: np.ndarray) -> list[str]:
    return ["art" if row % 5 < 3 else "law" if row % 5 == 3 else "maths" for row in rows.tolist()]


def confident_logits(right: float):
    """Logits of TOPICS: the best label is wrong for the least certain documents, and right for the share `right`."""

    def logits(_: str, rows: np.ndarray) -> np.ndarray:
        found = np.zeros((len(rows), 3))
        for place, (row, truth) in enumerate(zip(rows.tolist(), truths_of(rows), strict=True)):
            certainty = (row * 7919) % 400 / 400
            is_right = certainty >= 1 - right if right > 0.5 else certainty < right
            found[place, (TOPICS.index(truth) + (0 if is_right else 1)) % 3] = 1 + 4 * certainty
        return found

    return logits


def test_evaluation_is_kept_and_its_section_escapes_texts(labeled, model: Path) -> None:
    output = labeled()
    found = find_labeled(str(output))
    result = evaluate(found, "label")
    assert save_evaluation(result, found) == f"{output}/_report/evaluation.json"
    kept = json.loads((output / "_report" / "evaluation.json").read_text())
    assert kept == result
    page = section(kept)
    assert page.lstrip().startswith("<h3>")
    assert "&lt;b&gt;[bold]" in page
    assert "<b>[" not in page
    assert f"{result['accuracy']:.4f}" in page
    assert re.search(rf"row {result['confident_mistakes'][0]['source_row']} of /\S+", page)
    assert page.count("<svg") == 3, "confusion, calibration, accuracy by coverage"
    assert not re.search(r"#0\d0\d0", page), "every color is the page's"
    before = snapshot(output)
    labeled()
    assert snapshot(output).keys() == before.keys(), "a later run leaves it alone"


def test_text_that_the_output_has_not_kept_is_not_told(labeled, model: Path) -> None:
    result = evaluate(find_labeled(str(labeled(model, "output.columns=[label]"))), "label")
    assert {one["text"] for one in result["confident_mistakes"]} == {None}
    assert {one["source_file"].rsplit("/", 1)[-1] for one in result["confident_mistakes"]} == {"a.jsonl"}


def test_several_labels_by_their_lists(labeled, tmp_path: Path) -> None:
    several = make_model(tmp_path / "topics", "bert", TOPICS, problem_type="multi_label_classification")
    output = labeled(several, "model.threshold={law: 0.6}")
    result = evaluate(find_labeled(str(output)), "topics")
    [(whole, count)] = query(
        output,
        "SELECT avg((list_sort(topics) = list_sort(labels))::int), count(*) FROM OUTPUT WHERE topics IS NOT NULL",
    )
    assert (result["evaluated"], result["subset_accuracy"]) == (count, pytest.approx(whole, abs=1e-6))
    for one in result["per_label"]:
        has, should = f"list_contains(labels, '{one['label']}')", f"list_contains(topics, '{one['label']}')"
        sums = f"sum(({has})::int), sum(({should})::int), sum(({has} AND {should})::int)"
        [(given, support, right)] = query(output, f"SELECT {sums} FROM OUTPUT WHERE topics IS NOT NULL")
        assert (one["given"], one["support"]) == (given, support)
        assert one["recall"] == pytest.approx(right / support, abs=1e-6)
    assert result["kind"] == "multi_label"
    assert section(result).count("<svg") == 2, "calibration and thresholds"
    print_evaluation(result)


def test_values_and_their_bins(labeled, tmp_path: Path) -> None:
    grades = make_model(tmp_path / "grades", "bert", ("LABEL_0",), problem_type="regression")
    output = labeled(grades, "model.bins=[0.4, 1.2]")
    result = evaluate(find_labeled(str(output)), "grade")
    [(error, accuracy)] = query(
        output,
        "SELECT avg(abs(grade - score)), avg((predicted::int = (grade >= 0.4)::int + (grade >= 1.2)::int)::int) FROM OUTPUT",
    )
    assert result["mean_absolute_error"] == pytest.approx(error, abs=1e-6)
    assert result["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert "Largest errors" in section(result)
    print_evaluation(result)


def test_one_of_several_models(tmp_path: Path, rows: list[dict[str, Any]], model: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    settings = job_settings(source, "-", tmp_path / "out", "output.partition_by=[]")
    settings.pop("model")
    topics = make_model(tmp_path / "topics", "bert", TOPICS, seed=1)
    settings["models"] = [
        {"name": name, "path": str(path), "dtype": "float32"} for name, path in (("mood", model), ("topic", topics))
    ]
    run_serially(check_config(JobConfig, settings), quiet=True)
    found = find_labeled(str(tmp_path / "out"))
    result = evaluate(found, "label", "mood")
    [(accuracy,)] = query(tmp_path / "out", "SELECT avg((label = mood_label)::int) FROM OUTPUT WHERE label IS NOT NULL")
    assert (result["model"], result["accuracy"]) == ("mood", pytest.approx(accuracy, abs=1e-6))
    for name, said in ((None, "'mood', 'topic'; name one"), ("moods", "'moods' is not one of the output's models")):
        with pytest.raises(UserError, match=f"--model: .*{said}"):
            evaluate(found, "label", name)
    with pytest.raises(UserError, match="'topic_label' is added by labeling"):
        evaluate(found, "topic_label", "mood")


@pytest.mark.parametrize(
    ("truth", "said"),
    [
        ("lable", "no column 'lable' of the input; did you mean 'label'\\?"),
        ("predicted", "'predicted' is added by labeling"),
        ("topics", "'topics' holds lists, but the model predicts one label"),
        ("grade", "'0', .* but the model's labels are 'NEGATIVE', 'POSITIVE': no value in common.*model.id2label"),
    ],
)
def test_truth_that_cannot_be_compared_is_refused(labeled, truth: str, said: str) -> None:
    found = find_labeled(str(labeled()))
    with pytest.raises(UserError, match=f"^--truth: .*{said}"):
        evaluate(found, truth)


def test_output_without_labeled_documents_is_refused(tmp_path: Path, model: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": None, "label": "NEGATIVE"}, {"text": None, "label": "POSITIVE"}])
    named = ("output.label_name=predicted", "output.partition_by=[predicted]", "input.column_types={text: string}")
    run_serially(make_job(source, model, tmp_path / "out", *named), quiet=True)
    with pytest.raises(UserError, match="no labeled documents"):
        evaluate(find_labeled(str(tmp_path / "out")), "label")


def test_command_prints_its_line_and_ends_with_2_for_a_mistake(labeled) -> None:
    output = labeled()
    finished = command("evaluate", output, "--truth", "label")
    assert finished.code == 0, finished.stderr
    kept = json.loads((output / "_report" / "evaluation.json").read_text())
    assert finished.result == kept | {"report": str(output / "_report" / "report.html")}
    finished = command("evaluate", output, "--truth", "lable")
    assert (finished.code, len(finished.error_lines)) == (2, 1), finished.stderr
    finished = command("evaluate", output)
    assert (finished.code, len(finished.error_lines)) == (2, 1), finished.stderr
    assert "'label' (2 of 2 values can be predicted: 'NEGATIVE', 'POSITIVE')" in finished.stderr.replace(
        "'POSITIVE', 'NEGATIVE'", "'NEGATIVE', 'POSITIVE'"
    )
    assert finished.stderr.rstrip().endswith(f"Type: label-corpus evaluate {output} --truth label")
