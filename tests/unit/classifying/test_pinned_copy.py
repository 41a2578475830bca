"""Copies to a GPU arrive unharmed, though the GPU may do everything as late as the program allows; a stand-in for it does."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline_ops.classifying.pinned_copy import PinnedCopier


class Stream:
    """Work in order, none of which is done before somebody waits for it; and memory that was freed, for its own later work."""

    def __init__(self, device: Any = None):
        self.work: list[Callable[[], None]] = []
        self.done = 0
        self.free_blocks: list[np.ndarray] = []

    def run(self, stop: int) -> None:
        while self.done < stop:
            self.done += 1
            self.work[self.done - 1]()

    def wait_event(self, event: "Event") -> None:
        stream, stop = event.stream, event.stop
        self.work.append(lambda: stream.run(stop))


class Event:
    def __init__(self) -> None:
        self.stream, self.stop = Stream(), 0  # of one that was never recorded there is nothing to wait for

    def record(self, stream: Stream) -> None:
        self.stream, self.stop = stream, len(stream.work)

    def synchronize(self) -> None:
        self.stream.run(self.stop)


class OnGpu:
    """A tensor on the GPU; when it is freed its memory is used again, once the streams that it was recorded for are so far."""

    def __init__(self, stream: Stream, size: int):
        fitting = [block for block in stream.free_blocks if len(block) >= size]
        self.stream, self.size, self.users = stream, size, list[Stream]()
        self.block = fitting[0] if fitting else np.full(size, -1, np.int32)
        stream.free_blocks = [block for block in stream.free_blocks if block is not self.block]

    def record_stream(self, stream: Stream) -> None:
        self.users.append(stream)

    def __del__(self) -> None:
        stream, block = self.stream, self.block
        if not self.users:
            stream.free_blocks.append(block)
        for user in self.users:
            user.work.append(lambda: stream.free_blocks.append(block))


class Gpu:
    """What PinnedCopier uses of torch."""

    int32 = np.int32

    def __init__(self) -> None:
        self.computing = self.current = Stream()
        self.cuda = SimpleNamespace(
            Stream=Stream, Event=Event, stream=self.as_current, current_stream=lambda device: self.current
        )

    @contextmanager
    def as_current(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    def empty(self, size: int, dtype: Any, pin_memory: bool = False) -> "Pinned":
        return Pinned(self, np.empty(size, dtype))

    def compute(self, tensor: OnGpu) -> np.ndarray:
        """What the model will read of a tensor, once it gets to it."""
        block, size, found = tensor.block, tensor.size, np.empty(tensor.size, np.int32)
        self.computing.work.append(lambda: np.copyto(found, block[:size]))
        return found


class Pinned:
    def __init__(self, gpu: Gpu, array: np.ndarray):
        self.gpu, self.array = gpu, array

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, part: slice) -> "Pinned":
        return Pinned(self.gpu, self.array[part])

    def numpy(self) -> np.ndarray:
        return self.array

    def to(self, device: str, non_blocking: bool) -> OnGpu:
        assert non_blocking
        array, tensor = self.array, OnGpu(self.gpu.current, len(self.array))
        block = tensor.block
        self.gpu.current.work.append(lambda: np.copyto(block[: len(array)], array))
        return tensor


@pytest.mark.parametrize("lag", [1, 2, 3, 30])
def test_copies_arrive_unharmed_however_late_the_gpu_is(monkeypatch: pytest.MonkeyPatch, lag: int) -> None:
    """The host is `lag` batches ahead of the GPU."""
    gpu, rng = Gpu(), np.random.default_rng(0)
    monkeypatch.setitem(sys.modules, "torch", gpu)
    copier = PinnedCopier("cuda")
    sent = [rng.integers(0, 2**31 - 1, int(rng.integers(1, 50))).astype(np.int32) for _ in range(30)]
    arrived, ends = [], []
    for number, array in enumerate(sent):
        arrived.append(gpu.compute(copier([array[:1], array[1:]])))
        ends.append(len(gpu.computing.work))
        if number >= lag:
            gpu.computing.run(ends[number - lag])
    gpu.computing.run(len(gpu.computing.work))
    for array, found in zip(sent, arrived, strict=True):
        np.testing.assert_array_equal(found, array)
