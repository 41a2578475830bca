"""The child processes of a benchmark: each contender is one, so that memory, threads and imports do not mix.

Whatever ends the command ends them: each leads a process group, which is ended when the block around it is left.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cluster.session import child_environment
from pipeline_ops.schema.errors import UserError

GRACE_S = 20  # a job that gets SIGTERM stops its Ray first
POLL_S = 0.01


def thread_settings(threads: int | None) -> dict[str, str | None]:
    """Environment of a child that computes with so many threads; None: the child's own choice, the tokenizers' too."""
    count = None if threads is None else str(threads)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
    return {**dict.fromkeys(names, count), "TOKENIZERS_PARALLELISM": "false" if threads == 1 else None, "RAY_ADDRESS": None}


@contextmanager
def started(command: list[str], log: str, environment: dict[str, str | None]) -> Iterator[subprocess.Popen[bytes]]:
    """A process, its stdout in `log` and its stderr in `log`.err; its group is ended with the block."""
    with open(log, "wb") as output, open(f"{log}.err", "wb") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=errors,
            env=child_environment(environment),
            start_new_session=True,  # Ctrl-C in the terminal comes here first
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def run_child(command: list[str], log: str, environment: dict[str, str | None]) -> tuple[dict[str, Any], float]:
    """Runs a command to its end: the JSON object on its last line, and the seconds from its start to its exit.

    Raises:
        UserError: it refused what it was given (exit 2).
        RuntimeError: it failed; the end of its stderr.
    """
    begun = time.monotonic()
    with started(command, log, environment) as process:
        while process.poll() is None:  # not wait(): a signal's exception is raised between two looks
            time.sleep(POLL_S)
        seconds = time.monotonic() - begun
    lines = Path(log).read_text(encoding="utf-8").splitlines()
    messages = Path(f"{log}.err").read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing on stderr"]
    if process.returncode == 2:
        raise UserError(messages[-1].removeprefix("label-corpus: "))
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[2:4])} ended with {process.returncode}: {' | '.join(messages[-12:])}")
    return json.loads(lines[-1]), seconds


def run_contender(
    name: str, task: dict[str, Any], folder: str, threads: int | None, module: str = "jobs.benchmark.contenders"
) -> tuple[dict[str, Any], float]:
    """Runs a function of `module`, whose main is contenders.run_process; returns and raises as run_child."""
    path = Path(folder, f"{name}.json")
    path.write_text(json.dumps(task), encoding="utf-8")
    command = [sys.executable, "-m", module, name, str(path)]
    return run_child(command, os.path.join(folder, f"{name}.log"), thread_settings(threads))
