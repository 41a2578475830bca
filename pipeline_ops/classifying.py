"""Padded batches -> logits. The model is passed in; the functions are pure apart from the device.

In: TokenBatches of a unit. Out: float32 logits (documents, labels) in the unit's row order, whatever the batches were.
"""

import inspect
from typing import Any

import numpy as np

from pipeline_ops.tokenizing import TokenBatches, attention_mask


def classify(batches: TokenBatches, model: Any, *, num_labels: int, pad_left: bool) -> np.ndarray:
    """The model's logits.

    Args:
        batches: ids int32 and lengths in batch order; see TokenBatches.
        model: a transformers sequence classification model in eval mode, on its device.

    Returns:
        float32 (documents, labels), in the order of the unit's rows.

    Raises:
        ValueError: the model gives another number of logits than its config says.
    """
    import torch

    parameters = inspect.signature(model.forward).parameters
    takes_types = len(batches.type_ids) > 0 and "token_type_ids" in parameters
    # with padding on the left, learned positions would begin with the padding and results depend on the batch
    takes_positions = pad_left and "position_ids" in parameters
    outputs = []
    with torch.inference_mode():
        position, row = 0, 0
        for count, width in zip(batches.rows.tolist(), batches.widths.tolist(), strict=True):
            block = slice(position, position + count * width)
            # int64 copies: embeddings index with it, and the Arrow buffers are read-only
            arrays = {
                "input_ids": batches.ids[block].reshape(count, width).astype(np.int64),
                "attention_mask": attention_mask(batches.lengths[row : row + count], width, pad_left),
            }
            if takes_types:
                arrays["token_type_ids"] = batches.type_ids[block].reshape(count, width).astype(np.int64)
            if takes_positions:
                arrays["position_ids"] = np.maximum(arrays["attention_mask"].cumsum(axis=1) - 1, 0)
            inputs = {name: torch.from_numpy(array).to(model.device) for name, array in arrays.items()}
            outputs.append(model(**inputs).logits.float())
            position, row = block.stop, row + count
        if not outputs:
            return np.empty((0, num_labels), np.float32)
        in_batch_order = torch.cat(outputs).cpu().numpy()  # one copy back per unit
    if in_batch_order.shape[1:] != (num_labels,):
        raise ValueError(f"the model gives logits of shape {in_batch_order.shape[1:]}, its config says {num_labels} labels")
    logits = np.empty_like(in_batch_order)
    logits[batches.order] = in_batch_order
    return logits
