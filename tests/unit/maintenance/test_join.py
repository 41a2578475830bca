"""`join`: the rows of two outputs as one table, each document once, whatever changes in the outputs between two joins."""

from pathlib import Path

import pytest

from jobs.maintenance.compact import compact
from jobs.maintenance.join import join
from jobs.results.labels import labels
from jobs.results.open_output import job_at
from pipeline_ops.output.commit_log import write_job
from pipeline_ops.output.labeled_output import open_labeled
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.units import Reject, unpack_rejects
from pipeline_ops.storage.store import Store
from tests.support.joined_outputs import LabeledOnce, expected_rows, join_here, joined_rows, piece_of

QUALITY, TOPIC = ("good", "bad"), ("art", "law", "maths")
LABELS = (QUALITY, TOPIC)
COLUMNS = ("text", "quality_label", "topic_label")


@pytest.fixture
def a(tmp_path: Path) -> LabeledOnce:
    return LabeledOnce(tmp_path / "a", "models/quality", QUALITY)


@pytest.fixture
def b(tmp_path: Path) -> LabeledOnce:
    return LabeledOnce(tmp_path / "b", "models/topic", TOPIC, partition_by=[], columns="none", scores=True, embedding="mean")


def test_joined_rows_have_the_columns_of_both(a: LabeledOnce, b: LabeledOnce, tmp_path: Path) -> None:
    x, y = piece_of("x", 0, 20), piece_of("y", 0, 5)
    a.add(x, y)
    b.add(y, piece_of("x", 0, 8, last=False))
    b.add(piece_of("x", 8, 20))
    result = join_here(tmp_path / "c", a, b)
    assert (result["documents"], result["documents_joined"], result["complete"]) == (25, 25, True)
    assert result["models"] == ["quality", "topic"]
    assert joined_rows(tmp_path / "c", *COLUMNS) == expected_rows([x, y], labels=LABELS)
    assert {path.name for path in (tmp_path / "c").glob("*=*")} == {"quality_label=good", "quality_label=bad"}
    frame = labels(str(tmp_path / "c")).set_index(["source_file", "source_row"])
    assert frame.loc[("/in/x", 7), "topic_embedding"].tolist() == [7, 7.5]
    assert frame.loc[("/in/x", 7), "topic_scores"].argmax() == 1
    assert {*frame.columns} == {
        *COLUMNS,
        *(f"{name}_{column}" for name in ("quality", "topic") for column in ("score", "num_tokens", "truncated")),
        "topic_scores",
        "topic_embedding",
    }
    again = join_here(tmp_path / "c", a, b)
    assert (again["documents_joined"], again["documents"]) == (0, 25)


def test_document_that_one_output_has_rejected_is_rejected_once(a: LabeledOnce, b: LabeledOnce, tmp_path: Path) -> None:
    x = piece_of("x", 0, 10)
    a.add(x, reject=[1, 2])
    b.add(x, reject=[2, 3])
    result = join_here(tmp_path / "c", a, b)
    assert (result["labeled"], result["rejected"], result["rejected_in_some"]) == (7, 3, 2)
    assert joined_rows(tmp_path / "c", *COLUMNS) == expected_rows([x], [1, 2, 3], labels=LABELS)
    (path,) = (tmp_path / "c" / "_rejects").iterdir()
    assert unpack_rejects(path.read_bytes()) == [
        Reject("/in/x", 1, "null_text", "quality: no text"),
        Reject("/in/x", 2, "null_text", "no text"),
        Reject("/in/x", 3, "null_text", "topic: no text"),
    ]


def test_later_join_takes_what_is_new_changed_or_gone(a: LabeledOnce, b: LabeledOnce, tmp_path: Path) -> None:
    x, y, z = piece_of("x", 0, 6), piece_of("y", 0, 5), piece_of("z", 0, 4)
    first = [(one, one.add(x, y), one.add(z)) for one in (a, b)]
    join_here(tmp_path / "c", a, b)

    new, changed = piece_of("n", 0, 3), piece_of("x", 0, 9, version="v2")
    a.add(new)
    a.add(changed, y, replaces=[first[0][1]])
    waits = join_here(tmp_path / "c", a, b)
    assert (waits["documents_joined"], waits["complete"], waits["other_versions"]) == (0, False, ["/in/x"])
    assert waits["waiting"] == {a.store.path: {"files": 0, "rows": 0}, b.store.path: {"files": 1, "rows": 3}}
    assert joined_rows(tmp_path / "c", *COLUMNS) == expected_rows([x, y, z], labels=LABELS)

    b.add(new)
    b.add(y, changed, replaces=[first[1][1]])
    a.drop(first[0][2])
    result = join_here(tmp_path / "c", a, b)
    assert (result["documents_joined"], result["files_changed"], result["files_removed"]) == (12, 1, 1)
    assert joined_rows(tmp_path / "c", *COLUMNS) == expected_rows([new, changed, y], labels=LABELS)


def test_rows_of_large_units_are_halved_and_complete(
    a: LabeledOnce, b: LabeledOnce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline_ops.joining.joined_unit.MAX_BYTES", 2000)
    x = piece_of("x", 0, 100)
    a.add(x, reject=[5])
    b.add(x)
    assert join_here(tmp_path / "c", a, b)["units"] > 4
    assert joined_rows(tmp_path / "c", *COLUMNS) == expected_rows([x], [5], labels=LABELS)


def test_compacted_outputs_are_joined_and_a_joined_output_is_compacted(a: LabeledOnce, b: LabeledOnce, tmp_path: Path) -> None:
    pieces = [piece_of(f"x-{number}", 0, 7) for number in range(4)]
    for one in (a, b):
        for piece in pieces[:3]:
            one.add(piece)
    join_here(tmp_path / "c", a, b)
    for one in (a, b):
        one.add(pieces[3])
        assert compact(job_at(one.store.path), 2**20, quiet=True)["merged"]
    assert join_here(tmp_path / "c", a, b)["documents_joined"] == 7
    compact(job_at(str(tmp_path / "c")), 2**20, quiet=True)
    assert join_here(tmp_path / "c", a, b)["documents_joined"] == 0
    assert joined_rows(tmp_path / "c", *COLUMNS) == expected_rows(pieces, labels=LABELS)


def test_joined_output_is_joined_with_a_third(a: LabeledOnce, b: LabeledOnce, tmp_path: Path) -> None:
    x = piece_of("x", 0, 9)
    third = LabeledOnce(tmp_path / "d", "models/language", ("de", "en"))
    for one in (a, b, third):
        one.add(x)
    join_here(tmp_path / "c", a, b)
    both = open_labeled(Store(str(tmp_path / "c")))
    join([both, third.opened()], Store(str(tmp_path / "e")), quiet=True)
    assert joined_rows(tmp_path / "e", *COLUMNS, "language_label") == expected_rows([x], labels=(*LABELS, ("de", "en")))
    renamed = join([both, third.opened()], Store(str(tmp_path / "f")), ["q", "t", "l"], quiet=True)
    assert renamed["models"] == ["q", "t", "l"]
    assert joined_rows(tmp_path / "f", "text", "q_label", "t_label", "l_label") == joined_rows(
        tmp_path / "e", *COLUMNS, "language_label"
    )


def test_outputs_with_other_documents_in_the_same_rows_are_refused(a: LabeledOnce, b: LabeledOnce, tmp_path: Path) -> None:
    a.add(piece_of("x", 0, 5))
    b.record["config"]["input"]["header"] = False
    write_job(b.store, b.record)
    b.add(piece_of("x", 0, 5))
    with pytest.raises(UserError, match=r"^input.header: True in '.*/a', False in '.*/b', so their rows are not the same"):
        join_here(tmp_path / "c", a, b)
    assert not (tmp_path / "c").exists()
