"""Reading corrections: the page's JSON Lines and what a spreadsheet makes of the CSV say the same; mistakes are named."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline_ops.reviewing.corrections import Stratum, fit_labels, is_same_text, newest_by, read_corrections
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.review_format import label_cell, spreadsheet_cell
from pipeline_ops.storage.config import StorageConfig
from tests.conftest import Bucket
from tests.support.corpora import write_bytes, write_jsonl

REVIEWED = {
    **{"sample": "review-1", "source_file": "/in/a.jsonl", "source_row": 17, "text": "=a; b\n'c\"", "label": "refund"},
    **{"predicted": "card", "score": 0.41, "stratum": "label=card", "stratum_documents": 200, "stratum_sampled": 20},
    **{"documents": 13_083, "model": "", "reviewed_at": "2026-11-30T14:20:05Z", "later": 1},
}
COLUMNS = ["corrected", *(name for name in REVIEWED if name not in ("label", "reviewed_at", "later"))]


def sheet(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    def cell(row: dict[str, Any], name: str) -> str:
        value = row.get("label", "") if name == "corrected" else row[name]
        text = spreadsheet_cell(label_cell(value)) if name in ("corrected", "predicted", "text") else str(value)
        return '"' + text.replace('"', '""') + '"'

    lines = [delimiter.join(COLUMNS), *(delimiter.join(cell(row, name) for name in COLUMNS) for row in rows)]
    return "\ufeff".encode() + "\r\n".join([*lines, ""]).encode()


def read(*paths: Path) -> list:
    return read_corrections([str(path) for path in paths], StorageConfig(), "--corrections")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_spreadsheet_says_what_the_page_says_and_rows_without_a_label_are_not_reviewed(tmp_path: Path, delimiter: str) -> None:
    unseen = {**REVIEWED, "label": "", "source_row": 18}
    write_bytes(tmp_path / "sheet.csv", sheet([unseen, REVIEWED], delimiter))
    [page], [cells] = read(write_jsonl(tmp_path / "page.jsonl", [REVIEWED])), read(tmp_path / "sheet.csv")
    for one in (page, cells):
        assert (one.label, one.predicted, one.text, one.source) == ("refund", "card", REVIEWED["text"], ("/in/a.jsonl", 17))
        assert one.stratum == Stratum("review-1", "label=card", 200, 20, 13_083)
    assert cells.place.startswith("row 3 of ")
    assert [one.label for one in read(tmp_path)] == ["refund", "refund"]  # a folder: all of its files


def test_label_sets_are_lists_in_json_and_names_in_a_row_in_a_cell(tmp_path: Path) -> None:
    sets = [{**REVIEWED, "label": label, "predicted": ["a"]} for label in (["a", "b"], [], ["b"])]
    write_bytes(tmp_path / "sheet.csv", sheet(sets))
    for path in (write_jsonl(tmp_path / "page.jsonl", sets), tmp_path / "sheet.csv"):
        fitted, unknown = fit_labels(read(path), ["a", "b"], are_sets=True, key="")
        assert [one.label for one in fitted] == [("a", "b"), (), ("b",)]
        assert not unknown
        with pytest.raises(
            UserError, match="has 2 labels, where each document has one" if path.suffix == ".jsonl" else "labels"
        ):
            fit_labels(read(path), ["a", "b"], are_sets=False, key="input.corrections")


def test_last_correction_of_a_document_counts_by_time_or_else_by_order(tmp_path: Path) -> None:
    def label_of(*rows: dict[str, Any]) -> object:
        return newest_by(lambda one: one.source, read(write_jsonl(tmp_path / "a.jsonl", rows)))["/in/a.jsonl", 17].label

    other, undated = {**REVIEWED, "label": "card"}, {**REVIEWED, "label": "bank", "reviewed_at": None}
    earlier = {**other, "reviewed_at": "2026-11-29T00:00:00Z"}
    assert label_of(REVIEWED, other) == "card"
    assert label_of(REVIEWED, earlier) == "refund"
    assert label_of(REVIEWED, undated) == "bank"
    assert label_of(undated, REVIEWED) == "refund"


@pytest.mark.slow
def test_corrections_on_object_storage_are_read_by_a_glob(s3: Bucket) -> None:
    s3.filesystem.pipe(f"{s3.name}/r/1.jsonl", json.dumps(REVIEWED).encode())
    s3.filesystem.pipe(f"{s3.name}/r/2.csv", sheet([REVIEWED]))
    s3.filesystem.pipe(f"{s3.name}/r/page.html", b"<html>")
    storage = StorageConfig(endpoint_url=s3.endpoint_url)
    for path, found in ((f"{s3.url}/r/*.jsonl", 1), (f"{s3.url}/r", 2)):
        assert len(read_corrections([path], storage, "--corrections")) == found
    with pytest.raises(UserError, match=r"^--corrections: there is no file 's3://.*/none'"):
        read_corrections([f"{s3.url}/none"], storage, "--corrections")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n', r"line 1 of .*a.jsonl: has no key `label`"),
        ("a.jsonl", b'{"label": "x"}\n{"label', r"line 2 of .*a.jsonl: is no JSON"),
        ("a.jsonl", b'{"label": null}\n', r"line 1 of .*: label None is neither a name nor a list"),
        ("a.jsonl", b'{"label": "a", "source_row": "x"}\n', r"line 1 of .*: source_row 'x' is no whole number"),
        ("a.jsonl", b'{"label": "a", "model": "m"}\n{"label": "a", "model": "n"}\n', "those of several models, 'm', 'n'"),
        ("a.jsonl", b"\n", "no document of .* is reviewed"),
        ("a.csv", b"text,label\nx,a\n", r"a.csv: has no column `corrected` .*, but text, label; .* input.path"),
        ("a.csv", b"corrected,text\n,x\n", "no document of .* is reviewed"),
        ("a.csv", b'corrected,text\na,"x\n', "is no CSV"),
        ("a.csv", "corrected,text\na,é\n".encode("cp1252"), "is not UTF-8 .*; save it as CSV UTF-8"),
        ("a.csv", b"corrected,sample,stratum,stratum_documents\na,s,t,1e9999\n", r"row 2 of .*: stratum_documents '1e9999'"),
        ("a.txt", b"x", "is no .jsonl or .csv file"),
    ],
)
def test_file_that_is_no_review_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=f"^--corrections: .*{message}"):
        read(write_bytes(tmp_path / name, content))


@pytest.mark.parametrize(("label", "meant"), [("TRUE", "true"), ("1", "01"), ("100000", "1e5"), ("Card  lost", "card lost")])
def test_label_that_a_spreadsheet_has_changed_is_refused_with_its_row(tmp_path: Path, label: str, meant: str) -> None:
    path = write_bytes(tmp_path / "a.csv", f"corrected,text\ntrue,x\n{label},y\n".encode())
    with pytest.raises(UserError, match=rf"^--truth: row 3 of .*a.csv: there is no label '{label}'; did you mean '{meant}'\?"):
        fit_labels(read(path), ["true", "01", "1e5", "card lost"], are_sets=False, key="--truth")


def test_new_labels_are_counted(tmp_path: Path) -> None:
    rows = [{**REVIEWED, "label": label} for label in ("refund", "refnud", "new", "new")]
    _, unknown = fit_labels(read(write_jsonl(tmp_path / "a.jsonl", rows)), ["refund"], are_sets=False, key="")
    assert unknown == {"refnud": 1, "new": 2}


@pytest.mark.parametrize(
    ("shown", "is_same"),
    [
        (None, True),
        ("a key:\r\nsk-123, and ‘more’", True),
        ("a key:\nsk-124, and more", False),
        ("a key: ▇▇▇, and more", True),
        ("another key: ▇▇▇, and more", False),
        ("a key: sk…", True),
        ("a key: sk", False),
    ],
)
def test_text_of_a_review_is_known_again_masked_cut_or_with_other_line_ends(shown: str | None, *, is_same: bool) -> None:
    assert is_same_text("a key:\nsk-123, and 'more'", shown) == is_same
