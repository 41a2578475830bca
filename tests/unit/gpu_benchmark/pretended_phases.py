"""Phases that end in each way in which one can."""

import os
import subprocess
import sys
import time

from jobs.gpu_benchmark.phases import Bench


def finds(bench: Bench) -> None:
    print("noise of this process")
    subprocess.run([sys.executable, "-c", "print('noise of another')"], check=True)
    bench.row({"value": 1 / 3})


def raises(bench: Bench) -> None:
    bench.row({"value": 1})
    raise ValueError("a word\nof why")


def dies(bench: Bench) -> None:
    bench.row({"value": 2})
    print("Assertion `index < size` failed.", file=sys.stderr, flush=True)
    os.abort()


def never_ends(bench: Bench) -> None:
    bench.row({"value": 3})
    while True:
        time.sleep(1)
