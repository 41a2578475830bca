"""Outputs measured on reviewed documents: by strata for all documents, and two outputs against each other."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.report.evaluation import evaluation_context
from jobs.report.html import render
from jobs.results.compare import compare
from jobs.results.comparison_tables import truth_lines
from jobs.results.evaluation_tables import print_evaluation
from jobs.results.labels import labels
from jobs.results.open_output import find_labeled
from jobs.reviewing.reviewed_accuracy import evaluate_reviewed
from pipeline_ops.models.heads import Head
from pipeline_ops.output.labeled_output import Labeled
from pipeline_ops.schema.errors import UserError
from tests.support.compared_outputs import MadeOutput
from tests.support.corpora import real_documents, write_bytes, write_jsonl
from tests.support.labeled_units import whole
from tests.support.running import command, make_job
from tests.support.serial_chain import run_serially

TOPICS = ("art", "law", "maths")
DOCUMENTS, UNCERTAIN, RANDOM = 2000, 100, 150
SOURCE = "/in/x"


def truths_of(rows: np.ndarray) -> np.ndarray:
    return rows * 31 % 3


def logits_of(right: float):
    """Of the share `right` the best label is the true one; the wrong ones have lower scores, mostly."""

    def logits(_: str, rows: np.ndarray) -> np.ndarray:
        certainty = (rows * 7919 % DOCUMENTS) / DOCUMENTS
        is_wrong = (certainty < 1 - right) ^ (rows * 17 % 50 == 0)
        found = np.zeros((len(rows), 3))
        found[np.arange(len(rows)), (truths_of(rows) + is_wrong) % 3] = 1 + 4 * certainty
        return found

    return logits


def made(folder: Path, right: float, head: Head = Head(TOPICS, "softmax"), **output: Any) -> MadeOutput:
    found = MadeOutput(folder, head, logits_of(right), **output)
    found.add(whole(SOURCE, DOCUMENTS))
    return found


def labels_of(labeled: Labeled) -> dict[int, tuple[str, float]]:
    table = labels(labeled.path, "arrow").to_table(columns=["source_row", "label", "score"]).to_pylist()
    return {row["source_row"]: (row["label"], row["score"]) for row in table}


def review(labeled: Labeled, seed: int = 0, sample: str = "review-1", **changes: Any) -> list[dict[str, Any]]:
    """The least certain documents and random others, answered as they are true."""
    found = labels_of(labeled)
    by_score = sorted(found, key=lambda row: found[row][1])
    others = np.random.default_rng(seed).permutation(by_score[UNCERTAIN:])[:RANDOM].tolist()
    strata = dict.fromkeys(by_score[:UNCERTAIN], ("uncertain", UNCERTAIN))
    strata |= dict.fromkeys(others, ("random", DOCUMENTS - UNCERTAIN))
    return [
        {
            **{"sample": sample, "source_file": SOURCE, "source_row": row, "text": f"text {row} of {SOURCE}"},
            **{"label": TOPICS[truths_of(np.array(row))], "predicted": found[row][0], "score": found[row][1]},
            **{"stratum": name, "stratum_documents": documents, "documents": len(found), "model": ""},
            **{"stratum_sampled": UNCERTAIN if name == "uncertain" else RANDOM, **changes},
        }
        for row, (name, documents) in strata.items()
    ]


def accuracy_of(labeled: Labeled) -> float:
    return float(np.mean([TOPICS[truths_of(np.array(row))] == label for row, (label, _) in labels_of(labeled).items()]))


def section(evaluation: dict[str, Any]) -> str:
    return render("evaluation.html.j2", evaluation=evaluation_context(evaluation), documents=evaluation["documents"])


def test_uncertain_and_random_documents_give_one_estimate_that_holds_the_accuracy_of_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labeled = made(tmp_path / "out", 0.85).opened()
    rows = review(labeled)
    result = evaluate_reviewed(labeled, [str(write_jsonl(tmp_path / "review.jsonl", rows))])
    right = {
        name: [row["label"] == row["predicted"] for row in rows if row["stratum"] == name] for name in ("uncertain", "random")
    }
    estimate = result["estimate"]
    expected = (sum(right["uncertain"]) + (DOCUMENTS - UNCERTAIN) * np.mean(right["random"])) / DOCUMENTS
    assert estimate["accuracy"] == pytest.approx(expected, abs=1e-6)
    assert estimate["interval"][0] <= accuracy_of(labeled) <= estimate["interval"][1]
    assert estimate["interval"][1] - estimate["interval"][0] < 0.15
    assert (estimate["documents"], estimate["reviewed"], estimate["not_reviewed"]) == (DOCUMENTS, UNCERTAIN + RANDOM, 0)
    census = next(one for one in estimate["strata"] if one["stratum"] == "uncertain")
    assert census["interval"] == [census["accuracy"]] * 2
    assert result["accuracy"] == pytest.approx(sum(map(sum, right.values())) / len(rows), abs=1e-6)
    assert result["accuracy"] < estimate["interval"][0], "the reviewed documents alone are no measure of all"
    assert {result["calibration"], result["risk_coverage"], result["baseline"]} == {None}
    assert result["other_estimates"] == []
    print_evaluation(result)
    for shown in (capsys.readouterr().err, section(result)):
        assert f"accuracy of all 2,000 documents: {estimate['accuracy']:.1%}, 95% confidence interval" in shown
        assert "uncertain" in shown
        assert "None" not in shown


def test_documents_that_were_skipped_are_gone_or_changed_are_no_part_of_the_estimate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labeled = made(tmp_path / "out", 0.85).opened()
    rows = review(labeled)
    by_name = {name: [row for row in rows if row["stratum"] == name] for name in ("uncertain", "random")}
    kept = [*by_name["uncertain"][:60], *by_name["random"][:100]]
    kept[0] |= {"source_row": DOCUMENTS + 5}
    kept[1] |= {"text": "another text"}
    kept[2] |= {"predicted": "law" if kept[2]["predicted"] != "law" else "art"}
    chosen = {**kept[3], "source_row": by_name["uncertain"][80]["source_row"], "text": None, "stratum": None}
    result = evaluate_reviewed(labeled, [str(write_jsonl(tmp_path / "review.jsonl", [*kept, chosen]))])
    counts = {name: result["reviewed"][name] for name in ("documents", "gone", "changed", "relabeled", "without_stratum")}
    assert counts == {"documents": 161, "gone": 1, "changed": 1, "relabeled": 1, "without_stratum": 1}
    strata = {one["stratum"]: (one["reviewed"], one["not_reviewed"]) for one in result["estimate"]["strata"]}
    assert strata == {"uncertain": (58, 42), "random": (100, 50)}
    print_evaluation(result)
    shown = " ".join(capsys.readouterr().err.split())
    assert "92 more of the sample are not reviewed" in shown
    assert "1 document without a stratum: in no estimate" in shown
    assert "left out: 1 that are not labeled now, 1 whose row holds another text" in shown


def test_sample_of_a_part_has_no_estimate_for_all_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labeled = made(tmp_path / "out", 0.85).opened()
    rows = [row for row in review(labeled) if row["stratum"] == "uncertain"]
    result = evaluate_reviewed(labeled, [str(write_jsonl(tmp_path / "review.jsonl", rows))])
    assert result["estimate"] is None
    [part] = result["other_estimates"]
    right = sum(row["label"] == row["predicted"] for row in rows) / DOCUMENTS
    assert part["interval"] == [part["accuracy"]] * 2
    assert part["corpus_bounds"] == pytest.approx([right, right + 1 - UNCERTAIN / DOCUMENTS])
    assert evaluation_context(result)["measured"] is None
    print_evaluation(result)
    assert "no estimate for all documents, as of the other strata none is reviewed: their" in capsys.readouterr().err


def test_samples_are_not_pooled_and_the_last_label_of_a_document_counts_in_each(tmp_path: Path) -> None:
    labeled = made(tmp_path / "out", 0.85).opened()
    first = write_jsonl(tmp_path / "1.jsonl", review(labeled, 1, reviewed_at="2026-11-30T10:00:00Z", label="art"))
    second = write_jsonl(tmp_path / "2.jsonl", review(labeled, 2, "review-2", reviewed_at="2026-11-30T11:00:00Z"))
    result = evaluate_reviewed(labeled, [str(second), str(first)])
    census = {one["sample"]: one["strata"][0] for one in [result["estimate"], *result["other_estimates"]]}
    assert census["review-1"] == census["review-2"], "the same documents, labeled again"
    assert [one["reviewed"] for one in [result["estimate"], *result["other_estimates"]]] == [UNCERTAIN + RANDOM] * 2


def test_model_that_was_trained_on_a_sample_gets_no_estimate_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = made(tmp_path / "old", 0.7), made(tmp_path / "new", 0.9)
    record = json.loads((tmp_path / "new" / "_job.json").read_text())
    record["models"][""]["card"] = {"reviewed_samples": ["review-1"]}
    write_bytes(tmp_path / "new" / "_job.json", json.dumps(record).encode())
    old, new = old.opened(), new.opened()
    first = str(write_jsonl(tmp_path / "1.jsonl", review(old)))
    result = evaluate_reviewed(new, [first])
    assert (result["estimate"], result["other_estimates"], result["reviewed"]["trained_on"]) == (None, [], ["review-1"])
    print_evaluation(result)
    assert "no estimate from review-1: the model was trained on it" in capsys.readouterr().err
    second = str(write_jsonl(tmp_path / "2.jsonl", review(old, 2, "review-2")))
    estimate = evaluate_reviewed(new, [first, second])["estimate"]
    assert estimate["sample"] == "review-2"
    assert estimate["interval"][0] <= accuracy_of(new) <= estimate["interval"][1], "strata of the old labels are strata still"
    compared = compare(old, new, corrections=[first])
    assert compared["truth"]["trained_on"] == [[], ["review-1"]]
    assert "the model of B was trained on them (review-1)" in (lines := "\n".join(truth_lines(compared)))
    assert "B is more accurate on documents that a model was trained on" in lines


def test_outputs_are_compared_on_the_corrected_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = made(tmp_path / "old", 0.7).opened(), made(tmp_path / "new", 0.9).opened()
    rows = [*review(old), {**review(old)[0], "source_row": DOCUMENTS + 1}]
    path = write_jsonl(tmp_path / "review.jsonl", rows)
    in_old, in_new = labels_of(old), labels_of(new)
    right = {
        side: [row["label"] == one[row["source_row"]][0] for row in rows[:-1]] for side, one in (("a", in_old), ("b", in_new))
    }
    finished = command("compare", tmp_path / "old", tmp_path / "new", "--corrections", path, "--html", tmp_path / "page.html")
    assert finished.code == 0, finished.stderr
    truth = finished.result["truth"]
    assert (truth["documents"], truth["reviewed"], truth["column"]) == (len(rows) - 1, len(rows), None)
    for side in "ab":
        assert truth[f"accuracy_{side}"] == pytest.approx(np.mean(right[side]), abs=1e-6)
    assert truth["became_right"] == sum(b and not a for a, b in zip(right["a"], right["b"], strict=True))
    assert finished.result["documents"] == DOCUMENTS, "agreement is over all"
    for shown in (finished.stderr, (tmp_path / "page.html").read_text()):
        assert f"accuracy against the corrections, {len(rows) - 1} documents: " in shown
        assert "1 reviewed document is not labeled in both" in shown


def test_label_sets_are_right_as_a_whole(tmp_path: Path) -> None:
    head = Head(TOPICS, "sigmoid", "multi_label", thresholds=(0.75,) * 3)
    labeled = made(tmp_path / "out", 0.9, head).opened()
    sets = [{**row, "label": [row["label"]], "predicted": [row["predicted"]]} for row in review(labeled)]
    for row in sets[:5]:
        row["label"] = []
    path = str(write_jsonl(tmp_path / "review.jsonl", sets))
    result = evaluate_reviewed(labeled, [path])
    assert result["kind"] == "multi_label"
    assert result["subset_accuracy"] == pytest.approx(result["reviewed"]["right"] / len(sets), abs=1e-6)
    assert result["estimate"]["accuracy"] > result["subset_accuracy"]
    truth = compare(labeled, made(tmp_path / "new", 0.95, head).opened(), corrections=[path])["truth"]
    assert truth["accuracy_a"] == result["subset_accuracy"]
    assert truth["accuracy_b"] > truth["accuracy_a"]


def test_bins_of_a_value_are_labels(tmp_path: Path) -> None:
    head = Head(("LABEL_0",), "none", "value", bins=(0.5,), bin_labels=("low", "high"))
    output = MadeOutput(tmp_path / "out", head, lambda _, rows: rows[:, None] % 4 / 4)
    output.add(whole(SOURCE, 40))
    facts = {"sample": "review-1", "stratum": "random", "stratum_documents": 40, "documents": 40, "source_file": SOURCE}
    rows = [{"source_row": row, "label": "low" if row % 4 < 3 else "high", **facts} for row in range(20)]
    result = evaluate_reviewed(output.opened(), [str(write_jsonl(tmp_path / "review.jsonl", rows))])
    assert (result["accuracy"], result["estimate"]["accuracy"], result["reviewed"]["right"]) == (0.75, 0.75, 15)
    print_evaluation(result)


def test_command_says_all_of_it_and_the_report_has_it(tmp_path: Path, model: Path) -> None:
    texts = [text[:200] for text in real_documents(40, seed=5)]
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    run_serially(make_job(source, model, tmp_path / "out"), quiet=True)
    facts = {"sample": "review-1", "stratum": "random", "stratum_documents": 40, "stratum_sampled": 30, "documents": 40}
    rows = [
        {"source_file": str(source), "source_row": row, "text": texts[row], "label": label, **facts}
        for row, (label, _) in [*labels_of(find_labeled(str(tmp_path / "out"))).items()][:30]
    ]
    path = write_jsonl(tmp_path / "review.jsonl", [*rows[1:], {**rows[0], "label": "NEUTRAL"}])
    finished = command("evaluate", tmp_path / "out", "--corrections", path)
    assert finished.code == 0, finished.stderr
    assert finished.result["estimate"]["accuracy"] == pytest.approx(29 / 30, abs=1e-6)
    assert finished.result["reviewed"]["unknown_labels"] == {"NEUTRAL": 1}
    assert "labels that the model does not have count as wrong: 'NEUTRAL' (1 document)" in finished.stderr
    kept = json.loads((tmp_path / "out" / "_report" / "evaluation.json").read_text())
    assert kept["estimate"] == finished.result["estimate"]
    page = (tmp_path / "out" / "_report" / "report.html").read_text()
    assert "accuracy of all 40 documents: 96.7%" in page
    assert "accuracy, estimated" in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_row": None}, "--corrections: no document has a source_file and a source_row"),
        (
            {"source_file": "/elsewhere"},
            "has none of the 250 documents: the first is row .* of /elsewhere, and it is not labeled",
        ),
        ({"text": "another"}, "and its row holds another text by now"),
        ({"label": "ART"}, r"line 1 of .*: there is no label 'ART'; did you mean 'art'\?"),
        ({"label": ["art", "law"]}, "line 1 of .*: has 2 labels, where each document has one"),
        ({"label": "sea"}, "the labels are 'sea', but the model's are 'art', 'law', 'maths': none in common"),
        ({"stratum_documents": 50}, "stratum 'uncertain' has 50 documents, but 100 of them are reviewed"),
    ],
)
def test_corrections_that_do_not_fit_the_output_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    labeled = made(tmp_path / "out", 0.85).opened()
    path = write_jsonl(tmp_path / "review.jsonl", review(labeled, **changes))
    with pytest.raises(UserError, match=message):
        evaluate_reviewed(labeled, [str(path)])


def test_truth_and_corrections_together_and_values_are_refused(tmp_path: Path) -> None:
    labeled = made(tmp_path / "out", 0.85).opened()
    path = write_jsonl(tmp_path / "review.jsonl", review(labeled)[:3])
    for arguments in (("evaluate", tmp_path / "out"), ("compare", tmp_path / "out", tmp_path / "out")):
        finished = command(*arguments, "--truth", "truth", "--corrections", path)
        assert finished.code == 2
        assert "--truth: no effect with --corrections" in finished.stderr
    value = MadeOutput(tmp_path / "value", Head(("LABEL_0",), "none", "value"), lambda _, rows: np.ones((len(rows), 1)))
    value.add(whole(SOURCE, 10))
    with pytest.raises(UserError, match=r"--corrections: the model predicts a value, no label; .* --truth COLUMN"):
        evaluate_reviewed(value.opened(), [str(path)])
