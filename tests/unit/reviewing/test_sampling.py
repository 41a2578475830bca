"""Which documents are reviewed: what DuckDB finds in the output's files, each in one stratum, whatever the files are."""

from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from jobs.reviewing.documents import Sample, SampledDocument, read_sample
from jobs.reviewing.rows import LabeledRows
from jobs.reviewing.sampling import Request, draw_sample
from jobs.reviewing.uncertainty import certainty_of
from pipeline_ops.analysis.aligned_rows import Side
from pipeline_ops.models.heads import Head
from pipeline_ops.output.labeled_output import Labeled
from pipeline_ops.schema.units import Piece
from tests.support.compared_outputs import MadeOutput, joined_by_duckdb, spread_logits
from tests.support.labeled_units import whole

LABELS = ("a", "b", "c")
SINGLE = Head(LABELS, "softmax")
FILES, ROWS = 3, 40
Key = tuple[str, int]


def made(folder: Path, seed: int = 0, head: Head = SINGLE, **output: Any) -> MadeOutput:
    made = MadeOutput(folder, head, spread_logits(len(head.labels), seed), **output)
    for number in range(FILES):
        made.add(whole(f"/in/{number}", ROWS), reject=[3])
    return made


def drawn(labeled: Labeled, request: Request, other: Labeled | None = None) -> Sample:
    side = Side(labeled)
    certainty = certainty_of(side.head, side.columns) if request.uncertain else None
    rows = LabeledRows(side, request.seed, request.label, certainty, None if other is None else Side(other))
    strata = draw_sample(rows.batches(), rows.names, request)
    return read_sample(side, rows, strata, request.seed, ())


def key(document: SampledDocument) -> Key:
    return document.source_file, document.source_row


def keys_of(sample: Sample, stratum: str) -> set[Key]:
    return {key(one) for one in sample.reviewed if one.stratum.name == stratum}


def sizes(sample: Sample) -> dict[str, tuple[int, int]]:
    return {stratum.name: (stratum.documents, stratum.sampled) for stratum in sample.strata}


def found(folder: Path, query: str) -> list[tuple]:
    files = f"read_parquet('{folder}/**/*.parquet', hive_partitioning = true)"
    return duckdb.connect().execute(query.replace("ROWS", files)).fetchall()


def test_least_certain_documents_are_those_with_the_smallest_margins_and_the_rest_is_drawn_from(tmp_path: Path) -> None:
    output = made(tmp_path, scores=True)
    sample = drawn(output.opened(), Request(uncertain=20, random=30))
    margins = "list_sort(scores, 'DESC')[1] - list_sort(scores, 'DESC')[2]"
    smallest = found(tmp_path, f"SELECT source_file, source_row FROM ROWS ORDER BY {margins} LIMIT 20")
    assert keys_of(sample, "uncertain") == set(smallest)
    assert sizes(sample) == {"uncertain": (20, 20), "random": (FILES * (ROWS - 1) - 20, 30)}
    assert len({key(one) for one in sample.reviewed}) == 50
    assert sample.documents == FILES * (ROWS - 1)
    columns = "source_file, source_row, label, score, text"
    of = {(file, row): values for file, row, *values in found(tmp_path, f"SELECT {columns} FROM ROWS")}
    for one in sample.reviewed:
        label, score, text = of[key(one)]
        assert (one.predicted, one.texts) == (label, (text,))
        assert one.score == pytest.approx(score)
        assert one.top[0] == (label, pytest.approx(score))


@pytest.mark.parametrize(
    ("head", "output", "measure"),
    [
        (SINGLE, {}, "score"),
        (SINGLE, {"top_k": 2}, "top_scores[1] - top_scores[2]"),
        (
            Head(LABELS, "sigmoid", "multi_label", (0.5, 0.7, 0.2)),
            {},
            "list_min([abs(scores[1] - 0.5), abs(scores[2] - 0.7), abs(scores[3] - 0.2)])",
        ),
        (
            Head(LABELS, "sigmoid", "multi_label", (0.5, 0.7, 0.2)),
            {"labels": False, "scores": True},
            "list_min([abs(scores[1] - 0.5), abs(scores[2] - 0.7), abs(scores[3] - 0.2)])",
        ),
        (
            Head(("value",), "none", "value", bins=(-0.5, 0.5), bin_labels=("low", "mid", "high")),
            {},
            "least(abs(score + 0.5), abs(score - 0.5))",
        ),
    ],
)
def test_uncertainty_goes_by_the_head_and_by_the_columns_that_are_there(
    tmp_path: Path, head: Head, output: dict[str, Any], measure: str
) -> None:
    opened = made(tmp_path, head=head, **output).opened()
    expected = found(tmp_path, f"SELECT source_file, source_row FROM ROWS ORDER BY {measure} LIMIT 12")
    assert keys_of(drawn(opened, Request(uncertain=12)), "uncertain") == set(expected)


def test_disagreements_are_those_of_a_join_and_leave_the_rest_to_the_random_sample(tmp_path: Path) -> None:
    ours, other = made(tmp_path / "a"), made(tmp_path / "b", seed=1)
    joined = joined_by_duckdb(ours.output.path, other.output.path, "a.source_file, a.source_row, a.label != b.label")
    differing = {(file, row) for file, row, differs in joined if differs}
    sample = drawn(ours.opened(), Request(uncertain=15, disagreements=10, random=25), other.opened())
    uncertain = keys_of(sample, "uncertain")
    assert keys_of(sample, "disagreements") <= differing - uncertain
    assert keys_of(sample, "random").isdisjoint(differing | uncertain)
    assert sizes(sample) == {
        "uncertain": (15, 15),
        "disagreements": (len(differing - uncertain), 10),
        "random": (len(joined) - len(differing | uncertain), 25),
    }


def test_sets_of_labels_are_compared_as_sets(tmp_path: Path) -> None:
    head = Head(LABELS, "sigmoid", "multi_label", (0.5, 0.5, 0.5))
    ours, other = made(tmp_path / "a", head=head), made(tmp_path / "b", seed=1, head=head)
    differs = "list_sort(a.labels) != list_sort(b.labels)"
    joined = joined_by_duckdb(ours.output.path, other.output.path, f"a.source_file, a.source_row, {differs}")
    sample = drawn(ours.opened(), Request(disagreements=1000), other.opened())
    assert keys_of(sample, "disagreements") == {(file, row) for file, row, differs in joined if differs}
    of = {
        (file, row): tuple(labels)
        for file, row, labels in found(tmp_path / "a", "SELECT source_file, source_row, labels FROM ROWS")
    }
    assert {key(one): one.predicted for one in sample.reviewed}.items() <= of.items()


def test_documents_of_other_files_and_of_changed_ones_do_not_disagree(tmp_path: Path) -> None:
    ours, other = made(tmp_path / "a"), MadeOutput(tmp_path / "b", SINGLE, spread_logits(3, 1))
    other.add(whole("/in/0", ROWS))
    other.add(whole("/in/1", ROWS, identity="changed"))
    ours.compact()
    sample = drawn(ours.opened(), Request(disagreements=1000, random=1000), other.opened())
    assert {file for file, _ in keys_of(sample, "disagreements")} == {"/in/0"}
    assert len(sample.reviewed) == FILES * (ROWS - 1)


def test_each_label_has_its_share_or_all_of_its_documents(tmp_path: Path) -> None:
    output = made(tmp_path)
    counts = Counter(dict(found(tmp_path, "SELECT label, count(*) FROM ROWS GROUP BY 1")))
    size = min(counts.values()) + 1
    sample = drawn(output.opened(), Request(per_label=size))
    assert sizes(sample) == {f"label={label}": (count, min(count, size)) for label, count in sorted(counts.items())}
    assert all(one.stratum.name == f"label={one.predicted}" for one in sample.reviewed)


def test_label_leaves_only_its_documents(tmp_path: Path) -> None:
    output = made(tmp_path)
    [(count,)] = found(tmp_path, "SELECT count(*) FROM ROWS WHERE label = 'b'")
    sample = drawn(output.opened(), Request(label="b", uncertain=3, random=1000))
    assert sizes(sample) == {"label=b, uncertain": (3, 3), "label=b": (count - 3, count - 3)}
    assert {one.predicted for one in sample.reviewed} == {"b"}


def test_sample_is_that_of_its_seed_however_the_output_is_cut(tmp_path: Path) -> None:
    output = made(tmp_path / "a")
    pieces = MadeOutput(tmp_path / "b", SINGLE, spread_logits(3, 0))
    for number in range(FILES):
        pieces.add(Piece(f"/in/{number}", "v1", 0, 13, False), reject=[3])
        pieces.add(Piece(f"/in/{number}", "v1", 13, ROWS, True))
    request = Request(uncertain=10, random=20)
    first = [key(one) for one in drawn(output.opened(), request).reviewed]
    assert [key(one) for one in drawn(pieces.opened(), request).reviewed] == first
    output.compact()
    assert [key(one) for one in drawn(output.opened(), request).reviewed] == first
    assert [key(one) for one in drawn(output.opened(), Request(10, 0, 20, seed=1)).reviewed] != first


def test_every_document_is_drawn_equally_often(tmp_path: Path) -> None:
    opened, draws, size = made(tmp_path).opened(), 50, 30
    count = FILES * (ROWS - 1)
    often = Counter[Key]()
    for seed in range(draws):
        rows = LabeledRows(Side(opened), seed, None, None)
        [stratum] = draw_sample(rows.batches(), rows.names, Request(random=size, seed=seed))
        often.update((rows.files[one["file"]].path, int(one["row"])) for one in stratum.rows)
    assert len(often) == count
    expected = draws * size / count
    chi_squared = sum((seen - expected) ** 2 / expected for seen in often.values())
    assert abs(chi_squared - count) < 5 * np.sqrt(2 * count)


def test_model_that_was_trained_on_a_review_is_measured_on_other_documents_with_the_same_seed(tmp_path: Path) -> None:
    labeled = made(tmp_path).opened()
    before = keys_of(drawn(labeled, Request(random=30)), "random")
    assert keys_of(drawn(labeled, Request(random=30)), "random") == before
    labeled.record["models"][""]["card"] = {"reviewed_samples": ["review-1"]}
    after = keys_of(drawn(labeled, Request(random=30)), "random")
    assert len(after & before) < 20, "no more than by chance: 30 of 117 each"
