"""Texts -> token ids -> length-sorted, padded batches under a token budget. Pure; no model, no torch.

Columns in: documents with a text column. Out: TokenBatches, flat integer arrays that travel as Arrow buffers. After sorting,
the padding in a batch is 2-3 % of its tokens (24 % unsorted), so batches travel padded and the classifier only reshapes them.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline_ops.tokenizing.early_truncation import Cuts
from pipeline_ops.schema.bisection import halve
from pipeline_ops.schema.units import flat_values, list_cell

# Encodings hold about 100 bytes per token: a unit's at once would be gigabytes, and a mebibyte's took a fifth more CPU time
# than what fits into a core's cache.
CHUNK_CHARACTERS = 2**17
PAD_MULTIPLE = 8  # tensor cores and AMX tiles want lengths that are multiples of 8
PADDING_PER_BATCH = 1 / 32  # of the token budget: with less, small units would take more passes than that saves


@dataclass(frozen=True)
class Encodings:
    """The token ids of documents, one behind the other; of a document in windows, these one behind the other.

    ids: int32 (tokens,); type_ids: int8 (tokens,) or None where the model takes none; lengths: int32 (windows,), special
    tokens included; truncated: bool (documents,); windows: int32 (documents,), how many each has, or None: one.
    """

    ids: np.ndarray
    type_ids: np.ndarray | None
    lengths: np.ndarray
    truncated: np.ndarray
    windows: np.ndarray | None = None

    @property
    def num_tokens(self) -> np.ndarray:
        """int32 (documents,): what the model reads of each, in all of its windows."""
        if self.windows is None or not len(self.windows):
            return self.lengths
        return np.add.reduceat(self.lengths, np.cumsum(self.windows) - self.windows, dtype=np.int32)


@dataclass(frozen=True)
class TokenBatches:
    """Padded batches, flat. `rows` documents of batch b fill `rows[b] * widths[b]` ids.

    Where documents are in windows, a document here is a window, and windows of one document may be in different batches.

    ids: int32; type_ids: int8, empty where the model takes none; lengths: int32 (documents,), in batch order, without padding;
    order: int32 (documents,), the document's row in the unit; rows, widths: int32 (batches,).
    """

    ids: np.ndarray
    type_ids: np.ndarray
    lengths: np.ndarray
    order: np.ndarray
    rows: np.ndarray
    widths: np.ndarray


def truncating_backend(tokenizer: Any, max_length: int) -> Any:
    """The `tokenizers.Tokenizer` inside a fast tokenizer of transformers, set to cut on the tokenizer's side and not to pad.

    As JSON (`to_str`) it is all that tokenizing needs: importing transformers costs a process seconds, and 300 MB with torch.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
    return backend


def encode(texts: list[str], backend: Any, *, with_type_ids: bool, cuts: Cuts | None = None) -> Encodings:
    """Tokenizes as `tokenizer(texts, truncation=True, max_length=max_length)` does, special tokens included.

    Args:
        backend: as truncating_backend gives it.
        cuts: where its long texts may be cut, as cuts_of gives it; the result is the same.
    """
    ids, lengths, truncated = array("i"), array("i"), array("b")  # the fastest way from lists to flat memory
    type_ids: list[bytes] = []
    types_of: dict[int, bytes] = {}  # those of one text follow from its number of tokens
    max_length = backend.truncation["max_length"]
    for chunk in chunks([len(text) for text in texts]):
        for encoding in encode_texts(texts[chunk], backend, cuts):
            length = len(encoding)
            ids.fromlist(encoding.ids)
            lengths.append(length)
            truncated.append(is_truncated(encoding, max_length))
            if with_type_ids:
                if length not in types_of:
                    types_of[length] = bytes(encoding.type_ids)
                type_ids.append(types_of[length])
    return Encodings(
        np.frombuffer(ids, np.int32),
        np.frombuffer(b"".join(type_ids), np.int8) if with_type_ids else None,
        np.frombuffer(lengths, np.int32),
        np.frombuffer(truncated, bool),
    )


def encode_texts(texts: list[str], backend: Any, cuts: Cuts | None, *, add_special_tokens: bool = True) -> list[Any]:
    """The texts' encodings. Of long ones only a part is tokenized, at first: that it is truncated shows that it was enough.

    Args:
        backend: a `tokenizers.Tokenizer`; it truncates where there are `cuts`.
    """
    if cuts is None:
        return backend.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
    characters = cuts.characters
    parts = [cuts.part(text, characters) for text in texts]
    encodings = backend.encode_batch_fast(parts, add_special_tokens=add_special_tokens)
    max_length = backend.truncation["max_length"]
    short = [index for index, part in enumerate(parts) if len(part) < len(texts[index])]
    while short := [index for index in short if not is_truncated(encodings[index], max_length)]:
        characters *= 2
        parts = [cuts.part(texts[index], characters) for index in short]
        more = backend.encode_batch_fast(parts, add_special_tokens=add_special_tokens)
        for index, encoding in zip(short, more, strict=True):
            encodings[index] = encoding
        short = [index for index, part in zip(short, parts, strict=True) if len(part) < len(texts[index])]
    return encodings


def is_truncated(encoding: Any, limit: int | None) -> bool:
    """Whether tokens were cut off at `limit`; None: there is none."""
    # the last one makes an object of each piece cut off
    return limit is not None and len(encoding) >= limit and bool(encoding.overflowing)


def encode_good(encode_rows: Callable[[slice], Encodings], count: int) -> tuple[Encodings, dict[int, BaseException]]:
    """The encodings of `count` documents of which some may make the tokenizer raise.

    Args:
        encode_rows: tokenizes the documents of these rows.

    Returns:
        (the encodings of the others, in order; the exception of each that does, by its row).

    Raises:
        Exception: what poison.halve says: then the tokenizer is at fault.
    """

    def encode_part(start: int, stop: int) -> Encodings:
        try:
            return encode_rows(slice(start, stop))
        except BaseException as error:
            if type(error).__name__ == "PanicException":  # of Rust; it is no Exception, and would get past all handlers
                raise RuntimeError(f"the tokenizer panicked: {error}") from error
            raise

    parts, failed = halve(encode_part, count, _is_texts_fault)
    if len(parts) == 1:
        return parts[0][2], failed
    encodings = [part for _, _, part in parts] or [encode_rows(slice(0, 0))]
    return Encodings(*(_concatenated([getattr(part, field.name) for part in encodings]) for field in fields(Encodings))), failed


def _concatenated(arrays: list[Any]) -> Any:
    return None if arrays[0] is None else np.concatenate(arrays)


def _is_texts_fault(error: BaseException) -> bool:
    return isinstance(error, Exception) and not isinstance(error, MemoryError)


def chunks(sizes: list[int]) -> list[slice]:
    """Rows to tokenize at once, for texts of so many characters."""
    bounds = []
    size = CHUNK_CHARACTERS
    for row, characters in enumerate(sizes):
        if size >= CHUNK_CHARACTERS:
            bounds.append(row)
            size = 0
        size += characters + 100
    return [slice(start, stop) for start, stop in pairwise([*bounds, len(sizes)])]


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
    """Sorts by length (ties by row), cuts into batches, pads each to its longest document.

    A batch is full at `batch_tokens` padded tokens, or when more than PADDING_PER_BATCH of that would be padding (rounding up
    to `pad_multiple` aside): for units of 34 to 1,100 real documents within half a per cent of the cheapest cuts there are,
    found by dynamic programming, where a pass costs as much as 50 tokens do.

    Args:
        batch_tokens: padded tokens per batch at the most; a single document may exceed it.
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


def _batch_rows(widths: np.ndarray, batch_tokens: int) -> np.ndarray:
    """Documents per batch, int32, for ascending `widths`; see make_batches."""
    rows = []
    start = 0
    while start < len(widths):
        # with ascending widths, both grow along the candidates: the last that fits is found by bisection
        candidates = widths[start : start + batch_tokens // int(widths[start]) + 1]
        cost = np.arange(1, len(candidates) + 1, dtype=np.int64) * candidates
        padding = cost - np.cumsum(candidates)
        count = min(
            int(np.searchsorted(cost, batch_tokens, side="right")),
            int(np.searchsorted(padding, batch_tokens * PADDING_PER_BATCH, side="right")),
        )
        count = max(count, 1)
        rows.append(count)
        start += count
    return np.array(rows, np.int32)


def attention_mask(lengths: np.ndarray, width: int, pad_left: bool) -> np.ndarray:
    """int64 (documents, width): 0 exactly on padding, whatever the pad id is."""
    columns = np.arange(width)[None, :]
    mask = columns >= (width - lengths[:, None]) if pad_left else columns < lengths[:, None]
    return mask.astype(np.int64)


def batches_to_columns(batches: TokenBatches, reading: int = 0) -> dict[str, pa.Array]:
    """One row of large_list columns, sharing the arrays' memory.

    Args:
        reading: a number of these batches, where models with several tokenizers read a unit.
    """
    return {f"batch_{field.name}_{reading}": list_cell(getattr(batches, field.name)) for field in fields(TokenBatches)}


def batches_from_columns(row: pa.Table, reading: int = 0) -> TokenBatches:
    return TokenBatches(*(flat_values(row, f"batch_{field.name}_{reading}") for field in fields(TokenBatches)))
