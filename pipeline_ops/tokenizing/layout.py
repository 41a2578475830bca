"""The texts' own tokens -> the sequences that a model reads: a text or a pair, in windows or truncated, with special tokens.

Laid out here from each text's own tokens, for every tokenizer alike (TextTokenizer): the Rust tokenizers would create an object
for every combination of the pieces that they truncate from a pair, gigabytes for two long texts, and those in Python have no
windows of pairs.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np

from pipeline_ops.tokenizing.encoding import Encodings, chunk_slices
from pipeline_ops.tokenizing.windows import Windows


class TokenizedText(NamedTuple):
    """A text's own tokens, without special ones.

    ids: at least as many as its document's sequences can take (Layout.limit), if it has so many; truncated: it has more.
    """

    ids: list[int]
    truncated: bool


@dataclass(frozen=True)
class Layout:
    """Which tokens of the texts make a sequence.

    room: the most tokens of text in a sequence; from_end: too long a text keeps its end, not its beginning; windows: None if
    documents are truncated; odd_to_second: of two long texts that share an odd room, the second one gets the odd token even if
    it is not the longer one's; see longest_first.
    """

    room: int
    from_end: bool
    windows: Windows | None
    odd_to_second: bool = True

    @property
    def limit(self) -> int | None:
        """The most tokens of one text in all sequences of its document together; None: no limit."""
        if self.windows is None:
            return self.room
        if self.windows.max_windows is None:
            return None
        return self.room + (self.windows.max_windows - 1) * (self.room - self.windows.stride)


class TextTokenizer(Protocol):
    """A tokenizer, as encode_sequences uses it."""

    layout: Layout

    def tokenize(self, texts: list[str]) -> list[TokenizedText]:
        """The tokens of each text."""
        ...

    def count(self, text: str) -> int:
        """The number of tokens of a text, those included that `tokenize` truncates."""
        ...

    def assemble(self, parts: Sequence[list[int]]) -> tuple[list[int], bytes]:
        """(ids, type ids) of the sequence of a part of each text of a document, special tokens included."""
        ...


def encode_sequences(columns: Sequence[list[str]], tokenizer: TextTokenizer, *, with_type_ids: bool) -> Encodings:
    """Tokenize documents and lay out their sequences.

    Pairs are truncated as by `tokenizer(texts, pairs, truncation=True)`, see longest_first. Windows are those of
    `return_overflowing_tokens=True`: the first is what truncation would keep, each further one begins `stride` tokens before
    the end of the last one. Of a pair the longer text is read in windows, each with what truncation would keep of the other.

    Args:
        columns: one list of texts; for pairs two, the first and the second texts.

    Returns:
        Encodings with ids and lengths per window; `windows` is None if the layout has no windows.
    """
    layout = tokenizer.layout
    ids, lengths, truncated, counts = array("i"), array("i"), array("b"), array("i")
    type_ids: list[bytes] = []
    for chunk in chunk_slices([sum(map(len, row)) for row in zip(*columns, strict=True)]):
        tokenized = [tokenizer.tokenize(column[chunk]) for column in columns]
        for row, document in enumerate(zip(*tokenized, strict=True), chunk.start):
            parts, complete = _parts_of(document, [column[row] for column in columns], tokenizer)
            for spans in parts:
                tokens = [text.ids[start:stop] for text, (start, stop) in zip(document, spans, strict=True)]
                sequence, types = tokenizer.assemble(tokens)
                ids.fromlist(sequence)
                lengths.append(len(sequence))
                if with_type_ids:
                    type_ids.append(types)
            counts.append(len(parts))
            truncated.append(not complete)
    return Encodings(
        np.frombuffer(ids, np.int32),
        np.frombuffer(b"".join(type_ids), np.int8) if with_type_ids else None,
        np.frombuffer(lengths, np.int32),
        np.frombuffer(truncated, bool),
        np.frombuffer(counts, np.int32) if layout.windows else None,
    )


TokenRange = tuple[int, int]  # tokens [start, stop) of a text


def _parts_of(
    document: tuple[TokenizedText, ...], texts: list[str], tokenizer: TextTokenizer
) -> tuple[list[tuple[TokenRange, ...]], bool]:
    """(per sequence of a document the token range of each text, True if all tokens are in some sequence)."""
    layout = tokenizer.layout
    cut = [text.truncated for text in document]
    counts = [len(text.ids) for text in document]
    if len(document) == 1:
        spans, complete = _windows(counts[0], layout.room, layout)
        return [(span,) for span in spans], complete and not cut[0]
    # only which text is longer matters, and a truncated one is longer than one that is not
    first, second = map(tokenizer.count, texts) if all(cut) else map(sum, zip(counts, cut, strict=True))
    longer = 0 if first > second else 1
    sizes = longest_first(first, second, layout.room, odd_to_second=layout.odd_to_second)
    spans, complete = _windows(counts[longer], sizes[longer], layout)
    other = 1 - longer
    (kept,), whole = _windows(counts[other], sizes[other], replace(layout, windows=None))
    parts = [(span, kept) if longer == 0 else (kept, span) for span in spans]
    return parts, complete and whole and not any(cut)


def longest_first(first: int, second: int, room: int, *, odd_to_second: bool = True) -> tuple[int, int]:
    """How many tokens are kept of each text of a pair of `first` and `second` tokens.

    Source: huggingface/tokenizers, utils/truncation.rs, TruncationStrategy::LongestFirst, where the odd token goes to the
    longer text, and to the second of equally long ones; huggingface/transformers, tokenization_python.py, truncate_sequences,
    where it goes to the first one (not `odd_to_second`).
    """
    if first + second <= room:
        return first, second
    shorter = min(first, second)
    if 2 * shorter > room:
        shorter = room // 2
        if not odd_to_second:
            return room - shorter, shorter
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
