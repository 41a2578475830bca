"""Rows of random token ids for classifiers of tests.models.architectures, padded or not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

LENGTHS = (5, 23, 11, 40)


@dataclass(frozen=True)
class RandomRows:
    """What a ForwardPasses takes: ids, int32 (rows * width,), type ids, lengths, int32 (rows,), and the width."""

    ids: np.ndarray
    type_ids: np.ndarray | None
    lengths: np.ndarray
    width: int

    @classmethod
    def for_model(cls, model: Any, *, padded: bool, pad_left: bool, lengths_padded: Sequence[int] = LENGTHS) -> "RandomRows":
        """Rows of these lengths; without padding as many of the longest."""
        width = max(lengths_padded)
        lengths = np.array(lengths_padded if padded else [width] * len(lengths_padded), np.int32)
        config, random = model.config.get_text_config(), np.random.default_rng(0)
        pad_id = max(config.pad_token_id or 0, 0)
        rows = np.full((len(lengths), width), pad_id, np.int32)
        for row, length in zip(rows, lengths, strict=True):
            ids = random.integers(10, 700, length)
            if model.config.is_encoder_decoder:
                ids[-1] = config.eos_token_id
            row[slice(width - length, width) if pad_left else slice(length)] = ids
        return cls(rows.ravel(), None, lengths, width)

    def through(self, passes: Any) -> torch.Tensor:
        """Logits of a ForwardPasses, float32 (rows, labels), on its device."""
        with torch.inference_mode():
            return passes(self.ids, self.type_ids, self.lengths, self.width)
