"""`--log-format json`: an object per line, whoever prints."""

import io
import json
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from jobs.console import json_logging
from tests.support.corpora import real_documents, write_bytes, write_jsonl
from tests.support.invariant import check_exactly_once
from tests.support.running import (
    COMMAND_TIMEOUT_S,
    command,
    commit_paths,
    job_settings,
    keys,
    make_job,
    running_command,
    wait_for,
    write_job_file,
)
from tests.support.serial_chain import run_serially

RAY_CPP_LINE = re.compile(r"\[\d{4}-\d\d-\d\d [\d:,]+ [IWEF] \d+ \d+\] \w+\.cc:\d+: ")


@contextmanager
def json_stderr() -> Iterator[io.StringIO]:
    """This process's stderr, as --log-format json has it, for the time of the block."""
    before, handlers, level = sys.stderr, json_logging.LOGGER.handlers[:], json_logging.LOGGER.level
    sys.stderr = written = io.StringIO()
    json_logging.to_json()
    try:
        yield written
    finally:
        sys.stderr = before
        json_logging.LOGGER.handlers[:] = handlers
        json_logging.LOGGER.setLevel(level)
        json_logging.LOGGER.propagate = True


def lines_of(text: str) -> list[dict[str, Any]]:
    """The objects in `text`; lines of Ray's C++ code, which stay text, are left out."""
    lines = [json.loads(line) for line in text.splitlines() if not RAY_CPP_LINE.match(line)]
    for line in lines:
        assert {"time", "level", "event", "message"} <= line.keys()
        assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)
    return lines


def test_run_tells_its_events_under_one_run_id(model: Path, tmp_path: Path) -> None:
    texts = [text[:300] for text in real_documents(40, seed=4)]
    texts[7] = ""
    source = write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text} for text in texts])
    broken = write_bytes(tmp_path / "in" / "b.parquet", b"this is no Parquet file")
    output = tmp_path / "out"
    job = make_job(tmp_path / "in", model, output, "compute.unit_bytes=3000", "input.min_characters=1")
    with json_stderr() as written:
        summary = run_serially(job, as_json=True)
    lines = lines_of(written.getvalue())

    events = Counter(line["event"] for line in lines)
    assert lines[0]["event"] == "run_started"
    assert lines[-1]["event"] == "run_ended"
    commits = {commit["unit"]: commit for path in commit_paths(output) for commit in [json.loads(path.read_text())]}
    assert {line["run"] for line in lines} == {commit["run"] for commit in commits.values()}
    committed = [line for line in lines if line["event"] == "unit_committed"]
    assert {line["unit"] for line in committed} == commits.keys()
    assert events["unit_committed"] == len(commits) == summary.units > 1
    for line in committed:
        commit = commits[line["unit"]]
        assert line["documents"] == commit["labeled"] + commit["rejected"]
        assert (line["rejected"], line["tokens"]) == (commit["rejected"], commit["tokens"])
    (failed,) = [line for line in lines if line["event"] == "unit_failed"]
    assert (failed["where"], failed["step"], failed["level"]) == (str(broken), "read", "warning")
    assert (output / "_failed" / f"{failed['failure']}.json").exists()
    ended = lines[-1]
    assert {name: getattr(summary, name) for name in ("documents", "rejected", "units", "units_failed", "tokens_run")} == {
        name: ended[name] for name in ("documents", "rejected", "units", "units_failed", "tokens_run")
    }
    assert ended["level"] == "warning", "something is missing"
    broken.unlink()
    assert run_serially(job, as_json=True).units_failed == 0
    check_exactly_once(output, keys(source, 40))


def test_quiet_run_tells_nothing(model: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "one"}])
    with json_stderr() as written:
        run_serially(make_job(source, model, tmp_path / "out"), quiet=True, as_json=True)
    assert [line for line in lines_of(written.getvalue()) if line["event"] != "output"] == []


def test_what_others_print_is_an_object_per_line_too() -> None:
    with json_stderr() as written:
        print("first\nsecond ", end="", file=sys.stderr)
        print("\x1b[33mhalf\x1b[0m", file=sys.stderr)
    lines = lines_of(written.getvalue())
    assert [line["message"] for line in lines[:2]] == ["first", "second half"]
    assert {line["event"] for line in lines} == {"output"}


def test_mistake_in_a_job_file_is_one_object_and_exit_2(model: Path, tmp_path: Path) -> None:
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(tmp_path / "nothing", model, tmp_path / "out"))
    finished = command("run", job_file, "--log-format", "json")
    assert finished.code == 2
    (line,) = lines_of(finished.stderr)
    assert (line["event"], line["level"], line["exit_code"]) == ("error", "error", 2)
    assert "input.path" in line["message"]
    assert not (tmp_path / "out").exists()


def test_error_that_nobody_foresaw_is_one_object_with_its_traceback() -> None:
    with json_stderr() as written:
        try:
            raise RuntimeError("two\nlines")
        except RuntimeError as error:
            json_logging.log_error("failed: two lines", 1, error)
    (line,) = lines_of(written.getvalue())
    assert line["message"] == "failed: two lines"
    assert line["traceback"].endswith("RuntimeError: two\nlines")


def test_interrupted_run_says_so_in_an_object(model: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "one"}])
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(source, model, tmp_path / "out"))
    with running_command("run", job_file, "--log-format", "json") as process:
        wait_for((tmp_path / "out" / "_lease").exists, "a run at work", COMMAND_TIMEOUT_S)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=COMMAND_TIMEOUT_S)
    *_, last = lines_of(stderr)
    assert (process.returncode, last["event"], last["exit_code"]) == (130, "error", 130)
    assert last["message"] == f"interrupted: nothing is labeled yet; `label-corpus run {job_file}` continues"
