"""Arrays on the host -> one tensor on a GPU, while the GPU computes."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class PinnedCopier:
    """Copies to a GPU on a stream of its own, through two pinned buffers that take turns.

    The host waits for no copy but the one before the last, which is the one that used the same buffer, and never for the model:
    the copy for the next batch runs while the last one computes.
    """

    def __init__(self, device: Any):
        import torch

        self.device, self.stream = device, torch.cuda.Stream(device)
        self.buffers = [torch.empty(0, dtype=torch.int32)] * 2
        self.copied = [torch.cuda.Event(), torch.cuda.Event()]  # by buffer: its last copy
        self.turn = 0

    def __call__(self, arrays: Sequence[np.ndarray]) -> Any:
        """The arrays behind each other, int32 (their elements,), for work that the current stream is given after this."""
        import torch

        self.turn = 1 - self.turn
        size = sum(len(array) for array in arrays)
        copied = self.copied[self.turn]
        copied.synchronize()  # until then the buffer is being read
        if len(self.buffers[self.turn]) < size:
            self.buffers[self.turn] = torch.empty(size, dtype=torch.int32, pin_memory=True)
        buffer = self.buffers[self.turn][:size]
        np.concatenate(arrays, out=buffer.numpy())
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self.stream):
            there = buffer.to(self.device, non_blocking=True)
            copied.record(self.stream)
        computing.wait_event(copied)
        there.record_stream(computing)  # its memory is the copying stream's, which must not reuse it while this one reads it
        return there
