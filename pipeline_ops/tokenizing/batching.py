"""Encodings -> length-sorted, padded batches under a token budget (TokenBatches), and these as columns of a unit's row.

After sorting, padding is 2-3 % of a batch's tokens (24 % unsorted), so batches travel padded and the classifier only reshapes
them. The order is kept, so that results return to the documents' rows.
"""

import heapq
from bisect import bisect_right
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa

from pipeline_ops.schema.arrow_cells import flat_values, list_cell
from pipeline_ops.tokenizing.encoding import Encodings

PAD_MULTIPLE = 8  # tensor cores and AMX tiles want lengths that are multiples of 8
PASS_COST = 1 / 40  # of the token budget: a pass on a core, with a budget of 2048, costs as much as 50 tokens


@dataclass(frozen=True)
class TokenBatches:
    """Padded batches, one behind the other in flat arrays; batch b has `rows[b] * widths[b]` ids.

    If documents are read in windows, each window is a document here; windows of one document may be in different batches.

    ids: int32; type_ids: int8, empty where the model takes none; lengths: int32 (documents,), in batch order, without padding;
    order: int32 (documents,), the document's row in the unit; rows, widths: int32 (batches,).
    """

    ids: np.ndarray
    type_ids: np.ndarray
    lengths: np.ndarray
    order: np.ndarray
    rows: np.ndarray
    widths: np.ndarray


def make_batches(
    encodings: Encodings,
    *,
    batch_tokens: int,
    pad_id: int,
    pad_type_id: int = 0,
    pad_left: bool = False,
    pad_multiple: int = PAD_MULTIPLE,
    max_width: int | None = None,
) -> TokenBatches:
    """Sort by length (ties by row), divide into batches, pad each to its longest document.

    The division is the one of least cost: padded tokens, and for each pass PASS_COST of `batch_tokens`, as many as they may be
    per batch.

    Args:
        batch_tokens: the most padded tokens per batch; a single document may exceed it.
        pad_left: padding in front of the tokens, not behind them.
        pad_multiple: widths are rounded up to a multiple of it; 1: not rounded.
        max_width: the model's limit, which rounding up does not exceed.
    """
    lengths = encodings.lengths
    order = np.argsort(lengths, kind="stable").astype(np.int32)
    sorted_lengths = lengths[order].astype(np.int64)
    widths = -(-np.maximum(sorted_lengths, 1) // pad_multiple) * pad_multiple
    if max_width is not None:
        widths = np.maximum(np.minimum(widths, max_width), sorted_lengths)
    rows = _batch_rows(widths, batch_tokens)
    batch_widths = widths[np.cumsum(rows) - 1] if len(rows) else np.empty(0, np.int64)

    # where each document's tokens begin: among the encodings, among the sorted ones, and in the padded batches
    starts = (np.cumsum(lengths, dtype=np.int64) - lengths)[order]
    sorted_starts = np.cumsum(sorted_lengths) - sorted_lengths
    row_widths = np.repeat(batch_widths, rows)
    padded_starts = np.cumsum(row_widths) - row_widths + (row_widths - sorted_lengths if pad_left else 0)
    positions = np.arange(len(encodings.ids))
    source = positions + np.repeat(starts - sorted_starts, sorted_lengths)
    target = positions + np.repeat(padded_starts - sorted_starts, sorted_lengths)

    ids = np.full(int(row_widths.sum()), pad_id, np.int32)
    ids[target] = encodings.ids[source]
    type_ids = np.full(0 if encodings.type_ids is None else len(ids), pad_type_id, np.int8)
    if encodings.type_ids is not None:
        type_ids[target] = encodings.type_ids[source]
    return TokenBatches(ids, type_ids, lengths[order], order, rows, batch_widths.astype(np.int32))


def without_padding(batches: TokenBatches, pad_left: bool) -> TokenBatches:
    """The same documents in batches of one length each, without padding, for models whose answers depend on it.

    As documents are sorted by length, each batch becomes one of every length in it.
    """
    widths = np.repeat(batches.widths, batches.rows)
    of_batch = np.repeat(np.arange(len(batches.rows)), batches.rows)
    columns = np.arange(len(batches.ids)) - np.repeat(np.cumsum(widths) - widths, widths)
    begins = np.repeat(widths - batches.lengths if pad_left else np.zeros_like(widths), widths)
    kept = (columns >= begins) & (columns < begins + np.repeat(batches.lengths, widths))
    starts = np.flatnonzero(np.diff(of_batch, prepend=-1) | np.diff(batches.lengths, prepend=-1))
    return TokenBatches(
        batches.ids[kept],
        batches.type_ids[kept] if len(batches.type_ids) else batches.type_ids,
        batches.lengths,
        batches.order,
        np.diff(starts, append=len(widths)).astype(np.int32),
        batches.lengths[starts],
    )


def _batch_rows(widths: np.ndarray, batch_tokens: int) -> np.ndarray:
    """Documents per batch, int32, for ascending `widths`: those of least cost, padded tokens and PASS_COST per batch.

    A shortest path (dynamic programming) over the documents at which a batch may end. In batches of least cost these are few:
    one that ends between two documents of the same width is full, since else the next document could as well be in it. So from
    each document on, a batch ends with one of the widths that fit, or it is full.
    """
    values, counts = np.unique(widths, return_counts=True)
    wide, ends = values.tolist(), np.cumsum(counts).tolist()
    batch_cost = batch_tokens * PASS_COST
    best = {0: (0.0, 0)}  # by the end of a batch: the least cost of all batches up to it, and where the last one begins
    unseen = [0]

    def reach(start: int, end: int, cost: float) -> None:
        if end not in best:
            heapq.heappush(unseen, end)
        if end not in best or cost < best[end][0]:
            best[end] = cost, start

    while (start := heapq.heappop(unseen)) < len(widths):
        cost = best[start][0] + batch_cost
        first = group = bisect_right(ends, start)
        while group < len(ends) and (ends[group] - start) * wide[group] <= batch_tokens:
            reach(start, ends[group], cost + (ends[group] - start) * wide[group])
            group += 1
        if group < len(ends):
            rows = max(batch_tokens // wide[group], 1)
            if group == first or start + rows > ends[group - 1]:
                reach(start, start + rows, cost + rows * wide[group])
    rows, end = [], len(widths)
    while end:
        rows.append(end - best[end][1])
        end = best[end][1]
    return np.array(rows[::-1], np.int32)


def attention_mask(lengths: np.ndarray, width: int, pad_left: bool) -> np.ndarray:
    """int64 (documents, width): 0 on padding, 1 elsewhere; derived from lengths, as the pad id may be a token's id as well."""
    columns = np.arange(width)[None, :]
    mask = columns >= (width - lengths[:, None]) if pad_left else columns < lengths[:, None]
    return mask.astype(np.int64)


def batches_to_columns(batches: TokenBatches, tokenization: int = 0) -> dict[str, pa.Array]:
    """The batches as large_list columns of one row, sharing the arrays' memory.

    Args:
        tokenization: index of the tokenization that they belong to, the suffix of the columns' names; see
            models.config.tokenization_ids.
    """
    return {f"batch_{field.name}_{tokenization}": list_cell(getattr(batches, field.name)) for field in fields(TokenBatches)}


def batch_types(tokenization: int = 0) -> dict[str, pa.DataType]:
    """The types of the columns that batches_to_columns returns."""
    of_field = {"type_ids": pa.int8()}
    return {
        f"batch_{field.name}_{tokenization}": pa.large_list(of_field.get(field.name, pa.int32()))
        for field in fields(TokenBatches)
    }


def batches_from_columns(row: pa.Table, tokenization: int = 0) -> TokenBatches:
    """The batches in the columns of batches_to_columns; read-only, sharing their memory."""
    return TokenBatches(*(flat_values(row, f"batch_{field.name}_{tokenization}") for field in fields(TokenBatches)))
