"""The tokens of texts -> what a model reads: special tokens around them, pairs of texts, windows over long ones. No model.

A document that is one text cut at max_length is left to the tokenizer itself (tokenizing.encode), which is faster. Everything
else is laid out here from each text's own tokens: the tokenizer would make an object of every combination of the pieces that
it cuts off a pair, and gigabytes of two long texts.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer

from pipeline_ops.schema.errors import UserError
from pipeline_ops.tokenizing.early_truncation import EarlyTruncation, early_truncation_of
from pipeline_ops.tokenizing.encoding import Encodings, chunk_slices, encode, encode_texts, is_truncated

Aggregate = Literal["mean", "max", "first"]


class LongDocumentsConfig(BaseModel):
    """What becomes of documents longer than max_length; part of the keys `model.*`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    long_documents: Literal["truncate", "windows"] = Field(
        default="truncate", description="truncate: label what max_length leaves of them; windows: all of it, piece by piece"
    )
    stride: int | None = Field(
        default=None, ge=0, description="windows: tokens that one has in common with the next, 0 unless set"
    )
    max_windows: int | None = Field(default=None, ge=1, description="windows of a document at the most; default: all")
    aggregate: Aggregate | None = Field(default=None, description="windows' answers -> the document's; mean unless set")
    aggregate_on: Literal["logits", "scores"] | None = Field(
        default=None, description="what of the windows is aggregated; logits unless set"
    )


@dataclass(frozen=True)
class Windows:
    """How long documents are labeled piece by piece, as resolved."""

    stride: int
    max_windows: int | None
    aggregate: Aggregate
    aggregate_on: Literal["logits", "scores"]


def resolve_windows(config: LongDocumentsConfig, room: int, pairs: bool) -> Windows | None:
    """What the configuration says of long documents; None: they are truncated.

    Args:
        room: tokens of text in a sequence, special tokens left out.

    Raises:
        UserError: a setting of windows without windows, or a stride that leaves no step from one window to the next.
    """
    if config.long_documents == "truncate":
        for key in ("stride", "max_windows", "aggregate", "aggregate_on"):
            value = getattr(config, key)
            if value is not None:
                raise UserError(f"model.{key}: {value!r} is for windows; set model.long_documents: windows, or leave it out")
        return None
    stride = config.stride or 0
    smallest = (room + 1) // 2 if pairs else room  # a short text may take half the room from the other's windows
    if stride >= smallest:
        raise UserError(
            f"model.stride: with {stride} tokens in common a window of {smallest} does not get on; give less than {smallest}"
        )
    return Windows(stride, config.max_windows, config.aggregate or "mean", config.aggregate_on or "logits")


@dataclass(frozen=True)
class Layout:
    """What stands where in a sequence, and which tokens of the texts are in it.

    special: ids of the special tokens before, between and behind the texts (before and behind a single one); special_types and
    text_types: their type ids, and the texts'; room: tokens of text in a sequence; from_end: of what is too long the end is
    kept; windows: None where the rest is left out.
    """

    special: tuple[tuple[int, ...], ...]
    special_types: tuple[bytes, ...]
    text_types: tuple[int, ...]
    room: int
    from_end: bool
    windows: Windows | None

    @property
    def limit(self) -> int | None:
        """The tokens of one text that can be in a sequence of its document; None: all."""
        if self.windows is None:
            return self.room
        if self.windows.max_windows is None:
            return None
        return self.room + (self.windows.max_windows - 1) * (self.room - self.windows.stride)


def layout_of(backend: Any, *, max_length: int, pairs: bool, from_end: bool, windows: Windows | None) -> Layout:
    """The layout that a tokenizer has.

    Args:
        backend: a `tokenizers.Tokenizer`; its truncation is switched off.

    Raises:
        UserError: the texts of a pair do not stand one behind the other.
    """
    backend.no_truncation()
    backend.no_padding()
    sample = backend.encode("a", "a") if pairs else backend.encode("a")
    # of each token the text that it belongs to, None for special ones
    order = [text for place, text in enumerate(sample.sequence_ids) if text is not None]
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
    """Has `backend` cut each text where no sequence of the layout needs more of it."""
    if layout.limit is None:
        backend.no_truncation()
    else:
        backend.enable_truncation(layout.limit, direction="left" if layout.from_end else "right")


class TextEncoder:
    """A tokenizer as a model needs it: documents in, the sequences of ids that the model reads out.

    Args:
        definition: JSON of what tokenizing.truncating_backend gives.
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
        self.cuts = early_truncation_of(definition, self.backend)

    def encode(self, columns: Sequence[list[str]]) -> Encodings:
        """Tokenizes documents.

        Args:
            columns: the texts of the documents, or the first and the second ones of pairs.
        """
        if self.layout is None:
            return encode(columns[0], self.backend, with_type_ids=self.with_type_ids, cuts=self.cuts)
        return encode_sequences(columns, self.backend, self.layout, with_type_ids=self.with_type_ids, cuts=self.cuts)


def encode_sequences(
    columns: Sequence[list[str]], backend: Any, layout: Layout, *, with_type_ids: bool, cuts: EarlyTruncation | None = None
) -> Encodings:
    """Tokenizes and lays out.

    Pairs are truncated as `tokenizer(texts, pairs, truncation=True)` does it: one token after the other from the longer text
    (longest_first). Windows are those of `return_overflowing_tokens=True`: the first is what truncation would leave, each
    further one begins `stride` tokens before the last one's end. Of a pair the longer text is read in windows, beside what
    truncation would leave of the other.

    Args:
        columns: texts, or first and second texts of pairs.
        backend: as set_truncation leaves it.
        cuts: where its long texts may be cut, as early_truncation_of gives it; the result is the same.

    Returns:
        Encodings with a row of ids and lengths per window, and `windows` unless the layout has none.
    """
    ids, lengths, truncated, counts = array("i"), array("i"), array("b"), array("i")
    type_ids: list[bytes] = []
    before, *between, behind = (list(special) for special in layout.special)
    for chunk in chunk_slices([sum(map(len, row)) for row in zip(*columns, strict=True)]):
        encoded = [encode_texts(column[chunk], backend, cuts, add_special_tokens=False) for column in columns]
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
    """(for each sequence of a document the span of each of its texts, whether all tokens are in one)."""
    cut = [is_truncated(encoding, layout.limit) for encoding in document]
    counts = [len(encoding) for encoding in document]
    if len(document) == 1:
        spans, complete = _windows(counts[0], layout.room, layout)
        return [(span,) for span in spans], complete and not cut[0]
    # only which of the two is longer matters, and one that was cut is longer than one that was not
    first, second = [_count(text, backend) for text in texts] if all(cut) else map(sum, zip(counts, cut, strict=True))
    longer = 0 if first > second else 1
    sizes = longest_first(first, second, layout.room)
    spans, complete = _windows(counts[longer], sizes[longer], layout)
    other = 1 - longer
    (kept,), whole = _windows(counts[other], sizes[other], replace(layout, windows=None))
    parts = [(span, kept) if longer == 0 else (kept, span) for span in spans]
    return parts, complete and whole and not any(cut)


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each text of a pair are kept, of `first` and `second` that there are.

    Source: huggingface/tokenizers, utils/truncation.rs, TruncationStrategy::LongestFirst: of equally long ones the second
    keeps the odd token.
    """
    if first + second <= room:
        return first, second
    shorter = min(first, second)
    if 2 * shorter > room:
        shorter = room // 2
    return (room - shorter, shorter) if first > second else (shorter, room - shorter)


def _windows(count: int, size: int, layout: Layout) -> tuple[list[TokenRange], bool]:
    """(the spans of `size` tokens that are read of `count`, the first one first; whether they cover all)."""
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
    """Tokens of a text, those cut off included."""
    encoding = backend.encode(text, add_special_tokens=False)
    return len(encoding) + sum(map(len, encoding.overflowing))


def aggregate_windows(values: np.ndarray, windows: np.ndarray, how: Aggregate) -> np.ndarray:
    """What the windows of each document say together, float32 (documents, values).

    Args:
        values: float32 (windows, values), those of a document one behind the other.
        windows: int32 (documents,), how many each has, at least one.
    """
    first = np.cumsum(windows) - windows
    if how == "first":
        return values[first]
    if how == "max":
        return np.maximum.reduceat(values, first) if len(first) else values
    sums = np.add.reduceat(values.astype(np.float64), first) if len(first) else values
    return (sums / windows[:, None]).astype(np.float32)


def documents_of_windows(rows: Iterable[int], windows: np.ndarray) -> list[int]:
    """The documents that windows belong to.

    Args:
        rows: of windows.
        windows: int32 (documents,), how many each document has.
    """
    return np.searchsorted(np.cumsum(windows), list(rows), side="right").tolist()


def window_settings(windows: Windows | None) -> dict[str, Any]:
    """What results depend on, by config key; nothing where long documents are truncated."""
    return (
        {} if windows is None else {"model.long_documents": "windows"} | {f"model.{k}": v for k, v in asdict(windows).items()}
    )
