"""The live view of a run, in windows of all sizes, and its line."""

import io
import re
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from cluster.attempts import StageActivity, UnitProgress
from cluster.resources import ComputeConfig, Machines, Pools, resolve_pools
from jobs.console.run_progress import RunProgress
from jobs.run.state import RunState
from pipeline_ops.schema.failures import failure_of
from pipeline_ops.schema.units import Piece
from pipeline_ops.writing.commit_record import ClassifySeconds, Commit
from tests.support.corpora import write_jsonl
from tests.support.running import make_job
from tests.support.serial_chain import run_serially

SECONDS = 1  # of a classifier for a unit


def commit(labels: dict[str, int], rejected: int = 0, tokens: int = 1000) -> Commit:
    labeled = sum(labels.values())
    seconds = ClassifySeconds(waiting=5, computing=SECONDS)
    return Commit("unit", "attempt", (), (), None, labeled, rejected, tokens, tokens, 0, labels, classify_seconds=seconds)


class Run:
    """A run and its view, by a clock of their own; the workers start in 20 seconds, and then each unit comes after a second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, commits: Sequence[Commit] = (), units: int = 20, **before: Any):
        self.now = time.monotonic()
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr("jobs.console.run_progress.time", clock)
        monkeypatch.setattr("jobs.run.state.time", clock)
        self.state = RunState(run="run", output="out", files=1, units_planned=units, started=self.now, **before)
        self.view = RunProgress(self.state, quiet=False)
        self.state.observers.append(self.view.observe)
        self.now += 20
        self.state.begin_labeling(pools(), None, ["float32"])
        for done in commits:
            self.pass_seconds(1)
            self.state.add(done)
            self.seen()

    def pass_seconds(self, seconds: float) -> None:
        self.now += seconds

    def classify(self, **units: UnitProgress) -> None:
        self.state.set_activity(StageActivity({"classify": max(len(units), 1)}, units=dict(units)))

    def seen(self, width: int = 80, height: int = 24) -> list[str]:
        console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
        with console.capture() as captured:
            console.print(self.view)
        return captured.get().splitlines()

    @property
    def text(self) -> str:
        return " ".join("\n".join(self.seen()).split())


def pools(**compute: Any) -> Pools:
    return resolve_pools(ComputeConfig(**{"tokenizers": 1, "classifiers": 2, **compute}), Machines(cpus=8, cores=4, gpus=0))


def test_picture_shows_counts_rates_times_stages_and_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, [commit({"good": 60, "bad": 40}, rejected=10, tokens=2200)] * 10)
    run.state.set_activity(StageActivity({"read": 1, "tokenize": 1, "classify": 1, "write": 0}))
    text = run.text
    assert "50% about 0:10 left" in text, "ten units in ten seconds, ten to go"
    assert "documents 1,100 of about 2,200 units 10 of about 20 rejects 100" in text
    assert "documents/s 110 tokens/s 2,200 failed units 0" in text, "of the time of labeling"
    assert "start-up 0:20 labeling 0:10 elapsed 0:30" in text
    assert "units: pieces of input, each committed as a whole" in text
    assert "read 1 tokenize 1 of 1 ● classify 1 of 2 ●○ write 0" in text
    good, bad = run.seen()[-2:]
    assert (good.split()[0], good.split()[-2:]) == ("good", ["600", "60.0%"])
    assert (bad.split()[0], bad.split()[-2:]) == ("bad", ["400", "40.0%"])
    assert good.count("█") > bad.count("█") > 0


def test_view_says_what_is_being_done_before_labeling_and_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, units=2)
    assert "loading the model 0:20" in run.text
    assert "%" not in run.text, "there is nothing yet of which it could be a share"
    assert "classify 0 of 2" in run.text
    assert run.view.line() == "loading the model, 0:20 since the start"
    run.pass_seconds(5)
    run.classify()
    assert "labeling" in run.text
    assert "loading" not in run.text
    for _ in range(2):
        run.pass_seconds(30)
        run.state.add(commit({"good": 100}))
    assert "99%" in run.text, "more units may come than were expected"
    run.state.begin_step("finishing: writing the report")
    run.pass_seconds(9)
    assert re.search("100% . finishing: writing the report", run.text)
    assert "start-up 0:25 labeling 1:00 elapsed 1:34" in run.text


@pytest.mark.parametrize("limit", [None, 400])
def test_end_of_the_stages_is_all_with_exact_counts(monkeypatch: pytest.MonkeyPatch, limit: int | None) -> None:
    run = Run(monkeypatch, [commit({"good": 123})] * 3, units=5, limit=limit, units_before=2, documents_before=7)
    assert "units 5 of about 7" in run.text
    run.state.end_labeling()
    run.state.begin_step("finishing: checking the commits")
    assert re.search("100% . finishing: checking the commits", run.text), "as many units as there are, not as expected"
    assert "documents 376 units 5 rejects 0" in run.text


def test_two_large_units_move_the_view_while_they_are_labeled(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, units=2)
    run.classify()
    shares, documents = [], []
    for second in range(1, 11):
        run.pass_seconds(4)
        done = UnitProgress(second / 20, 50 * second, 500 * second)
        run.classify(a=done, b=done)
        shares.append(int(re.findall(r"(\d+)%", run.text)[0]))
        documents.append(int(re.findall(r"documents ([\d,]+) of about 2,000", run.text)[0].replace(",", "")))
    assert shares == [5 * second for second in range(1, 11)]
    assert documents == [100 * second for second in range(1, 11)]
    assert "50% about 0:40 left" in run.text, "the 20 seconds of start-up do not count"
    assert "documents/s 25.0 tokens/s 250" in run.text
    assert run.view.line().startswith("1,000 of about 2,000 documents (50%), 0 of about 2 units (pieces of input,")


def test_unit_that_is_tried_again_or_committed_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, units=4)
    run.classify(unit=UnitProgress(0.9, 90, 900))
    assert "documents 90 of about 400" in run.text
    run.classify(unit=UnitProgress(0.1, 10, 100))
    assert "documents 90 of about 400" in run.text, "its worker has died: the view waits, and does not go back"
    run.state.add(commit({"good": 100}))
    assert "documents 100 of about 400" in run.text


def test_continued_run_begins_with_what_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {"units_before": 30, "documents_before": 3000, "share_before": 0.75, "rejected_before": 7}
    run = Run(monkeypatch, units=10, **before)
    assert re.search("75% . loading the model", run.text)
    assert "documents 3,000 of about 4,000 units 30 of about 40 rejects 7" in run.text
    run.state.add(commit({"good": 100}))
    run.pass_seconds(9)
    assert "78% about 1:30 left" in run.text, "a tenth of the rest in ten seconds"
    assert run.state.labeled_text() == "3,100 of about 4,000 documents are labeled"


def test_trial_is_a_share_of_its_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, [commit({"good": 100})], units=500, limit=400)
    assert "25%" in run.text
    assert "documents 100 of about 400" in run.text


def test_time_left_is_not_estimated_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "left" not in Run(monkeypatch, [commit({"good": 1})] * 2).text


def test_more_units_than_expected_have_no_time_left_and_no_more_than_all(monkeypatch: pytest.MonkeyPatch) -> None:
    text = Run(monkeypatch, [commit({"good": 1})] * 8, units=5).text
    assert "99%" in text
    assert "8 of about 8" in text
    assert "left" not in text


def test_deaths_and_growing_pools_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, [commit({"good": 1})])
    run.state.begin_labeling(pools(classifiers={"min": 1, "max": 3}), None, ["float32"])
    run.state.set_activity(StageActivity({"classify": 2}, retries=3))
    assert "classify 2 of 1-3" in run.text
    assert "3 died" in run.text


@pytest.mark.parametrize("width", [20, 40, 80, 120, 300])
@pytest.mark.parametrize("height", [3, 8, 24])
def test_picture_fits_every_window(monkeypatch: pytest.MonkeyPatch, width: int, height: int) -> None:
    labels = {
        f"a name=label that is far too long for this window, 语言 \n number {number}": number + 1 for number in range(1000)
    }
    lines = Run(monkeypatch, [commit(labels, rejected=10**6)] * 10, units=10**6).seen(width, height)
    assert len(lines) < height
    assert all(cell_len(line) < width for line in lines)


def test_many_labels_end_with_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {f"label {number}": 1000 - number for number in range(1000)}
    lines = Run(monkeypatch, [commit(labels)]).seen()
    assert [line.split("  ")[0].strip() for line in lines[-9:]] == [*(f"label {number}" for number in range(8)), "992 others"]
    total = sum(labels.values())
    assert f"{total - sum(1000 - number for number in range(8)):,}" in lines[-1]


def test_line_shows_rates_time_left_and_what_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, [commit({"good": 100}, tokens=2000)] * 10)
    first, second = run.view.line(), run.view.line()
    rates = "100 documents/s, 2,000 tokens/s, about 0:10 left"
    counts = "1,000 of about 2,000 documents (50%), 10 of about 20 units"
    assert (first, second) == (f"{counts} (pieces of input, each committed as a whole), {rates}", f"{counts}, {rates}")
    run.state.add(commit({"good": 1}, rejected=3))
    run.state.quarantined.append(failure_of(ValueError("broken"), (Piece("a", "v1", 0, 1, True),), "read"))
    assert run.view.line().endswith(", 3 rejected, 1 unit failed")


def test_quiet_run_is_silent(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "one"}])
    assert run_serially(make_job(source, model, tmp_path / "out"), quiet=True).documents == 1
    assert capsys.readouterr().err == ""
