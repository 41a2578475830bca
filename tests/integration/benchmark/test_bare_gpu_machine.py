"""What runs on a machine with a GPU, torch and transformers, and no more: the benchmark's phases, the tests of a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.gpu_benchmark.phases import PHASES
from tests.support import REPOSITORY
from tests.support.bare_machine import bare_environment

TIMEOUT_S = 280


@pytest.mark.slow
def test_every_phase_of_the_benchmark_is_rehearsed_without_a_gpu_ray_or_object_stores(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs.cli", "benchmark", "--gpu", "--tiny", "--output", str(tmp_path / "results")]
    finished = subprocess.run(
        command, cwd=REPOSITORY, env=bare_environment(tmp_path), capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    *lines, last = map(json.loads, finished.stdout.splitlines())
    assert [(phase["phase"], phase["status"]) for phase in last["phases"]] == [(phase.name, "done") for phase in PHASES]
    assert {line["phase"] for line in lines if "status" not in line} == {phase.name for phase in PHASES}
    kernels = [
        line["difference"]
        for line in lines
        if line["phase"] == "attention" and line.get("kernel") == "default" and "length" in line
    ]
    assert kernels
    assert all(0 < found[mask] < 1e-5 for found in kernels for mask in ("bool", "additive", "additive, expanded"))
    saved = json.loads((tmp_path / "results" / "benchmark-gpu.json").read_text(encoding="utf-8"))
    assert saved["rows"] == [line for line in lines if "status" not in line]
    assert saved["phases"] == last["phases"]


@pytest.mark.slow
def test_tests_of_a_gpu_are_collected_without_ray_or_object_stores(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu", "--collect-only", "-p", "no:cacheprovider"]
    finished = subprocess.run(
        command, cwd=REPOSITORY, env=bare_environment(tmp_path), capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "test_classifying_on_a_gpu.py" in finished.stdout
