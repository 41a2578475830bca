"""numpy arrays -> one int32 tensor on a GPU, copied while the GPU computes."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class PinnedCopier:
    """Copies arrays to a GPU on a separate stream, through two pinned buffers in turn.

    The copy for the next batch runs while the last batch computes. The host waits only for the copy before the last one, which
    used the same buffer, never for the model.
    """

    def __init__(self, device: Any):
        import torch

        self.device, self.stream = device, torch.cuda.Stream(device)
        self.buffers = [torch.empty(0, dtype=torch.int32)] * 2
        self.copied = [torch.cuda.Event(), torch.cuda.Event()]  # by buffer: its last copy
        self.turn = 0

    def __call__(self, arrays: Sequence[np.ndarray]) -> Any:
        """The concatenated arrays, int32 (elements,), on the GPU, for work that the current stream gets after this call."""
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
            on_gpu = buffer.to(self.device, non_blocking=True)
            copied.record(self.stream)
        computing.wait_event(copied)
        on_gpu.record_stream(computing)  # its memory is the copying stream's, which must not reuse it while this one reads it
        return on_gpu
