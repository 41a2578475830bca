"""Two outputs that were cut, named, merged, moved differently: what is compared is what DuckDB joins of their plain files."""

from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from jobs.report.comparison import comparison_page
from jobs.results.compare import compare
from jobs.results.comparison_tables import print_comparison
from pipeline_ops.analysis import comparison
from pipeline_ops.analysis.alignment import align, match_inputs
from pipeline_ops.models.heads import Head
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.units import END_OF_FILE, Piece
from tests.support.compared_outputs import MadeOutput, joined_by_duckdb, spread_logits
from tests.support.labeled_units import whole

LABELS = ("art", "law", "maths")
HEAD = Head(LABELS, "softmax")


def truth_of(path: str, rows: np.ndarray) -> list[str | None]:
    """Truths of documents: some have none, some one that no model knows."""
    return [None if row % 11 == 0 else (*LABELS, "sea")[(row * 7 + len(path)) % 4] for row in rows.tolist()]


def made(folder: Path, seed: int = 0, head: Head = HEAD, **settings: Any) -> MadeOutput:
    return MadeOutput(folder, head, spread_logits(len(head.labels), seed), **settings)


def cut(output: MadeOutput, path: str, *stops: int, identity: str = "v1", reject: tuple[int, ...] = ()) -> None:
    """The rows of a file in units that end at `stops`."""
    for start, stop in zip((0, *stops), stops, strict=False):
        output.add(Piece(path, identity, start, stop, stop == stops[-1]), reject=reject)


def check_against_duckdb(a: MadeOutput, b: MadeOutput, result: dict[str, Any], label_b: str = "label", **options: Any) -> None:
    rows = joined_by_duckdb(a.output.path, b.output.path, f"a.label, b.{label_b}", **options)
    flows = Counter(rows)
    assert result["documents"] == len(rows)
    assert result["agreed"] == sum(count for (one, other), count in flows.items() if one == other)
    assert {(flow["a"], flow["b"]): flow["documents"] for flow in result["flows"]} == {
        pair: count for pair, count in flows.items() if pair[0] != pair[1]
    }
    for label in result["labels"]:
        assert label["in_a"] == sum(count for (one, _), count in flows.items() if one == label["label"])
        assert label["in_b"] == sum(count for (_, other), count in flows.items() if other == label["label"])
        assert label["stayed"] == flows[label["label"], label["label"]]


@pytest.mark.parametrize("part_bytes", [1, 5000, 2**28])
@pytest.mark.parametrize("merged", [False, True])
def test_outputs_of_different_units_are_joined_in_any_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_bytes: int, merged: bool
) -> None:
    monkeypatch.setattr(comparison, "PART_BYTES", max(part_bytes, comparison.ROW_BYTES * 7))
    a, b = made(tmp_path / "a"), made(tmp_path / "b", 1)
    for path, rows in (("/in/x", 90), ("/in/y", 61)):
        cut(a, path, 20, 40, rows)
        cut(b, path, 33, rows)
    a.add(whole("/in/p", 5), whole("/in/q", 30), whole("/in/r", 8))
    b.add(whole("/in/p", 5))
    b.add(whole("/in/q", 30), whole("/in/r", 8))
    if merged:
        a.compact()
    result = compare(a.opened(), b.opened())
    assert result["documents"] == 194
    check_against_duckdb(a, b, result)
    expected = joined_by_duckdb(
        a.output.path, b.output.path, "a.source_file, a.source_row, a.score, b.score, a.label = b.label, a.text"
    )
    bounds = [
        (max(abs(one - other), 0 if equal else one + other - 1), path, row, text)
        for path, row, one, other, equal, text in expected
    ]
    ranked = sorted(bounds, key=lambda bound: (-bound[0], bound[1], bound[2]))[: comparison.MOST_CHANGED]
    found = [(change["source_file"], change["source_row"], change["text"]) for change in result["most_changed"]]
    assert found == [(path, row, text) for _, path, row, text in ranked]
    assert [change["distance"] for change in result["most_changed"]] == pytest.approx([one[0] for one in ranked], abs=1e-6)
    assert (result["only_a"], result["only_b"], result["changed_input"]) == (0, 0, 0)


def test_renamed_columns_and_a_partition_that_is_not_the_label(tmp_path: Path) -> None:
    a = made(tmp_path / "a", partition_by=("source_file",))
    b = made(tmp_path / "b", 1, label_name="topic", score_column="sure", source_row_column="line", partition_by=())
    for output in (a, b):
        cut(output, "/in/x", 25, 50)
    result = compare(a.opened(), b.opened())
    assert result["documents"] == 50
    assert 0 < result["agreed"] < 50
    folders = a.output.path, b.output.path
    query = "select count(*) from read_parquet('{}/**/*.parquet') a join read_parquet('{}/**/*.parquet') b"
    rows = duckdb.connect().execute(f"{query.format(*folders)} on a.source_row = b.line and a.label = b.topic").fetchall()
    assert rows == [(result["agreed"],)]


def test_rows_of_one_output_only_are_counted_and_told_from_rejects(tmp_path: Path) -> None:
    a, b = made(tmp_path / "a"), made(tmp_path / "b", 1)
    cut(a, "/in/x", 20, 40, reject=(1, 2))
    cut(b, "/in/x", 40, reject=(2, 3, 30))
    cut(a, "/in/only-a", 7, reject=(0,))
    a.add(whole("/in/y", 4), whole("/in/z", 5))
    b.add(whole("/in/z", 5), whole("/in/only-b", 3))
    result = compare(a.opened(), b.opened())
    check_against_duckdb(a, b, result)
    assert result["documents"] == 40 - 4 + 5
    assert (result["only_a"], result["rejected_in_b"]) == (2 + 6 + 4, 2)
    assert (result["only_b"], result["rejected_in_a"]) == (1 + 3, 1)


def test_documents_of_changed_files_are_counted_and_not_compared(tmp_path: Path) -> None:
    a, b = made(tmp_path / "a"), made(tmp_path / "b", 1)
    a.add(whole("/in/same", 9), whole("/in/changed", 6))
    b.add(whole("/in/same", 9))
    b.add(whole("/in/changed", 8, identity="v2"))
    a.add(whole("/in/alone", 2), whole("/in/also-changed", 3))
    b.add(whole("/in/also-changed", 3, identity="v2"))
    result = compare(a.opened(), b.opened())
    assert (result["documents"], result["changed_files"], result["changed_input"]) == (9, 2, 11)
    assert (result["only_a"], result["only_b"]) == (2, 0)
    assert {change["source_file"] for change in result["most_changed"]} == {"/in/same"}


@pytest.mark.parametrize("source", ["s3://new/place", "s3://new/place/*.jsonl", "s3://new/place/**/*"])
def test_moved_input_is_matched_below_the_inputs(tmp_path: Path, source: str) -> None:
    a, b = made(tmp_path / "a", source="/old"), made(tmp_path / "b", 1, source=source)
    a.add(whole("/old/x.jsonl", 12), whole("/old/deep/x.jsonl", 9))
    b.add(whole("s3://new/place/deep/x.jsonl", 9, identity="etag"), whole("s3://new/place/x.jsonl", 12, identity="etag"))
    result = compare(a.opened(), b.opened())
    assert (result["matched_by"], result["documents"], result["changed_input"]) == ("path below the input", 21, 0)
    check_against_duckdb(a, b, result, on="a.source_file = replace(b.source_file, 's3://new/place', '/old')")
    assert all(change["text"].endswith(change["source_file"]) for change in result["most_changed"])


def test_another_root_with_the_same_files_is_matched_by_path(tmp_path: Path) -> None:
    a, b = made(tmp_path / "a", source="/in"), made(tmp_path / "b", 1, source="/in/x")
    a.add(whole("/in/x", 12), whole("/in/y", 9))
    b.add(whole("/in/x", 12))
    result = compare(a.opened(), b.opened())
    assert (result["matched_by"], result["documents"], result["only_a"]) == ("path", 12, 9)


def test_different_label_sets_agree_over_names(tmp_path: Path) -> None:
    a = made(tmp_path / "a")
    b = made(
        tmp_path / "b", 0, head=Head(("maths", "art", "sport", "politics"), "softmax", min_score=0.4, fallback_label="unsure")
    )
    for output in (a, b):
        cut(output, "/in/x", 100)
    result = compare(a.opened(), b.opened())
    check_against_duckdb(a, b, result)
    assert (result["labels_only_a"], result["labels_only_b"]) == (["law"], ["sport", "politics", "unsure"])


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_all_scores_give_the_distance_itself_whatever_the_order_of_the_labels(tmp_path: Path, activation: Any) -> None:
    a = made(tmp_path / "a", head=Head(LABELS, activation), scores=True)
    b = made(tmp_path / "b", 1, head=Head(("maths", "art", "law"), activation), scores=True, scores_column="all")
    for output in (a, b):
        cut(output, "/in/x", 60)
    result = compare(a.opened(), b.opened())
    rows = joined_by_duckdb(a.output.path, b.output.path, "a.source_row, a.scores, b.all")
    exact = {}
    for row, scores_a, scores_b in rows:
        difference = np.abs(np.array(scores_a) - np.array(scores_b)[[1, 2, 0]])
        exact[row] = difference.sum() / 2 if activation == "softmax" else difference.max()
    assert result["most_changed"][0]["distance"] == pytest.approx(max(exact.values()), abs=1e-6)
    assert all(change["distance"] == pytest.approx(exact[change["source_row"]], abs=1e-6) for change in result["most_changed"])


def test_multi_label_heads_are_compared_by_all_their_labels(tmp_path: Path) -> None:
    head = Head(LABELS, "sigmoid", "multi_label", thresholds=(0.5, 0.6, 0.4))
    a, b = made(tmp_path / "a", head=head), made(tmp_path / "b", 1, head=head, labels_column="tags")
    for output in (a, b):
        cut(output, "/in/x", 30, 70)
    result = compare(a.opened(), b.opened())
    pairs = [(set(one), set(other)) for one, other in joined_by_duckdb(a.output.path, b.output.path, "a.labels, b.tags")]
    expected = np.mean([len(one & other) / len(one | other) if one | other else 1 for one, other in pairs])
    assert result["jaccard"] == pytest.approx(expected, abs=1e-6)


def test_values_are_compared_as_numbers(tmp_path: Path) -> None:
    head = Head(("LABEL_0",), "none", "value")
    a, b = made(tmp_path / "a", head=head), made(tmp_path / "b", 1, head=head)
    for output in (a, b):
        cut(output, "/in/x", 50, 80)
    result = compare(a.opened(), b.opened())
    values = np.array(joined_by_duckdb(a.output.path, b.output.path, "a.score, b.score"))
    assert "kappa" not in result
    difference = result["value_difference"]
    assert difference["pearson_r"] == pytest.approx(np.corrcoef(values.T)[0, 1], abs=1e-6)
    assert difference["mean_absolute"] == pytest.approx(np.abs(values[:, 1] - values[:, 0]).mean(), abs=1e-6)
    assert result["most_changed"][0]["distance"] == pytest.approx(np.abs(values[:, 1] - values[:, 0]).max(), abs=1e-6)


@pytest.mark.parametrize("kept_in", ["a", "b"])
def test_truth_counts_what_became_right_and_wrong_as_duckdb_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kept_in: str
) -> None:
    monkeypatch.setattr(comparison, "PART_BYTES", comparison.ROW_BYTES * 7)
    a, b = (made(tmp_path / side, seed, truth=truth_of if side == kept_in else None) for side, seed in (("a", 0), ("b", 1)))
    cut(a, "/in/x", 40, 90, reject=(5,))
    cut(b, "/in/x", 33, 90, reject=(6,))
    result = compare(a.opened(), b.opened(), truth="truth")
    truth = result["truth"]
    joined = joined_by_duckdb(a.output.path, b.output.path, "truth, a.label, b.label, b.score, b.source_row")
    rows = [row for row in joined if row[0] is not None]
    cells = Counter((row[1] == row[0], row[2] == row[0]) for row in rows)
    found = [truth[key] for key in ("right_in_both", "became_wrong", "became_right", "wrong_in_both")]
    assert found == [cells[right] for right in ((True, True), (True, False), (False, True), (False, False))]
    assert (truth["documents"], truth["without_truth"]) == (len(rows), len(joined) - len(rows))
    assert truth["accuracy_a"] == pytest.approx((cells[True, True] + cells[True, False]) / len(rows), abs=1e-6)
    assert truth["difference"] == pytest.approx((cells[False, True] - cells[True, False]) / len(rows), abs=1e-6)
    assert {row["label"] for row in truth["labels"]} == {*LABELS, "sea"}
    for row in truth["labels"]:
        pairs = [(one == true, other == true) for true, one, other, *_ in rows if true == row["label"]]
        assert (row["documents"], row["became_right"], row["became_wrong"]) == (
            len(pairs),
            pairs.count((False, True)),
            pairs.count((True, False)),
        )
        assert row["accuracy_b"] == pytest.approx(np.mean([right for _, right in pairs]), abs=1e-6)
    wrong = sorted((row for row in rows if row[1] == row[0] != row[2]), key=lambda row: (-row[3], row[4]))
    keys = ("truth", "label_a", "label_b", "source_row")
    documents = truth["became_wrong_documents"]
    assert [tuple(one[key] for key in keys) for one in documents] == [(*row[:3], row[4]) for row in wrong][:20]
    assert all(one["text"] == f"text {one['source_row']} of /in/x" for one in documents)
    print_comparison(result)
    for shown in (capsys.readouterr().err, comparison_page(result)):
        assert f"became right {truth['became_right']}, became wrong {truth['became_wrong']}" in shown
        assert f"text {documents[0]['source_row']} of /in/x" in shown
        assert "None" not in shown


def test_truth_of_label_sets_is_right_as_a_whole(tmp_path: Path) -> None:
    head = Head(LABELS, "sigmoid", "multi_label", thresholds=(0.5, 0.6, 0.4))

    def sets(_: str, rows: np.ndarray) -> list[list[str] | None]:
        return [None if row % 13 == 5 else [*LABELS, "sea"][: row % 5] for row in rows.tolist()]

    a, b = made(tmp_path / "a", head=head, truth=sets), made(tmp_path / "b", 1, head=head, truth=sets)
    for output in (a, b):
        cut(output, "/in/x", 30, 200)
    truth = compare(a.opened(), b.opened(), truth="truth")["truth"]
    rows = joined_by_duckdb(a.output.path, b.output.path, "a.truth, a.labels, b.labels")
    cells = Counter((set(one) == set(true), set(other) == set(true)) for true, one, other in rows if true is not None)
    found = [truth[key] for key in ("right_in_both", "became_wrong", "became_right", "wrong_in_both")]
    assert found == [cells[right] for right in ((True, True), (True, False), (False, True), (False, False))]
    assert truth["without_truth"] == sum(true is None for true, _, _ in rows)
    assert {one["truth"] for one in truth["became_wrong_documents"]} <= {"none", "art", "art, law", "art, law, maths"}
    with_art = next(row for row in truth["labels"] if row["label"] == "art")
    assert with_art["documents"] == sum("art" in (true or []) for true, _, _ in rows)


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("label", "'label' is added by labeling"),
        ("trut", "no column 'trut' of the input; did you mean 'truth'"),
        ("text", "'text' holds 'text 0 of /in/x'.* but the model's labels are 'art', 'law', 'maths': no value in common"),
    ],
)
def test_truth_that_cannot_be_compared_is_refused(tmp_path: Path, column: str, said: str) -> None:
    a, b = made(tmp_path / "a", truth=truth_of), made(tmp_path / "b", 1)
    for output in (a, b):
        cut(output, "/in/x", 20)
    with pytest.raises(UserError, match=f"^--truth: .*{said}"):
        compare(a.opened(), b.opened(), truth=column)


def test_truth_of_values_and_of_lists_for_single_labels_is_refused(tmp_path: Path) -> None:
    head = Head(("LABEL_0",), "none", "value")
    values = [made(tmp_path / name, head=head, truth=truth_of) for name in ("a", "b")]
    labels = [made(tmp_path / name, truth=lambda _, rows: [["art"]] * len(rows)) for name in ("c", "d")]
    for output in (*values, *labels):
        cut(output, "/in/x", 5)
    with pytest.raises(UserError, match="--truth: 'truth' cannot be compared with values"):
        compare(values[0].opened(), values[1].opened(), truth="truth")
    with pytest.raises(UserError, match=r"--truth: .* holds lists"):
        compare(labels[0].opened(), labels[1].opened(), truth="truth")


def test_same_answers_agree_wholly(tmp_path: Path) -> None:
    a, b = made(tmp_path / "a"), made(tmp_path / "b")
    for output in (a, b):
        cut(output, "/in/x", 50)
    result = compare(a.opened(), b.opened())
    assert (result["agreement"], result["kappa"], result["flows"], result["most_changed"]) == (1, 1, [], [])
    assert result["score_difference"]["mean"] == 0


def test_parts_hold_each_document_once_and_no_more_than_asked(tmp_path: Path) -> None:
    """An end that nobody has seen, a chain of units that overlap, files that are small, and one that changed."""
    a, b = made(tmp_path / "a"), made(tmp_path / "b")
    cut(a, "/in/x", 10, 20, 30)
    for start, stop in ((0, 15), (15, 25)):
        b.add(Piece("/in/x", "v1", start, stop, False))
    b.add(Piece("/in/x", "v1", 25, 30, True), whole("/in/small", 3))
    a.add(whole("/in/small", 3), whole("/in/odd", 2))
    found_a, found_b = a.opened().commits, b.opened().commits
    matching = match_inputs(found_a, found_b, "/in", "/in")
    together = align(found_a, found_b, matching, 1000)
    assert [(len(part.a), len(part.b)) for part in together.parts] == [(4, 3)]
    sliced = align(found_a, found_b, matching, 12)
    assert len(sliced.parts) > 2
    assert all(len(part.a) <= 3 for part in sliced.parts)
    assert sliced.parts[0].low is None
    assert sliced.parts[-1].high is None
    assert all(one.high == other.low for one, other in zip(sliced.parts, sliced.parts[1:], strict=False))


def test_piece_to_an_unseen_end_is_compared(tmp_path: Path) -> None:
    a, b = made(tmp_path / "a"), made(tmp_path / "b", 1)
    cut(a, "/in/x", 10, 30)
    cut(b, "/in/x", 30)
    for output in (a, b):
        for record in Path(output.output.path, "_commits").glob("*.json"):
            record.write_text(record.read_text().replace('"stop_row": 30', f'"stop_row": {END_OF_FILE}'))
    assert compare(a.opened(), b.opened())["documents"] == 30


def test_user_errors_are_one_line(tmp_path: Path) -> None:
    a, b, empty = made(tmp_path / "a"), made(tmp_path / "b", source="/elsewhere"), made(tmp_path / "empty")
    a.add(whole("/in/x", 4))
    b.add(whole("/elsewhere/y", 4))
    value = made(tmp_path / "value", head=Head(("LABEL_0",), "none", "value"))
    value.add(whole("/in/x", 4))
    with pytest.raises(UserError, match=r"no input file in common: A has '/in/x', B '/elsewhere/y'"):
        compare(a.opened(), b.opened())
    with pytest.raises(UserError, match="the same output"):
        compare(a.opened(), a.opened())
    with pytest.raises(UserError, match=r"B: .* has no commits"):
        compare(a.opened(), empty.opened())
    with pytest.raises(UserError, match="predicts a value"):
        compare(a.opened(), value.opened())
