"""The process in which the phases of `benchmark --gpu` run, one after the other: a JSON line for each of their findings.

    python -m jobs.gpu_benchmark.child TASK

TASK is the JSON that runner.py makes. Lines go to the stdout that the process was started with; whatever else is printed, in
this process or in one that a phase starts, goes to stderr. The process ends when its stdin does: with its parent.
"""

import gc
import json
import os
import sys
import threading
import time
import traceback
from typing import Any

from jobs.gpu_benchmark.phases import Bench, Phase
from pipeline_ops.schema.errors import one_line

NO_GPU = 3  # exit code
TRACEBACK_LINES = 6


def main() -> None:
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
    task = json.loads(sys.argv[1])
    import torch

    on_gpu = torch.cuda.is_available()
    if not on_gpu and not task["tiny"]:
        os._exit(NO_GPU)
    for phase in (Phase(**fields) for fields in task["phases"]):
        begun = time.monotonic()
        device, gpu = ("cuda", torch.cuda.get_device_name()) if on_gpu else ("cpu", None)
        deadline = min(begun + phase.seconds, task["deadline"])
        bench = Bench(phase.name, device, task["tiny"], deadline, gpu, lines)
        bench.row({"status": "begun"})
        end: dict[str, Any] = {"status": "done"}
        try:
            phase.load()(bench)
            bench.synchronize()
        except Exception as error:
            place = traceback.format_exc().strip().splitlines()[-TRACEBACK_LINES:]
            end = {"status": "failed", "error": f"{type(error).__name__}: {one_line(error)}", "traceback": place}
        bench.row({**end, "seconds": round(time.monotonic() - begun, 1)})
        if end["status"] == "failed" and not _is_usable(bench):
            os._exit(1)  # the parent starts another process for the phases behind this one
        gc.collect()
        if on_gpu:
            torch.cuda.empty_cache()
    os._exit(0)


def _is_usable(bench: Bench) -> bool:
    """Whether the device still computes: after an assertion or a fault on it, it never does again in this process."""
    try:
        bench.synchronize()
    except Exception:
        return False
    return True


if __name__ == "__main__":
    main()
