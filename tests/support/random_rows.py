"""Rows of random token ids for classifiers of tests.models.architectures, padded or not, and attention to compare with."""

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


def segmented_attention_by_mask(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    window: tuple[int, int],
    scaling: float | None,
) -> torch.Tensor:
    """What padded_attention.segmented_attention computes, on any device, by SDPA with a mask of all pairs of tokens."""
    rows, heads, width, _ = query.shape
    cells = torch.arange(rows * width, device=query.device)
    segments = torch.searchsorted(bounds.long(), cells, right=True).view(rows, width)
    distance = cells[None, :width] - cells[:width, None]
    seen = segments[:, :, None] == segments[:, None, :]
    for limit, beyond in zip(window, (-distance, distance), strict=True):
        seen = seen & ((limit < 0) | (beyond <= limit))
    key, value = (one.repeat_interleave(heads // one.shape[1], dim=1, output_size=heads) for one in (key, value))
    attended = torch.nn.functional.scaled_dot_product_attention(query, key, value, seen[:, None], scale=scaling)
    return attended.transpose(1, 2)
