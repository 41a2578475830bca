"""The check that all integration tests rely on must itself be able to fail."""

from pathlib import Path

import pytest

from tests.support.corpora import write_jsonl, write_parquet
from tests.support.invariant import check_exactly_once

EXPECTED = [("corpus.jsonl", row) for row in range(4)]


def write_output(folder: Path, positive: list[int], negative: list[int], rejected: list[int]) -> Path:
    for label, rows in (("POSITIVE", positive), ("NEGATIVE", negative)):
        documents = [{"source_file": "corpus.jsonl", "source_row": row} for row in rows]
        write_parquet(folder / f"label={label}" / "unit-attempt.parquet", documents)
    rejects = [{"source_file": "corpus.jsonl", "source_row": row, "reason": "null_text", "detail": ""} for row in rejected]
    write_jsonl(folder / "_rejects" / "unit-attempt.jsonl", rejects)
    return folder


def test_invariant_every_document_once_passes(tmp_path: Path):
    labeled, rejects = check_exactly_once(write_output(tmp_path, [0, 3], [1], [2]), EXPECTED)
    assert sorted(zip(labeled["source_row"].to_pylist(), labeled["label"].to_pylist(), strict=True)) == [
        (0, "POSITIVE"),
        (1, "NEGATIVE"),
        (3, "POSITIVE"),
    ]
    assert [reject["source_row"] for reject in rejects] == [2]


def test_invariant_only_rejects_passes(tmp_path: Path):
    write_jsonl(tmp_path / "_rejects" / "u.jsonl", [{"source_file": "corpus.jsonl", "source_row": row} for row in range(4)])
    labeled, rejects = check_exactly_once(tmp_path, EXPECTED)
    assert (labeled.num_rows, len(rejects)) == (0, 4)


@pytest.mark.parametrize(
    ("positive", "negative", "rejected", "problem"),
    [
        ([0], [1], [2], "1 missing"),
        ([0, 3], [1, 3], [2], "1 doubled"),
        ([0, 3], [1], [2, 3], "1 doubled"),
        ([0, 3], [1, 4], [2], "1 unknown"),
    ],
)
def test_invariant_document_lost_or_doubled_fails(
    tmp_path: Path, positive: list[int], negative: list[int], rejected: list[int], problem: str
):
    output = write_output(tmp_path, positive, negative, rejected)
    with pytest.raises(AssertionError, match=problem):
        check_exactly_once(output, EXPECTED)
