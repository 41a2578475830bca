"""A type that changes behind the sample costs no document its label, and no value: the whole way, on Ray too."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from jobs.label_corpus import labels, run
from jobs.maintenance.compact import compact
from jobs.maintenance.verify import verify
from tests.support.corpora import real_documents, write_jsonl
from tests.support.invariant import check_exactly_once, read_misfits
from tests.support.running import keys, make_job, output_files
from tests.support.serial_chain import run_serially

LATE = [{"edited": 0.5}, {"meta": "none"}, {"edited": "n/a", "meta": [1, {"ü": None}]}, {"id": 2**63}]


def write_late(path: Path, late: list[dict], texts: list[str]) -> dict[tuple[str, int], dict[str, str]]:
    """JSON lines whose columns change their types behind the sample; returns what does not fit."""
    early = [{"text": text * 40, "edited": True, "meta": {"a": 1}, "id": 1} for text in texts]
    rows = [early[number % len(early)] for number in range(-(-(2**20) // min(len(json.dumps(row)) for row in early)) + 1)]
    write_jsonl(path, [*rows, *({**early[0], **values, "text": "late"} for values in late)])
    return {
        (str(path), row): {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
        for row, values in enumerate(late, len(rows))
    }


@pytest.mark.parametrize(
    "executor", [pytest.param(run_serially, id="serially"), pytest.param(run, id="on Ray", marks=pytest.mark.slow)]
)
def test_late_values_of_other_types_cost_no_document_its_label(
    executor: Callable, request: pytest.FixtureRequest, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if executor is run:
        request.getfixturevalue("ray_address")
    source, output = tmp_path / "in" / "a.jsonl", tmp_path / "out"
    expected = write_late(source, LATE, [text[:200] for text in real_documents(3)])
    count = max(row for _, row in expected) + 1
    job = make_job(tmp_path / "in", model, output, "model.max_length=16")
    result = executor(job)
    labeled, rejects = check_exactly_once(output, keys(source, count))
    assert (rejects, read_misfits(output)) == ([], expected)
    assert (result.labeled, result.to_dict()["values_misfit"]) == (count, {"edited": 2, "id": 1, "meta": 2})
    said = " ".join(capsys.readouterr().err.split())
    first = count - len(LATE)
    assert f"column 'edited': 2 values do not fit its type, bool, such as 0.5 in row {first} of {source}; they are null" in said
    assert "input.column_types={edited: string}" in said

    rows = {row["source_row"]: row for row in labeled.to_pylist()}
    for _, row in expected:
        values = {"edited": True, "meta": {"a": 1}, "id": 1} | dict.fromkeys(expected[str(source), row])
        assert {name: rows[row][name] for name in values} == values
    assert len({tuple(pq.read_schema(path).names) for path in output.glob("label=*/*.parquet")}) == 1
    assert len(pd.read_parquet(output)) == len(labels(str(output))) == count
    assert verify(job, deep=True)["ok"]


def test_misfits_follow_their_documents(model: Path, tmp_path: Path) -> None:
    """Files share a unit; one changes, and the output is compacted and damaged."""
    source, output = tmp_path / "in", tmp_path / "out"
    job = make_job(source, model, output)
    for name in ("a", "b", "c"):
        write_jsonl(source / f"{name}.jsonl", [{"text": name, "n": 1}, {"text": "none", "n": 2}])
    run_serially(job, quiet=True)
    for name in ("d", "e"):
        write_jsonl(source / f"{name}.jsonl", [{"text": name, "n": name}, {"text": None, "n": "rejected"}])
    run_serially(job, quiet=True)
    d, e, f = (str(source / f"{name}.jsonl") for name in "def")
    assert read_misfits(output) == {(d, 0): {"n": '"d"'}, (e, 0): {"n": '"e"'}}

    write_jsonl(Path(d), [{"text": "new", "n": 3}])
    write_jsonl(Path(f), [{"text": "f", "n": 1.5}])
    result = run_serially(job, quiet=True)
    assert read_misfits(output) == {(e, 0): {"n": '"e"'}, (f, 0): {"n": "1.5"}}
    assert result.values_misfit == {"n": 2}
    assert verify(job, deep=True)["ok"]

    compact(job, target_bytes=10**9, quiet=True)
    assert len([*output.glob("_misfits/*.jsonl")]) == 1
    assert len(read_misfits(output)) == 2
    check_exactly_once(output, [key for path in source.iterdir() for key in keys(path, len(path.read_text().splitlines()))])
    assert run_serially(job, quiet=True).values_misfit == {"n": 2}
    assert verify(job, deep=True)["ok"]

    (path,) = output.glob("_misfits/*.jsonl")
    path.write_text(path.read_text().replace('"e\\"', '"x\\"'))
    report = verify(job, deep=True)
    assert any(str(path.relative_to(output)) in line for line in report["broken"])


def test_a_misfits_file_that_no_commit_names_is_swept(model: Path, tmp_path: Path) -> None:
    job = make_job(write_jsonl(tmp_path / "in.jsonl", [{"text": "a"}]), model, tmp_path / "out")
    run_serially(job, quiet=True)
    orphan = tmp_path / "out" / "_misfits" / f"{'0' * 24}-{'0' * 12}.jsonl"
    orphan.parent.mkdir()
    orphan.write_text("{}\n")
    run_serially(job, quiet=True)
    assert str(orphan) not in output_files(tmp_path / "out")
    assert not orphan.exists()
