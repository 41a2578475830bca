"""What this machine has: counted as Ray and the models will find it."""

import ctypes
import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster import session
from cluster.session import gpus_of_driver, this_machine

NVML, CUDA = "libnvidia-ml.so.1", "libcuda.so.1"


class Driver:
    """A library of NVIDIA's driver that finds `gpus`, or fails."""

    def __init__(self, gpus: int, failed: int = 0):
        self.gpus, self.failed = gpus, failed

    def nvmlInit_v2(self) -> int:
        return self.failed

    def cuInit(self, flags: int) -> int:
        return self.failed

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = self.gpus
        return 0

    cuDeviceGetCount = nvmlDeviceGetCount_v2


@pytest.fixture
def machine_with(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes this a machine with these libraries and device files."""

    def arrange(libraries: dict[str, Driver], devices: Sequence[str] = ()) -> None:
        def load(name: str) -> Driver:
            if name not in libraries:
                raise OSError(f"{name}: cannot open shared object file")
            return libraries[name]

        monkeypatch.setattr(ctypes, "CDLL", load)
        monkeypatch.setattr(glob, "glob", lambda pattern: [*devices] if pattern == "/dev/nvidia[0-9]*" else [])

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpus_of_driver.cache_clear()
    yield arrange
    gpus_of_driver.cache_clear()


@pytest.mark.parametrize(
    ("libraries", "devices", "gpus"),
    [
        ({}, [], 0),
        ({NVML: Driver(8), CUDA: Driver(8)}, ["/dev/nvidia0"], 8),
        ({CUDA: Driver(2)}, ["/dev/nvidia0", "/dev/nvidia1"], 2),  # a container without NVML
        ({NVML: Driver(0, failed=9), CUDA: Driver(1)}, [], 1),  # WSL2 has no such device
        ({NVML: Driver(3, failed=9), CUDA: Driver(3, failed=100)}, [], 0),  # the libraries alone
    ],
)
def test_gpus_are_counted_by_what_there_is_of_the_driver(
    libraries: dict[str, Driver], devices: list[str], gpus: int, machine_with: Any
) -> None:
    machine_with(libraries, devices)
    assert this_machine().gpus == gpus


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [("0,3", 2), ("", 0), ("-1", 0), ("NoDevFiles", 0), ("0,1,2,3,4,5", 4), ("MIG-1c2e,MIG-5b7f", 2), ("GPU-8932f937", 1)],
)
def test_gpus_that_are_hidden_do_not_count(visible: str, gpus: int, machine_with: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine_with({NVML: Driver(4)})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert this_machine().gpus == gpus


def test_memory_of_a_container_is_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(session, "MEMORY_LIMIT", str(limit))
    machine = session.usable_memory()
    for text, expected in (("max\n", machine), ("268435456\n", 2**28)):
        limit.write_text(text)
        assert session.usable_memory() == expected
