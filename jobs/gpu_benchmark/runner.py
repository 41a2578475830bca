"""Runs the phases of `benchmark --gpu` in a process of their own, and starts another one behind a phase that ends it.

Guarantee: every chosen phase has a last line with its `status`: done, failed, cut off, died or not begun; and no phase keeps
the ones behind it from running, other than by the time it takes.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.gpu_benchmark.child import NO_GPU
from jobs.gpu_benchmark.phases import PHASES, Phase
from pipeline_ops.schema.errors import UserError

Line = dict[str, Any]  # of a phase: a finding, or with `status` its begin or end

START_SECONDS = 120.0  # until the first phase begins: Python, torch, the driver
GRACE_SECONDS = 15.0  # behind a phase's deadline, at which it is to end by itself
STDERR_LINES = 6  # of a process that died


def chosen_phases(names: Sequence[str] | None, phases: Sequence[Phase] = PHASES) -> list[Phase]:
    """The phases of these names, in their own order; None: all.

    Raises:
        UserError: there is no such phase.
    """
    known = {phase.name: phase for phase in phases}
    for name in names or ():
        if name not in known:
            raise UserError(f"--only: {name!r} is none of {', '.join(known)}")
    return [phase for phase in phases if not names or phase.name in names]


def run_phases(phases: Sequence[Phase], *, tiny: bool, limit: float, on_line: Callable[[Line], None]) -> list[Line]:
    """Runs phases, one after the other.

    Args:
        tiny: the rehearsal, which needs no GPU.
        limit: seconds for all of them.
        on_line: called with each line as it comes, and with each that is added for a phase that could not end by itself.

    Returns:
        All lines.

    Raises:
        UserError: there is no GPU, and it is no rehearsal.
    """
    lines: list[Line] = []

    def keep(line: Line) -> None:
        lines.append(line)
        on_line(line)

    deadline, left = time.monotonic() + limit, list(phases)
    while left:
        if time.monotonic() >= deadline:
            for phase in left:
                keep({"phase": phase.name, "status": "not begun", "error": f"the {limit:g} s of --limit are over"})
            break
        left = left[_run_child(left, tiny=tiny, deadline=deadline, keep=keep) :]
    return lines


def _run_child(phases: Sequence[Phase], *, tiny: bool, deadline: float, keep: Callable[[Line], None]) -> int:
    """Runs phases in one process until the last has ended, or one has ended the process; returns how many are over."""
    task = {"phases": [asdict(phase) for phase in phases], "tiny": tiny, "deadline": deadline}
    over, running = 0, False
    with _started(task) as (process, arrivals, errors):
        patience, asked = START_SECONDS, time.monotonic()
        while over < len(phases):
            phase = phases[over]
            try:
                line = arrivals.get(timeout=max(0.0, asked + patience - time.monotonic()))
            except queue.Empty:
                seconds = round(time.monotonic() - asked, 1)
                keep({"phase": phase.name, "status": "cut off", "error": f"no end after {seconds} s", "seconds": seconds})
                return over + 1
            if line is None:
                code = process.wait()
                if code == NO_GPU:
                    raise UserError("--gpu: torch finds no GPU here; with --tiny the phases are rehearsed on the CPU")
                if not running and over:  # it has ended itself: its device was lost
                    return over
                tail = " | ".join(Path(errors).read_text(encoding="utf-8", errors="replace").splitlines()[-STDERR_LINES:])
                keep({"phase": phase.name, "status": "died", "error": f"its process ended with {code}: {tail}"})
                return over + 1
            keep(line)
            status = line.get("status")
            if status == "begun":
                running, asked = True, time.monotonic()
                patience = max(0.0, min(phase.seconds, deadline - asked)) + GRACE_SECONDS
            elif status is not None:
                over, running, asked, patience = over + 1, False, time.monotonic(), GRACE_SECONDS
    return over


@contextmanager
def _started(task: Line) -> Iterator[tuple[subprocess.Popen[str], "queue.Queue[Line | None]", str]]:
    """A child, its lines as they arrive (None: there are no more), the path of its stderr; its group ends with the block."""
    with tempfile.TemporaryDirectory(prefix="label-corpus-gpu-") as folder:
        errors = os.path.join(folder, "stderr")
        with open(errors, "wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "jobs.gpu_benchmark.child", json.dumps(task)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,  # Ctrl-C in the terminal comes here first
            )
        arrivals: queue.Queue[Line | None] = queue.Queue()
        threading.Thread(target=_read, args=(process, arrivals), daemon=True).start()
        try:
            yield process, arrivals, errors
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdin is not None
            process.stdin.close()


def _read(process: subprocess.Popen[str], arrivals: "queue.Queue[Line | None]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.endswith("\n"):  # else it died within the line
            arrivals.put(json.loads(line))
    arrivals.put(None)
