"""The end of a connection to Ray, at the worst moment for Python's garbage collector."""

import os
import subprocess
import sys

import pytest

# while the core worker ends, another thread collects the reference cycle of an ObjectRef
PROGRAM = """
import gc
import threading

import ray

from cluster.session import connected


class CoreWorker:
    def __init__(self, real):
        self._real = real

    def __getattr__(self, name):
        return getattr(self._real, name)

    def shutdown_driver(self):
        self._real.shutdown_driver()
        collector = threading.Thread(target=gc.collect)
        collector.start()
        collector.join()


class Cycle:
    def __init__(self):
        self.itself, self.ref = self, ray.put(1)


with connected():
    worker = ray._private.worker.global_worker
    worker.core_worker = CoreWorker(worker.core_worker)
    Cycle()
print("ended")
"""


@pytest.mark.slow
def test_objects_that_are_collected_while_ray_ends_do_not_end_the_process(ray_address: str):
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"RAY_ADDRESS": ray_address},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (finished.returncode, finished.stdout) == (0, "ended\n"), finished.stderr
