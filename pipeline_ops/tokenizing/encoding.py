"""Texts -> token ids (Encodings): flat integer arrays, equal to the ids of the tokenizer's own call. No torch."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np

from pipeline_ops.schema.bisection import bisect_failures
from pipeline_ops.tokenizing.early_truncation import EarlyTruncation

# Characters per call of the tokenizer, whose objects hold about 100 bytes per token: those of a whole unit would be gigabytes,
# and chunks of a mebibyte took a fifth more CPU time than chunks that fit into a core's cache.
CHUNK_CHARACTERS = 2**17


@dataclass(frozen=True)
class Encodings:
    """Token ids of documents, one document (or window of it) behind the other.

    ids: int32 (tokens,); type_ids: int8 (tokens,) or None if the model takes none; lengths: int32 (windows,), special tokens
    included; truncated: bool (documents,); windows: int32 (documents,), windows per document, or None: one each.
    """

    ids: np.ndarray
    type_ids: np.ndarray | None
    lengths: np.ndarray
    truncated: np.ndarray
    windows: np.ndarray | None = None

    @property
    def num_tokens(self) -> np.ndarray:
        """int32 (documents,): tokens of each document, summed over its windows."""
        if self.windows is None or not len(self.windows):
            return self.lengths
        return np.add.reduceat(self.lengths, np.cumsum(self.windows) - self.windows, dtype=np.int32)


def truncating_backend(tokenizer: Any, max_length: int) -> Any:
    """The `tokenizers.Tokenizer` of a fast tokenizer of transformers, set to truncate on the tokenizer's side, without padding.

    Its JSON (`to_str`) is all that tokenizing needs; importing transformers costs a process seconds, and 300 MB with torch.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
    return backend


def encode(
    texts: list[str], backend: Any, *, with_type_ids: bool, early_truncation: EarlyTruncation | None = None
) -> Encodings:
    """Tokenize as `tokenizer(texts, truncation=True, max_length=max_length)` does, special tokens included.

    Args:
        backend: what truncating_backend returns.
        early_truncation: of the same backend; it changes the speed, not the result.
    """
    ids, lengths, truncated = array("i"), array("i"), array("b")  # the fastest way from lists to flat memory
    type_ids: list[bytes] = []
    types_of: dict[int, bytes] = {}  # by number of tokens, which determines them for a single text
    max_length = backend.truncation["max_length"]
    for chunk in chunk_slices([len(text) for text in texts]):
        for encoding in encode_texts(texts[chunk], backend, early_truncation):
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


def encode_texts(
    texts: list[str], backend: Any, early_truncation: EarlyTruncation | None, *, add_special_tokens: bool = True
) -> list[Any]:
    """The `tokenizers.Encoding` of each text.

    With `early_truncation` only a part of a long text is tokenized, and a longer one as long as that part is not truncated.

    Args:
        backend: a `tokenizers.Tokenizer`; with `early_truncation` one that truncates.
    """
    if early_truncation is None:
        return backend.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
    characters = early_truncation.initial_characters
    parts = [early_truncation.shorten(text, characters) for text in texts]
    encodings = backend.encode_batch_fast(parts, add_special_tokens=add_special_tokens)
    max_length = backend.truncation["max_length"]
    short = [index for index, part in enumerate(parts) if len(part) < len(texts[index])]
    while short := [index for index in short if not is_truncated(encodings[index], max_length)]:
        characters *= 2
        parts = [early_truncation.shorten(texts[index], characters) for index in short]
        more = backend.encode_batch_fast(parts, add_special_tokens=add_special_tokens)
        for index, encoding in zip(short, more, strict=True):
            encodings[index] = encoding
        short = [index for index, part in zip(short, parts, strict=True) if len(part) < len(texts[index])]
    return encodings


def is_truncated(encoding: Any, limit: int | None) -> bool:
    """True if `encoding` was truncated to `limit` tokens; None: no limit."""
    # `overflowing` comes last: it creates an object per truncated piece
    return limit is not None and len(encoding) >= limit and bool(encoding.overflowing)


def encode_isolating_failures(
    encode_rows: Callable[[slice], Encodings], count: int
) -> tuple[Encodings, dict[int, BaseException]]:
    """Tokenize `count` documents, leaving out those that make the tokenizer raise.

    Args:
        encode_rows: tokenizes the documents of a range of rows.

    Returns:
        (the encodings of the good documents, in order; {row: exception} of the others).

    Raises:
        Exception: the tokenizer is at fault, not documents; see bisect_failures.
    """

    def encode_part(start: int, stop: int) -> Encodings:
        try:
            return encode_rows(slice(start, stop))
        except BaseException as error:
            if type(error).__name__ == "PanicException":  # of Rust: a BaseException, which no handler would catch
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
    """Ranges of rows to tokenize at once, each of about CHUNK_CHARACTERS; `sizes`: characters per row."""
    bounds = []
    size = CHUNK_CHARACTERS
    for row, characters in enumerate(sizes):
        if size >= CHUNK_CHARACTERS:
            bounds.append(row)
            size = 0
        size += characters + 100
    return [slice(start, stop) for start, stop in pairwise([*bounds, len(sizes)])]
