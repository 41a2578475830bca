"""Documents -> the sequences that a model reads: a text or a pair of texts, in windows or truncated, with special tokens.

A single text truncated at max_length is left to the tokenizer itself (encoding.encode), which is faster. Pairs and windows are
laid out here from each text's own tokens: the tokenizer would create an object for every combination of the pieces that it
truncates from a pair, gigabytes for two long texts.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from pipeline_ops.schema.errors import UserError
from pipeline_ops.tokenizing.early_truncation import EarlyTruncation, early_truncation_of
from pipeline_ops.tokenizing.encoding import Encodings, chunk_slices, encode, encode_texts, is_truncated
from pipeline_ops.tokenizing.windows import Windows


@dataclass(frozen=True)
class Layout:
    """Which tokens of the texts and which special tokens make a sequence, and in which order.

    special: ids of the special tokens before, between and behind the texts (before and behind a single one); special_types,
    text_types: their type ids, and the texts'; room: the most tokens of text in a sequence; from_end: too long a text keeps its
    end, not its beginning; windows: None if documents are truncated.
    """

    special: tuple[tuple[int, ...], ...]
    special_types: tuple[bytes, ...]
    text_types: tuple[int, ...]
    room: int
    from_end: bool
    windows: Windows | None

    @property
    def limit(self) -> int | None:
        """The most tokens of one text in all sequences of its document together; None: no limit."""
        if self.windows is None:
            return self.room
        if self.windows.max_windows is None:
            return None
        return self.room + (self.windows.max_windows - 1) * (self.room - self.windows.stride)


def layout_of(backend: Any, *, max_length: int, pairs: bool, from_end: bool, windows: Windows | None) -> Layout:
    """The layout of a tokenizer's sequences, found by encoding a sample.

    Args:
        backend: a `tokenizers.Tokenizer`; its truncation and padding are switched off.
        max_length: tokens of a sequence, special tokens included.

    Raises:
        UserError: the tokenizer does not put the second text behind the first.
    """
    backend.no_truncation()
    backend.no_padding()
    sample = backend.encode("a", "a") if pairs else backend.encode("a")
    order = [text for text in sample.sequence_ids if text is not None]
    if order != sorted(order) or set(order) != set(range(1 + pairs)):
        raise UserError(
            f"input.text_pair_column: this model's tokenizer cannot be used for {'pairs' if pairs else 'windows'}: it gives the"
            f" texts in the order {order}"
        )
    special: list[list[int]] = [[] for _ in range(2 + pairs)]
    special_types = [bytearray() for _ in special]
    text_types = [0] * (1 + pairs)
    begun = 0
    for token, text, type_id in zip(sample.ids, sample.sequence_ids, sample.type_ids, strict=True):
        if text is None:
            special[begun].append(token)
            special_types[begun].append(type_id)
        else:
            begun = text + 1
            text_types[text] = type_id
    room = max_length - sum(map(len, special))
    return Layout(tuple(map(tuple, special)), tuple(map(bytes, special_types)), tuple(text_types), room, from_end, windows)


def set_truncation(backend: Any, layout: Layout) -> None:
    """Set `backend` to truncate each text to layout.limit."""
    if layout.limit is None:
        backend.no_truncation()
    else:
        backend.enable_truncation(layout.limit, direction="left" if layout.from_end else "right")


class TextEncoder:
    """A loaded tokenizer: documents in, the sequences of ids that a model reads out.

    Args:
        definition: JSON of what encoding.truncating_backend returns.
        pairs: documents are pairs of texts.

    Raises:
        UserError: as layout_of.
    """

    def __init__(self, definition: str, *, with_type_ids: bool, pairs: bool = False, windows: Windows | None = None):
        self.backend = Tokenizer.from_str(definition)
        self.with_type_ids = with_type_ids
        self.layout: Layout | None = None
        if pairs or windows is not None:
            cut: Any = self.backend.truncation
            self.layout = layout_of(
                self.backend,
                max_length=cut["max_length"],
                pairs=pairs,
                from_end=cut["direction"] == "left",
                windows=windows,
            )
            set_truncation(self.backend, self.layout)
            definition = self.backend.to_str()
        self.early_truncation = early_truncation_of(definition, self.backend)

    def encode(self, columns: Sequence[list[str]]) -> Encodings:
        """Tokenize documents.

        Args:
            columns: one list of texts; for pairs two, the first and the second texts.
        """
        if self.layout is None:
            return encode(columns[0], self.backend, with_type_ids=self.with_type_ids, early_truncation=self.early_truncation)
        return encode_sequences(
            columns, self.backend, self.layout, with_type_ids=self.with_type_ids, early_truncation=self.early_truncation
        )


def encode_sequences(
    columns: Sequence[list[str]],
    backend: Any,
    layout: Layout,
    *,
    with_type_ids: bool,
    early_truncation: EarlyTruncation | None = None,
) -> Encodings:
    """Tokenize documents and lay out their sequences.

    Pairs are truncated as by `tokenizer(texts, pairs, truncation=True)`, see longest_first. Windows are those of
    `return_overflowing_tokens=True`: the first is what truncation would keep, each further one begins `stride` tokens before
    the end of the last one. Of a pair the longer text is read in windows, each with what truncation would keep of the other.

    Args:
        columns: one list of texts; for pairs two, the first and the second texts.
        backend: as set_truncation leaves it.
        early_truncation: of the same backend; it changes the speed, not the result.

    Returns:
        Encodings with ids and lengths per window; `windows` is None if the layout has no windows.
    """
    ids, lengths, truncated, counts = array("i"), array("i"), array("b"), array("i")
    type_ids: list[bytes] = []
    before, *between, behind = (list(special) for special in layout.special)
    for chunk in chunk_slices([sum(map(len, row)) for row in zip(*columns, strict=True)]):
        encoded = [encode_texts(column[chunk], backend, early_truncation, add_special_tokens=False) for column in columns]
        for row, document in enumerate(zip(*encoded, strict=True), chunk.start):
            parts, complete = _parts_of(document, [column[row] for column in columns], backend, layout)
            tokens = [encoding.ids for encoding in document]
            for spans in parts:
                sequence = list(before)
                for text, (start, stop) in enumerate(spans):
                    sequence += (between[0] if text else []) + tokens[text][start:stop]
                sequence += behind
                ids.fromlist(sequence)
                lengths.append(len(sequence))
                if with_type_ids:
                    type_ids.append(_type_ids(tuple(stop - start for start, stop in spans), layout))
            counts.append(len(parts))
            truncated.append(not complete)
    return Encodings(
        np.frombuffer(ids, np.int32),
        np.frombuffer(b"".join(type_ids), np.int8) if with_type_ids else None,
        np.frombuffer(lengths, np.int32),
        np.frombuffer(truncated, bool),
        np.frombuffer(counts, np.int32) if layout.windows else None,
    )


def _type_ids(counts: tuple[int, ...], layout: Layout) -> bytes:
    found = layout.special_types[0]
    for count, text_type, special in zip(counts, layout.text_types, layout.special_types[1:], strict=True):
        found += bytes([text_type]) * count + special
    return found


TokenRange = tuple[int, int]  # tokens [start, stop) of a text


def _parts_of(
    document: tuple[Any, ...], texts: list[str], backend: Any, layout: Layout
) -> tuple[list[tuple[TokenRange, ...]], bool]:
    """(per sequence of a document the token range of each text, True if all tokens are in some sequence)."""
    cut = [is_truncated(encoding, layout.limit) for encoding in document]
    counts = [len(encoding) for encoding in document]
    if len(document) == 1:
        spans, complete = _windows(counts[0], layout.room, layout)
        return [(span,) for span in spans], complete and not cut[0]
    # only which text is longer matters, and a truncated one is longer than one that is not
    first, second = [_count(text, backend) for text in texts] if all(cut) else map(sum, zip(counts, cut, strict=True))
    longer = 0 if first > second else 1
    sizes = longest_first(first, second, layout.room)
    spans, complete = _windows(counts[longer], sizes[longer], layout)
    other = 1 - longer
    (kept,), whole = _windows(counts[other], sizes[other], replace(layout, windows=None))
    parts = [(span, kept) if longer == 0 else (kept, span) for span in spans]
    return parts, complete and whole and not any(cut)


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens are kept of each text of a pair of `first` and `second` tokens.

    Source: huggingface/tokenizers, utils/truncation.rs, TruncationStrategy::LongestFirst; of equally long texts the second one
    keeps the odd token.
    """
    if first + second <= room:
        return first, second
    shorter = min(first, second)
    if 2 * shorter > room:
        shorter = room // 2
    return (room - shorter, shorter) if first > second else (shorter, room - shorter)


def _windows(count: int, size: int, layout: Layout) -> tuple[list[TokenRange], bool]:
    """(the ranges of at most `size` tokens that are read of `count`, in order; True if they cover all)."""
    most, step = 1, size
    if layout.windows is not None:
        most, step = layout.windows.max_windows or count + 1, size - layout.windows.stride
    needed = 1 if count <= size else 1 + -(-(count - size) // max(step, 1))
    starts = [number * step for number in range(min(needed, most))]
    spans = [(start, min(start + size, count)) for start in starts]
    if layout.from_end:
        spans = [(count - stop, count - start) for start, stop in spans]
    return spans, needed <= most


def _count(text: str, backend: Any) -> int:
    """The number of tokens of a text before truncation."""
    encoding = backend.encode(text, add_special_tokens=False)
    return len(encoding) + sum(map(len, encoding.overflowing))
