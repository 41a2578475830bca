"""TokenBatches of a unit and a model -> float32 logits (documents, labels) in the order of the unit's rows.

The result does not depend on how documents were batched. A document that makes the model raise is isolated.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from pipeline_ops.classifying.compiled import is_compilers
from pipeline_ops.classifying.forward_pass import ForwardPasses
from pipeline_ops.loading.device_errors import fault_of
from pipeline_ops.schema.bisection import ALL_FAILED_MIN, MAX_CONSECUTIVE_FAILURES, bisect_failures
from pipeline_ops.schema.output_columns import Embedding
from pipeline_ops.tokenizing.batching import TokenBatches

UnitLogits = tuple[np.ndarray, dict[int, BaseException]]  # float32 (documents, values); {row: what the model raised}


def classify(
    batches: TokenBatches, model: Any, *, num_labels: int, pad_left: bool, embedding: Embedding | None = None
) -> np.ndarray:
    """Logits and embeddings as of classify_isolating_failures, float32 (documents, values); no document may fail.

    Raises:
        Exception: what the model raises.
    """
    values, failed = classify_isolating_failures(
        batches, ForwardPasses(model, pad_left=pad_left, embedding=embedding), num_labels=num_labels
    )
    for error in failed.values():
        raise error
    return values


def classify_isolating_failures(
    batches: TokenBatches, passes: ForwardPasses, *, num_labels: int, on_batch: Callable[[int], None] | None = None
) -> UnitLogits:
    """Logits, and embeddings behind them, of a unit's documents; documents that make the model raise are isolated.

    Args:
        passes: of a transformers sequence classification model; with its followers, if it has any.
        num_labels: by the model's configuration; with followers, of all of them together.

    Returns:
        (float32 (documents, num_labels + embedding size), in the order of the unit's rows, NaN where the model raised, with
        followers of all models side by side; {row: exception} of these).

    Raises:
        ValueError: the model returns another number of logits than num_labels.
        Exception: documents are not at fault: all fail (see bisect_failures), a single one is too much for the memory, or the
            device is lost or cannot be used.
    """
    import torch

    embedding_size = sum(one.embedding_size for one in (passes, *passes.followers))
    num_values = num_labels + embedding_size
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
        return passes(batches.ids[block], type_ids, batches.lengths[rows], width)

    with torch.inference_mode():
        for batch, count in enumerate(batches.rows.tolist()):
            # a whole batch may fail: whether the model is at fault shows only over all batches
            parts, bad = bisect_failures(partial(classify_rows, batch), count, _is_documents_fault, may_all_fail=True)
            for start, stop, logits in parts:
                outputs.append(logits)
                places.append(batches.order[starts[batch] + start : starts[batch] + stop])
            failed |= {int(batches.order[starts[batch] + row]): error for row, error in bad.items()}
            if on_batch is not None:
                on_batch(count * int(batches.widths[batch]))
            if not outputs and len(failed) >= MAX_CONSECUTIVE_FAILURES:
                raise next(iter(failed.values()))
        if not outputs and len(failed) >= ALL_FAILED_MIN:
            raise failed[min(failed)]
        if not outputs:
            return np.full((len(batches.order), num_values), np.nan, np.float32), failed
        in_batch_order = torch.cat(outputs).cpu().numpy()  # one copy back per unit
    if in_batch_order.shape[1:] != (num_values,):
        found = in_batch_order.shape[-1] - embedding_size
        raise ValueError(f"the model gives {found} logits per document, its config says {num_labels} labels")
    values = np.full((len(batches.order), num_values), np.nan, np.float32)
    values[np.concatenate(places)] = in_batch_order
    return values, failed


def _is_documents_fault(error: BaseException) -> bool:
    return isinstance(error, Exception) and fault_of(error) is None and not is_compilers(error)
