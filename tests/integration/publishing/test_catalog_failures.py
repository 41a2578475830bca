"""A catalog that fails while a run goes: the labeling goes on, and the table has all of it in the end."""

import time
from pathlib import Path

import pytest
import requests
from pyiceberg.catalog.sql import SqlCatalog

from jobs.config import load_job
from jobs.maintenance.verify import verify
from jobs.results.labels import labels
from pipeline_ops.schema.errors import StoreError
from tests.support.corpora import write_jsonl
from tests.support.running import job_settings, write_job_file
from tests.support.serial_chain import run_serially


@pytest.fixture
def job_file(tmp_path: Path, model: Path) -> Path:
    for name in "abc":
        write_jsonl(tmp_path / f"in/{name}.jsonl", [{"text": f"{name} {row}"} for row in range(4)])
    overrides = ("compute.unit_bytes=1", "output.table=iceberg", "output.publish_seconds=0.000001", "output.lease_seconds=1")
    write_job_file(tmp_path / "job.yaml", job_settings(tmp_path / "in", model, tmp_path / "out", *overrides))
    return tmp_path / "job.yaml"


def failing(monkeypatch: pytest.MonkeyPatch, first: int, last: int) -> None:
    """The catalog's commits from the first to the last fail, counted from 1."""
    commit, calls = SqlCatalog.commit_table, iter(range(1, 1000))

    def commit_or_fail(*arguments: object) -> object:
        if first <= next(calls) <= last:
            raise requests.ConnectionError("connection reset by peer")
        return commit(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(SqlCatalog, "commit_table", commit_or_fail)


def test_a_catalog_that_fails_for_a_while_ends_no_run(
    job_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, 2, 2)
    result = run_serially(str(job_file))
    assert (result.labeled, result.complete) == (12, True)
    assert "connection reset by peer; the labeling goes on" in capsys.readouterr().err
    assert verify(load_job(str(job_file)))["ok"]


def test_a_catalog_that_still_fails_at_the_end_ends_the_run_when_all_is_labeled(
    job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, 2, 999)
    with pytest.raises(StoreError, match="connection reset by peer"):
        run_serially(str(job_file), quiet=True)
    assert len(labels(str(job_file.parent / "out"))) == 12
    monkeypatch.undo()
    time.sleep(1)  # of lease_seconds: where a store is at fault the lease is not released
    result = run_serially(str(job_file), quiet=True)
    assert (result.documents_run, result.complete) == (0, True)
    assert verify(load_job(str(job_file)))["ok"]
