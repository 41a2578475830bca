"""The phases of `benchmark --gpu` end in every way there is, and the ones behind them run all the same."""

from typing import Any

import pytest

from jobs.gpu_benchmark import runner
from jobs.gpu_benchmark.phases import PHASES, Phase
from jobs.gpu_benchmark.runner import chosen_phases, run_phases
from pipeline_ops.schema.errors import UserError


def pretended(name: str, seconds: float = 200) -> Phase:
    return Phase(name, seconds, f"tests.unit.gpu_benchmark.pretended_phases.{name}")


@pytest.mark.slow
def test_every_phase_has_its_findings_and_its_end_whatever_the_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "GRACE_SECONDS", 1.0)
    phases = [
        pretended("raises"),
        pretended("dies"),
        pretended("never_ends", 0.5),
        Phase("missing", 1, "nowhere.at_all"),
        pretended("finds"),
    ]
    seen: list[dict[str, Any]] = []
    lines = run_phases(phases, tiny=True, limit=250, on_line=seen.append)
    assert seen == lines
    ends = {line["phase"]: line for line in lines if line.get("status") not in (None, "begun")}
    assert {name: end["status"] for name, end in ends.items()} == {
        "raises": "failed",
        "dies": "died",
        "never_ends": "cut off",
        "missing": "failed",
        "finds": "done",
    }
    assert ends["raises"]["error"] == "ValueError: a word of why"
    assert "Assertion `index < size` failed." in ends["dies"]["error"]
    findings = [(line["phase"], line["value"]) for line in lines if "status" not in line]
    assert findings == [("raises", 1), ("dies", 2), ("never_ends", 3), ("finds", 0.3333)]


def test_phases_for_which_the_limit_leaves_no_time_are_named() -> None:
    lines = run_phases([pretended("finds"), pretended("dies")], tiny=True, limit=0, on_line=lambda line: None)
    assert [(line["phase"], line["status"]) for line in lines] == [("finds", "not begun"), ("dies", "not begun")]


def test_only_takes_phases_in_their_own_order_and_refuses_other_names() -> None:
    assert [phase.name for phase in chosen_phases(["attention", "facts"])] == ["facts", "attention"]
    assert chosen_phases(None) == list(PHASES)
    with pytest.raises(UserError, match="'attentoin' is none of facts, ceilings, attention"):
        chosen_phases(["attentoin"])
