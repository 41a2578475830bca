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

from pipeline_ops.schema.bisection import bisect_failures
from pipeline_ops.tokenizing.early_truncation import EarlyTruncation

# Encodings hold about 100 bytes per token: a unit's at once would be gigabytes, and a mebibyte's took a fifth more CPU time
# than what fits into a core's cache.
CHUNK_CHARACTERS = 2**17


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


def truncating_backend(tokenizer: Any, max_length: int) -> Any:
    """The `tokenizers.Tokenizer` inside a fast tokenizer of transformers, set to cut on the tokenizer's side and not to pad.

    As JSON (`to_str`) it is all that tokenizing needs: importing transformers costs a process seconds, and 300 MB with torch.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
    return backend


def encode(texts: list[str], backend: Any, *, with_type_ids: bool, cuts: EarlyTruncation | None = None) -> Encodings:
    """Tokenizes as `tokenizer(texts, truncation=True, max_length=max_length)` does, special tokens included.

    Args:
        backend: as truncating_backend gives it.
        cuts: where its long texts may be cut, as early_truncation_of gives it; the result is the same.
    """
    ids, lengths, truncated = array("i"), array("i"), array("b")  # the fastest way from lists to flat memory
    type_ids: list[bytes] = []
    types_of: dict[int, bytes] = {}  # those of one text follow from its number of tokens
    max_length = backend.truncation["max_length"]
    for chunk in chunk_slices([len(text) for text in texts]):
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


def encode_texts(texts: list[str], backend: Any, cuts: EarlyTruncation | None, *, add_special_tokens: bool = True) -> list[Any]:
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


def encode_isolating_failures(
    encode_rows: Callable[[slice], Encodings], count: int
) -> tuple[Encodings, dict[int, BaseException]]:
    """The encodings of `count` documents of which some may make the tokenizer raise.

    Args:
        encode_rows: tokenizes the documents of these rows.

    Returns:
        (the encodings of the others, in order; the exception of each that does, by its row).

    Raises:
        Exception: what poison.bisect_failures says: then the tokenizer is at fault.
    """

    def encode_part(start: int, stop: int) -> Encodings:
        try:
            return encode_rows(slice(start, stop))
        except BaseException as error:
            if type(error).__name__ == "PanicException":  # of Rust; it is no Exception, and would get past all handlers
                raise RuntimeError(f"the tokenizer panicked: {error}") from error
            raise

    parts, failed = bisect_failures(encode_part, count, _is_texts_fault)
    if len(parts) == 1:
        return parts[0][2], failed
    encodings = [part for _, _, part in parts] or [encode_rows(slice(0, 0))]
    return Encodings(*(_concatenated([getattr(part, field.name) for part in encodings]) for field in fields(Encodings))), failed


def _concatenated(arrays: list[Any]) -> Any:
    return None if arrays[0] is None else np.concatenate(arrays)


def _is_texts_fault(error: BaseException) -> bool:
    return isinstance(error, Exception) and not isinstance(error, MemoryError)


def chunk_slices(sizes: list[int]) -> list[slice]:
    """Rows to tokenize at once, for texts of so many characters."""
    bounds = []
    size = CHUNK_CHARACTERS
    for row, characters in enumerate(sizes):
        if size >= CHUNK_CHARACTERS:
            bounds.append(row)
            size = 0
        size += characters + 100
    return [slice(start, stop) for start, stop in pairwise([*bounds, len(sizes)])]
