"""What a command ends with: a few lines on a terminal, one JSON object elsewhere and with --json."""

import json
import re
import sys
from pathlib import Path

import pytest

from jobs.console.run_summary import run_lines
from tests.support.corpora import real_documents, write_jsonl
from tests.support.running import COMMAND_TIMEOUT_S, job_settings, make_job, write_job_file
from tests.support.screens import on_terminal
from tests.support.serial_chain import run_serially


def screen_of(*arguments: object) -> str:
    """All that `label-corpus ARGUMENTS` leaves on a wide terminal."""
    with on_terminal([sys.executable, "-m", "jobs.cli", *map(str, arguments)], columns=4000) as terminal:
        assert terminal.end(COMMAND_TIMEOUT_S) == 0, terminal.text
        return terminal.scrolled.strip()


@pytest.mark.slow
def test_commands_end_with_lines_for_a_person_and_with_the_object_where_it_is_asked_for(model: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in real_documents(3)])
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(source, model, tmp_path / "out"))
    run_serially(make_job(source, model, tmp_path / "out"), quiet=True)
    assert screen_of("sweep", job_file) == f"0 files deleted, 0 bytes, in {tmp_path / 'out'}"
    assert json.loads(screen_of("sweep", job_file, "--json"))["removed"] == 0
    table = screen_of("status", tmp_path / "out")
    assert "3 documents" in table
    assert "{" not in table, "the table says it all"
    assert json.loads(screen_of("status", tmp_path / "out", "--quiet"))["documents"] == 3, "no command is silent"


def test_run_ends_with_three_lines_and_its_record_has_the_whole_result(model: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text} for text in [*real_documents(20), None]])
    result = run_serially(make_job(tmp_path / "in", model, tmp_path / "out"), quiet=True)
    what, speed, then = run_lines(result, "job.yaml")
    assert what == f"done: 21 documents, 20 labeled, 1 rejected, in {tmp_path / 'out'}"
    assert re.fullmatch(r"[\d.,]+ documents/s with 1 classifier; \d+:\d\d in all, \d+:\d\d of it start-up", speed)
    assert then == "next: label-corpus report job.yaml --open"
    (record,) = (tmp_path / "out" / "_runs").iterdir()
    recorded = json.loads(record.read_text())["result"]
    elsewhere = ("report", "report_error", "report_seconds", "timings")  # not known yet, or beside the result
    assert recorded == {key: value for key, value in result.to_dict().items() if key not in elsewhere}

    (tmp_path / "in" / "b.parquet").write_bytes(b"no Parquet")
    what, then = run_lines(run_serially(make_job(tmp_path / "in", model, tmp_path / "out"), quiet=True), "job.yaml")
    assert what == f"incomplete: 21 documents, 20 labeled, 1 rejected, 1 unit failed, in {tmp_path / 'out'}"
    assert then == "next: label-corpus run job.yaml --retry-failed"
