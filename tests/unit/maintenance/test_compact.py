"""`compact`: fewer files with the same rows, and nothing left to do for the next one."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from cluster.resources import Machines
from jobs.executors.executor import Work, ignored
from jobs.maintenance.compact import compact
from jobs.maintenance.verify import verify
from tests.support.corpora import real_documents, write_jsonl
from tests.support.invariant import check_exactly_once
from tests.support.running import keys, make_job
from tests.support.serial_chain import SerialExecutor, run_serially


class Unwanted(SerialExecutor):
    def connected(self, work: Work = Work(), notify: Callable[[str], None] = ignored) -> AbstractContextManager[Machines]:
        raise AssertionError("Ray is started for nothing, or for little")


@pytest.mark.parametrize("in_process_bytes", [0, 2**20])
def test_compact_of_runs_with_different_columns_settles_at_once(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process_bytes: int
) -> None:
    """Later columns give files of other schemas, which stand between those of one schema."""
    monkeypatch.setattr("jobs.maintenance.compact.IN_PROCESS_BYTES", in_process_bytes)
    source, output = tmp_path / "in", tmp_path / "out"
    job = make_job(source, model, output, "compute.unit_bytes=4000")
    texts, expected = real_documents(60), []
    for number in (5, 3, 1, 4, 2):
        rows = [{"text": text, **{f"column_{column}": 1 for column in range(number)}} for text in texts[:12]]
        expected += keys(write_jsonl(source / f"{number}.jsonl", rows[: 6 + number]), 6 + number)
        run_serially(job, quiet=True)
    before, _ = check_exactly_once(output, expected)

    first = compact(job, 2**20, quiet=True, executor=SerialExecutor() if in_process_bytes == 0 else Unwanted())
    after, _ = check_exactly_once(output, expected)
    assert first["files_after"] == len([*output.glob("label=*/*.parquet")]) < first["files_before"]
    assert first["merged"] > 0
    by_row = [("source_file", "ascending"), ("source_row", "ascending")]
    assert after.sort_by(by_row).select(["text", "label"]).equals(before.sort_by(by_row).select(["text", "label"]))
    assert verify(job, deep=True)["ok"]

    again = compact(job, 2**20, quiet=True, executor=Unwanted())
    assert (again["files_before"], again["files_after"], again["merged"]) == (first["files_after"], first["files_after"], 0)
    assert run_serially(job, quiet=True).documents_run == 0
