"""The processes of a command: which are its own, their names, their CPU."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from jobs.executors.worker_process import CODE, WorkerProcess
from jobs.timings.processes import process_name
from jobs.timings.timings import PLANNING, Timings
from tests.support.running import wait_for

RAY = "/venv/lib/python3.11/site-packages/ray"
BURN = "import time\nwhile time.process_time() < 0.25: pass"
PYTHON = process_name([sys.executable, "-c", BURN])


@pytest.mark.parametrize(
    ("command_line", "name"),
    [
        (["ray::MapWorker(MapBatches(ClassifyActor)).submit        "], "ray::ClassifyActor"),
        (["ray::MapBatches(read_task)"], "ray::read_task"),
        (["ray::_StatsActor.update_metrics"], "ray::_StatsActor"),
        (["ray::datasets_stats_actor:_StatsActor.__init__"], "ray::_StatsActor"),
        (["ray::IDLE"], "ray::IDLE"),
        ([f"{RAY}/core/src/ray/gcs/gcs_server", "--log_dir=/tmp/ray/x"], "gcs_server"),
        (["/venv/bin/python", "-u", f"{RAY}/_private/log_monitor.py", "--session-dir=/tmp/ray/x"], "log_monitor.py"),
        (["/venv/bin/python3.11", "-m", "jobs.executors.child", "x.py"], "jobs.executors.child"),
        (["/venv/bin/python", "-X", "importtime", "-c", "print()"], "python -c"),
        (["/venv/bin/python", "-c", "from multiprocessing.spawn import spawn_main; spawn_main()"], "multiprocessing.spawn"),
        (["python", "-c", CODE.format(module=WorkerProcess.__module__), "5", "torch"], "worker process"),
        (["python"], "python"),
        (["/bin/sh", "-c", "read x"], "sh"),
    ],
)
def test_process_is_named_by_what_it_does(command_line: list[str], name: str):
    assert process_name(command_line) == name


def processes_of(timings: Timings) -> dict[str, dict[str, Any]]:
    return {process["name"]: process for process in timings.to_dict()["processes"]}


@pytest.fixture
def sampled() -> Iterator[Timings]:
    if not sys.platform.startswith("linux"):
        pytest.skip("processes are measured on Linux only")
    with Timings(PLANNING, sampled=True) as timings:
        yield timings


def wait_for_cpu(timings: Timings, name: str, cpu_seconds: float) -> None:
    def has_used() -> bool:
        return processes_of(timings).get(name, {"cpu_seconds": 0})["cpu_seconds"] >= cpu_seconds

    wait_for(has_used, f"{cpu_seconds} s of CPU", 50)


def test_cpu_of_children_is_counted_until_and_after_the_first_commit(sampled: Timings):
    children = [subprocess.Popen([sys.executable, "-S", "-c", f"{BURN}\ninput()"], stdin=subprocess.PIPE) for _ in range(2)]
    wait_for_cpu(sampled, PYTHON, 0.4)
    sampled.unit_committed("labeling")
    for child in children:
        child.communicate(b"\n")
    sampled.begin("finishing")
    found, phases = processes_of(sampled), sampled.to_dict()["phases"]
    assert (found[PYTHON]["processes"], found["driver"]["processes"]) == (2, 1)
    assert 0.4 <= found[PYTHON]["cpu_seconds_to_first_commit"] <= found[PYTHON]["cpu_seconds"] < 5
    assert phases[0]["cpu_seconds"] >= 0.4
    assert sum(phase["cpu_seconds"] for phase in phases) == pytest.approx(
        sum(process["cpu_seconds"] for process in found.values()), abs=0.1
    )


def test_process_that_has_lost_its_parent_still_counts(sampled: Timings):
    shell = subprocess.Popen(["sh", "-c", f"{sys.executable} -S -c '{BURN}' & read line"], stdin=subprocess.PIPE)
    wait_for_cpu(sampled, PYTHON, 0.02)
    shell.communicate(b"\n")
    wait_for_cpu(sampled, PYTHON, 0.2)
