"""Rows of a batch -> logits on the model's device. Holds what lasts from one batch, or one unit, to the next."""

import inspect
import time
from typing import Any

import numpy as np


class ForwardPasses:
    """A model in eval mode on its device, called with flat rows; measures the seconds that it computes."""

    def __init__(self, model: Any, *, pad_left: bool):
        self.model, self.pad_left = model, pad_left
        parameters = inspect.signature(model.forward).parameters
        self.takes_types = "token_type_ids" in parameters
        # with padding on the left, learned positions would begin with the padding and results depend on the batch
        self.takes_positions = pad_left and "position_ids" in parameters
        self._seconds = 0.0
        self._events: list[tuple[Any, Any]] = []

    def __call__(self, ids: np.ndarray, type_ids: np.ndarray | None, lengths: np.ndarray, width: int) -> Any:
        """float32 logits (rows, labels) on the model's device; on a GPU they may not be computed yet.

        Args:
            ids: int32 (rows * width,), padded.
            type_ids: int8 (rows * width,), or None where the model takes none.
            lengths: int32 (rows,), without padding.

        Raises:
            IndexError: a token id that the model has no embedding for.
            Exception: what the model raises.
        """
        import torch

        self._check_ids(ids)
        arrays = [lengths, ids] if type_ids is None or not self.takes_types else [lengths, ids, type_ids]
        flat = torch.from_numpy(np.concatenate(arrays, dtype=np.int32)).to(self.model.device)
        lengths_there, *padded = flat.split([len(array) for array in arrays])
        columns = torch.arange(width, device=flat.device)
        used = lengths_there[:, None]
        mask = (columns >= width - used if self.pad_left else columns < used).long()  # 0 on padding, whatever the pad id is
        inputs = {"input_ids": padded[0].view(-1, width).long(), "attention_mask": mask}
        if len(padded) > 1:
            inputs["token_type_ids"] = padded[1].view(-1, width).long()
        if self.takes_positions:
            inputs["position_ids"] = (mask.cumsum(dim=1) - 1).clamp_(min=0)
        return self._timed(inputs)

    def _timed(self, inputs: dict[str, Any]) -> Any:
        import torch

        if self.model.device.type == "cuda":
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            logits = self.model(**inputs).logits.float()
            end.record()
            self._events.append((begin, end))
            return logits
        begin = time.monotonic()
        logits = self.model(**inputs).logits.float()
        self._seconds += time.monotonic() - begin
        return logits

    def take_seconds(self) -> float:
        """Seconds that the device was at work on passes that ended since the last call; waits for it."""
        seconds, events = self._seconds, self._events
        self._seconds, self._events = 0.0, []
        if events:
            events[-1][1].synchronize()
        return seconds + sum(begin.elapsed_time(end) for begin, end in events) / 1000

    def _check_ids(self, ids: np.ndarray) -> None:
        """Raises IndexError for an id that has no embedding: a GPU would not only fail but be lost to the process."""
        known = getattr(self.model.get_input_embeddings(), "num_embeddings", None)
        if known is not None and ids.size and ids.max() >= known:
            raise IndexError(
                f"token id {ids.max()}, the model has embeddings for {known}; its tokenizer belongs to another model"
            )
