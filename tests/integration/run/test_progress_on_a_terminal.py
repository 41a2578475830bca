"""`run` on a terminal, as a person sees it."""

import json
import re
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.models import tiny
from tests.support.corpora import real_documents, write_jsonl
from tests.support.invariant import check_exactly_once
from tests.support.running import COMMAND_TIMEOUT_S, job_settings, keys, wait_for, write_job_file
from tests.support.screens import Terminal, on_terminal

DOCUMENTS = 600
LABELS = [f"topic-{number}" for number in range(20)]


@pytest.mark.slow
def test_run_shows_how_it_goes_survives_a_killed_classifier_and_ends_with_a_summary(tmp_path: Path) -> None:
    texts = [text[:400] for text in real_documents(DOCUMENTS, seed=5)]
    texts[3] = ""
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    model, output = tiny.make_model(tmp_path / "model", labels=LABELS), tmp_path / "out"
    settings = job_settings(source, model, output, "compute.unit_bytes=4000", "input.min_characters=1")
    job_file = write_job_file(tmp_path / "job.yaml", settings)
    command = [sys.executable, "-m", "jobs.cli", "run", str(job_file)]
    with open(tmp_path / "stdout", "wb") as stdout, on_terminal(command, rows=40, stdout=stdout.fileno()) as terminal:
        terminal.see(lambda seen: "starting the workers" in seen.text, "what it waits for", COMMAND_TIMEOUT_S)
        terminal.see(lambda seen: committed(seen) > 2, "units", COMMAND_TIMEOUT_S)
        for name in ("documents", "documents/s", "tokens/s", "rejects", "failed units", "classify", "topic-"):
            assert name in terminal.text
        assert re.search(r"topic-\d+ +█+.* [\d,]+ +\d+\.\d%", terminal.text)
        assert re.search(r"documents +[1-9]", terminal.text)

        classifier(terminal.process.pid).send_signal(signal.SIGKILL)
        terminal.see(lambda seen: "A worker died or was killed" in seen.scrolled, "Ray's words", COMMAND_TIMEOUT_S)
        before = committed(terminal)
        terminal.see(lambda seen: committed(seen) > before, "units after that", COMMAND_TIMEOUT_S)
        assert sum("units" in line and "of about" in line for line in terminal.lines) == 1, "the picture is drawn in its place"

        assert terminal.end(COMMAND_TIMEOUT_S) == 0
        summary = json.loads((tmp_path / "stdout").read_text())
        labeled, rejected = f"{summary['labeled']} labeled", f"{summary['rejected']} rejected"
        assert f"done: {DOCUMENTS} documents, {labeled}, {rejected}, in" in terminal.text
        assert "of it start-up" in terminal.text, "the lines for a person are on the terminal, the object is in the file"
        assert "at work" not in terminal.text, "the picture is gone"
        assert str(output) in terminal.text.replace("\n", "")
        assert not terminal.cursor_is_hidden
    check_exactly_once(output, keys(source, DOCUMENTS))


def committed(terminal: Terminal) -> int:
    """The units that the picture counts."""
    found = re.search(r"units +([\d,]+) of about", terminal.text)
    return int(found[1].replace(",", "")) if found else 0


def classifier(driver: int) -> psutil.Process:
    """The process of the job that holds the model."""
    found: list[psutil.Process] = []

    def find() -> bool:
        children = psutil.Process(driver).children(recursive=True)
        found[:] = [child for child in children if "ClassifyActor" in " ".join(child.cmdline())]
        return bool(found)

    wait_for(find, "a classifier", COMMAND_TIMEOUT_S)
    return found[0]
