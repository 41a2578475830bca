"""Padded batches -> logits. The model is passed in; the functions are pure apart from the device.

In: TokenBatches of a unit. Out: float32 logits (documents, labels) in the unit's row order, whatever the batches were.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from pipeline_ops.poison import HOPELESS, SUSPICIOUS, halve
from pipeline_ops.tokenizing import TokenBatches, attention_mask


def classify(batches: TokenBatches, model: Any, *, num_labels: int, pad_left: bool) -> np.ndarray:
    """The model's logits, float32 (documents, labels), in the order of the unit's rows; see classify_good.

    Raises:
        Exception: what the model raises.
    """
    logits, failed = classify_good(batches, model, num_labels=num_labels, pad_left=pad_left)
    for error in failed.values():
        raise error
    return logits


def classify_good(
    batches: TokenBatches, model: Any, *, num_labels: int, pad_left: bool
) -> tuple[np.ndarray, dict[int, BaseException]]:
    """The model's logits for documents of which some may make the model raise.

    Args:
        batches: ids int32 and lengths in batch order; see TokenBatches.
        model: a transformers sequence classification model in eval mode, on its device.

    Returns:
        float32 (documents, labels), in the order of the unit's rows, NaN for those that made the model raise; the exception of
        each of these, by row.

    Raises:
        ValueError: the model gives another number of logits than its config says.
        Exception: nothing but exceptions came (poison.halve), the memory does not do, or the device is lost: then the
            documents are not at fault.
    """
    import torch

    forward = _forward_of(model, len(batches.type_ids) > 0, pad_left)
    starts = np.concatenate([[0], np.cumsum(batches.rows)])
    offsets = np.concatenate([[0], np.cumsum(batches.rows.astype(np.int64) * batches.widths)])
    outputs: list[Any] = []
    places: list[np.ndarray] = []
    failed: dict[int, BaseException] = {}

    def classify_rows(batch: int, start: int, stop: int) -> Any:
        width = int(batches.widths[batch])
        block = slice(offsets[batch] + start * width, offsets[batch] + stop * width)
        rows = slice(starts[batch] + start, starts[batch] + stop)
        type_ids = batches.type_ids[block] if len(batches.type_ids) else None
        return forward(batches.ids[block], type_ids, batches.lengths[rows], width)

    with torch.inference_mode():
        for batch, count in enumerate(batches.rows.tolist()):
            # other batches may still show that it is the documents
            parts, bad = halve(partial(classify_rows, batch), count, _is_documents_fault, may_all_fail=True)
            for start, stop, logits in parts:
                outputs.append(logits)
                places.append(batches.order[starts[batch] + start : starts[batch] + stop])
            failed |= {int(batches.order[starts[batch] + row]): error for row, error in bad.items()}
            if not outputs and len(failed) >= HOPELESS:
                raise next(iter(failed.values()))
        if not outputs and len(failed) >= SUSPICIOUS:
            raise failed[min(failed)]
        if not outputs:
            return np.full((len(batches.order), num_labels), np.nan, np.float32), failed
        in_batch_order = torch.cat(outputs).cpu().numpy()  # one copy back per unit
    if in_batch_order.shape[1:] != (num_labels,):
        raise ValueError(f"the model gives logits of shape {in_batch_order.shape[1:]}, its config says {num_labels} labels")
    logits = np.full((len(batches.order), num_labels), np.nan, np.float32)
    logits[np.concatenate(places)] = in_batch_order
    return logits, failed


def _forward_of(model: Any, has_types: bool, pad_left: bool) -> Callable[..., Any]:
    """(flat ids, flat type ids or None, lengths, width) -> float32 logits on the model's device."""
    import torch

    parameters = inspect.signature(model.forward).parameters
    takes_types = has_types and "token_type_ids" in parameters
    # with padding on the left, learned positions would begin with the padding and results depend on the batch
    takes_positions = pad_left and "position_ids" in parameters

    def forward(ids: np.ndarray, type_ids: np.ndarray | None, lengths: np.ndarray, width: int) -> Any:
        # int64 copies: embeddings index with it, and the Arrow buffers are read-only
        arrays = {
            "input_ids": ids.reshape(-1, width).astype(np.int64),
            "attention_mask": attention_mask(lengths, width, pad_left),
        }
        if takes_types and type_ids is not None:
            arrays["token_type_ids"] = type_ids.reshape(-1, width).astype(np.int64)
        if takes_positions:
            arrays["position_ids"] = np.maximum(arrays["attention_mask"].cumsum(axis=1) - 1, 0)
        _check_ids(arrays["input_ids"], model)
        inputs = {name: torch.from_numpy(array).to(model.device) for name, array in arrays.items()}
        return model(**inputs).logits.float()

    return forward


def _check_ids(ids: np.ndarray, model: Any) -> None:
    """Raises IndexError for an id that the model has no embedding for: a GPU would not only fail but be lost to the process."""
    known = getattr(model.get_input_embeddings(), "num_embeddings", None)
    if known is not None and ids.size and ids.max() >= known:
        raise IndexError(f"token id {ids.max()}, the model has embeddings for {known}; its tokenizer belongs to another model")


def is_device_lost(error: BaseException) -> bool:
    """Whether the GPU can do nothing more for this process, which then has to end: an assertion or a fault on the device."""
    return "CUDA error" in str(error) and not _is_out_of_memory(error)


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError)


def _is_documents_fault(error: BaseException) -> bool:
    return isinstance(error, Exception) and not _is_out_of_memory(error) and not is_device_lost(error)
