"""The live view of a run, in windows of all sizes, and its line."""

import io
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from cluster.attempts import StageActivity
from cluster.resources import ComputeConfig, Machines, Pools, resolve_pools
from jobs.console.run_progress import RunProgress
from jobs.run.state import RunState
from pipeline_ops.schema.failures import failure_of
from pipeline_ops.schema.units import Piece
from pipeline_ops.writing.commit_record import Commit
from tests.support.corpora import write_jsonl
from tests.support.running import make_job
from tests.support.serial_chain import run_serially


def commit(labels: dict[str, int], rejected: int = 0, tokens: int = 1000) -> Commit:
    labeled = sum(labels.values())
    return Commit("unit", "attempt", (), (), None, labeled, rejected, tokens, tokens, 0, labels)


def progress(monkeypatch: pytest.MonkeyPatch, commits: list[Commit], units: int = 20) -> RunProgress:
    """The view of a run whose first commits came a second after the other, ten seconds after its start."""
    now = time.monotonic()
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr("jobs.console.run_progress.time", clock)
    monkeypatch.setattr("jobs.run.state.time", clock)
    state = RunState(run="run", output="out", files=1, units_planned=units, started=now)
    view = RunProgress(state, quiet=False)
    state.observers.append(view.observe)
    now += 10
    state.begin_labeling(pools(), None, ["float32"])
    for done in commits:
        now += 1
        state.add(done)
    return view


def pools(**compute: Any) -> Pools:
    return resolve_pools(ComputeConfig(**{"tokenizers": 1, "classifiers": 2, **compute}), Machines(cpus=8, cores=4, gpus=0))


def seen(view: RunProgress, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(view)
    return captured.get().splitlines()


def test_picture_shows_counts_rates_time_left_stages_and_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    view = progress(monkeypatch, [commit({"good": 60, "bad": 40}, rejected=10, tokens=2200)] * 10)
    view.state.set_activity(StageActivity({"read": 1, "tokenize": 1, "classify": 1, "write": 0}))
    text = " ".join("\n".join(seen(view)).split())
    assert "50% about 0:10 left" in text, "ten units in ten seconds, ten to go"
    assert "documents 1,100 units 10 of about 20 rejects 100" in text
    assert "documents/s 110 tokens/s 2,200 failed units 0" in text
    assert "whole run 55.0 whole run 1,100 elapsed 0:20" in text
    assert "read 1 tokenize 1 of 1 ● classify 1 of 2 ●○ write 0" in text
    good, bad = seen(view)[-2:]
    assert (good.split()[0], good.split()[-2:]) == ("good", ["600", "60.0%"])
    assert (bad.split()[0], bad.split()[-2:]) == ("bad", ["400", "40.0%"])
    assert good.count("█") > bad.count("█") > 0


def test_view_before_the_first_unit_shows_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    view = progress(monkeypatch, [])
    text = "\n".join(seen(view))
    assert "waiting for the first unit: actors start and load the model  0:00" in text
    assert "%" not in text, "there is nothing yet of which it could be a share"
    assert "classify 0 of 2" in text


def test_time_left_is_not_estimated_from_a_few_units(monkeypatch: pytest.MonkeyPatch) -> None:
    view = progress(monkeypatch, [commit({"good": 1})] * 2)
    assert "left" not in "\n".join(seen(view))


def test_more_units_than_expected_have_no_time_left_and_no_more_than_all(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(seen(progress(monkeypatch, [commit({"good": 1})] * 8, units=5)))
    assert "100%" in text
    assert "8 of about 8" in text
    assert "left" not in text


def test_deaths_and_growing_pools_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    view = progress(monkeypatch, [commit({"good": 1})])
    view.state.begin_labeling(pools(classifiers={"min": 1, "max": 3}), None, ["float32"])
    view.state.set_activity(StageActivity({"classify": 2}, retries=3))
    text = "\n".join(seen(view))
    assert "classify 2 of 1-3" in text
    assert "3 died" in text


@pytest.mark.parametrize("width", [20, 40, 80, 120, 300])
@pytest.mark.parametrize("height", [3, 8, 24])
def test_picture_fits_every_window(monkeypatch: pytest.MonkeyPatch, width: int, height: int) -> None:
    labels = {
        f"a name=label that is far too long for this window, 语言 \n number {number}": number + 1 for number in range(1000)
    }
    view = progress(monkeypatch, [commit(labels, rejected=10**6)] * 10, units=10**6)
    lines = seen(view, width, height)
    assert len(lines) < height
    assert all(cell_len(line) < width for line in lines)


def test_many_labels_end_with_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {f"label {number}": 1000 - number for number in range(1000)}
    lines = seen(progress(monkeypatch, [commit(labels)]))
    assert [line.split("  ")[0].strip() for line in lines[-9:]] == [*(f"label {number}" for number in range(8)), "992 others"]
    total = sum(labels.values())
    assert f"{total - sum(1000 - number for number in range(8)):,}" in lines[-1]


def test_line_shows_rates_time_left_and_what_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    view = progress(monkeypatch, [commit({"good": 100}, tokens=2000)] * 10)
    assert view.line() == ("1,000 documents, 10 of about 20 units, 100 documents/s, 2,000 tokens/s, about 0:10 left")
    view.state.add(commit({"good": 1}, rejected=3))
    for name in ("a", "b"):
        view.state.quarantined.append(failure_of(ValueError("broken"), (Piece(name, "v1", 0, 1, True),), "read"))
    assert view.line().endswith(", 3 rejected, 2 units failed")


def test_quiet_run_is_silent(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "one"}])
    assert run_serially(make_job(source, model, tmp_path / "out"), quiet=True).documents == 1
    assert capsys.readouterr().err == ""
