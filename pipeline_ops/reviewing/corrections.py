"""Reads corrections: documents that a reviewer has labeled, in JSON Lines of the review page or in CSV of a spreadsheet.

The columns are described in schema/review_format.py; files written by hand may lack most of them. All of a review is held in
memory: it is what people have read one by one.
"""

import csv
import difflib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pipeline_ops.analysis.redaction import MASK
from pipeline_ops.schema.errors import UserError, store_access
from pipeline_ops.schema.review_format import LABEL_SEPARATOR, NO_LABELS, text_of_cell
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.paths import did_you_mean, shown
from pipeline_ops.storage.store import Store

DELIMITERS = (",", ";", "\t")  # that spreadsheets write
MAX_NAMES = 5  # of labels, in a message
CUT = "…"  # at the end of a text that is too long to be shown
QUOTED_CELLS = ("corrected", "predicted", "text", "text_pair", "source_file", "stratum")  # by spreadsheet_cell

Label = str | tuple[str, ...]  # the labels of a multi-label head are a tuple; in a cell of a CSV they are one string
Source = tuple[str, int]  # source_file, source_row
Key = TypeVar("Key")


@dataclass(frozen=True)
class Stratum:
    """The part of a sample's population that a document was drawn from."""

    sample: str  # the sample's id
    name: str
    documents: int  # in the stratum, reviewed or not
    sampled: int  # of them, in the sample; those that were not reviewed are missing in the corrections
    of_documents: int | None  # labeled documents of the output that the sample was drawn from


@dataclass(frozen=True)
class Correction:
    """A reviewed document and its label."""

    place: str  # `line 3 of fixes.jsonl`, for messages
    label: Label
    text: str | None
    source: Source | None
    predicted: Label | None
    stratum: Stratum | None  # None: nobody knows how the document was chosen
    model: str  # of an output of several models
    reviewed_at: str  # ISO 8601; "": not known
    is_pair: bool = False


def read_corrections(paths: Sequence[str], storage: StorageConfig, key: str) -> list[Correction]:
    """The corrections in files, in the order of the files and their lines.

    Args:
        paths: files, globs, or folders, of whose files the .jsonl and .csv ones are read.
        key: the setting or option that names them, for messages.

    Raises:
        UserError: there is no such file, it cannot be read or is no such file, there are no corrections in it, or they are of
            several models.
        StoreError: the store keeps failing.
    """
    found: list[Correction] = []
    for path in paths:
        store = Store(path, storage)
        with store_access(key, path, "read"):
            listed = store.list_files()
            files = [file for file in listed if _parser_of(file.path)]
            if not listed:
                raise UserError(f"{key}: there is no file {path!r}{did_you_mean(path)}")
            if not files:
                raise UserError(f"{key}: {path!r} is no .jsonl or .csv file, and holds none; give what `review` has exported")
            contents = store.read_files(files)
        for file, content in zip(files, contents, strict=True):
            parse = _parser_of(file.path)
            assert parse is not None
            try:
                found += parse(content, shown(file.path))
            except UserError as error:
                raise UserError(f"{key}: {error}") from error
    if not found:
        raise UserError(f"{key}: no document of {', '.join(paths)} is reviewed; export reviewed ones, or fill in `corrected`")
    models = sorted({one.model for one in found})
    if len(models) > 1:
        raise UserError(f"{key}: the labels are those of several models, {', '.join(map(repr, models))}; give files of one")
    return found


def newest_by(key: Callable[[Correction], Key | None], corrections: Iterable[Correction]) -> dict[Key, Correction]:
    """{key: its last correction}, of those that have one: by the time of the review, or else the order."""
    newest: dict[Key, Correction] = {}
    for one in corrections:
        place = key(one)
        if place is None:
            continue
        before = newest.get(place)
        if before is None or not (before.reviewed_at and one.reviewed_at) or before.reviewed_at <= one.reviewed_at:
            newest.pop(place, None)  # so that the newest ones come last
            newest[place] = one
    return newest


def fit_labels(
    corrections: Iterable[Correction], labels: Sequence[str], *, are_sets: bool, key: str
) -> tuple[list[Correction], Counter[str]]:
    """(the corrections with a label each, or with a tuple of labels; labels that are not among `labels`, with their documents).

    Args:
        labels: those of the model, or of the first training data.
        are_sets: documents have any number of labels.

    Raises:
        UserError: a label is one of `labels` but for case, spaces or the way a number is written, as spreadsheets change them;
            or a document has none or several labels where it has to have one.
    """
    fitted: list[Correction] = []
    unknown: Counter[str] = Counter()
    for one in corrections:
        names = (one.label,) if isinstance(one.label, str) and one.label in labels else label_names(one.label)
        if not are_sets and isinstance(one.label, str) and not set(names) <= set(labels):
            names = (one.label,)  # a name that happens to look like several
        if not are_sets and len(names) != 1:
            raise UserError(f"{key}: {one.place}: has {len(names)} labels, where each document has one; give it one label")
        for name in set(names).difference(labels):
            meant = _respelled(name, labels)
            if meant is not None:
                raise UserError(f"{key}: {one.place}: there is no label {name!r}; did you mean {meant!r}? Correct the file")
            unknown[name] += 1
        fitted.append(replace(one, label=names if are_sets else names[0]))
    return fitted, unknown


def label_names(label: Label) -> tuple[str, ...]:
    """The labels of a document, of which a cell has the names in a row, or NO_LABELS."""
    if isinstance(label, tuple):
        return label
    return () if label == NO_LABELS else tuple(name.strip() for name in label.split(LABEL_SEPARATOR.strip()))


def is_same_text(text: str, shown: str | None) -> bool:
    """Whether a document's text is the one that a review has shown, as far as letters and digits go.

    A spreadsheet changes line ends, a page does not show control characters; credentials are masked, and long texts cut.
    """
    if shown is None:
        return True
    letters, *parts = ("".join(filter(str.isalnum, part)) for part in (text, *shown.split(MASK)))
    if len(parts) > 1:
        return all(part in letters for part in parts)
    return letters.startswith(parts[0]) if shown.endswith(CUT) else letters == parts[0]


def listed_labels(counts: Counter[str], labels: Sequence[str]) -> str:
    """`'refnud' (2 documents; did you mean 'refund'?), ...`: labels that are not among `labels`, for a line of text."""
    described = []
    for name, count in counts.most_common(MAX_NAMES):
        near = difflib.get_close_matches(name, labels, n=1, cutoff=0.8)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        described.append(f"{name!r} ({count:,} document{'s' * (count > 1)}{hint})")
    return ", ".join(described) + (f" and {len(counts) - MAX_NAMES} more" if len(counts) > MAX_NAMES else "")


def _respelled(name: str, labels: Sequence[str]) -> str | None:
    """The label that differs from a name in case, spaces or the way a number is written only; None if there is none."""
    letters, number = "".join(name.split()).casefold(), _number(name)
    return next(
        (
            label
            for label in labels
            if "".join(label.split()).casefold() == letters or (number is not None and _number(label) == number)
        ),
        None,
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _parser_of(path: str) -> Callable[[bytes, str], Iterator[Correction]] | None:
    lowered = path.lower()
    return _parse_json_lines if lowered.endswith(".jsonl") else _parse_csv if lowered.endswith(".csv") else None


def _parse_json_lines(content: bytes, name: str) -> Iterator[Correction]:
    for number, line in enumerate(_decoded(content, name).split("\n"), 1):
        if not line.strip():
            continue
        place = f"line {number} of {name}"
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise UserError(f"{place}: is no JSON ({error}); give the file that the review page has exported") from error
        if not isinstance(fields, dict) or "label" not in fields:
            raise UserError(f"{place}: has no key `label`; give the file that the review page has exported")
        yield _correction(place, fields, _json_label(fields["label"], place))


def _json_label(value: Any, place: str) -> Label:
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise UserError(f"{place}: label {value!r} is neither a name nor a list of names")
    return value


def _parse_csv(content: bytes, name: str) -> Iterator[Correction]:
    text = _decoded(content, name)
    header = text.split("\n", 1)[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=max(DELIMITERS, key=header.count), strict=True)
    try:
        columns = next(rows, [])
        if "corrected" not in columns:
            raise UserError(
                f"{name}: has no column `corrected` for the right labels, but {', '.join(columns) or 'nothing'}; a corpus with"
                " labels is input.path of a training, or read by --truth"
            )
        for number, cells in enumerate(rows, 2):  # as spreadsheets count
            fields: dict[str, Any] = dict(zip(columns, cells, strict=False))
            fields |= {key: text_of_cell(fields[key]) for key in QUOTED_CELLS if key in fields}
            label = fields.get("corrected") or ""
            if label != fields.get("predicted"):
                label = label.strip()
            if label:
                yield _correction(f"row {number} of {name}", fields, label)
    except csv.Error as error:
        raise UserError(f"{name}: line {rows.line_num} is no CSV ({error}); save it as CSV UTF-8 again") from error


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: is not UTF-8 ({error.reason} at byte {error.start:,}); save it as CSV UTF-8") from error


def _correction(place: str, fields: dict[str, Any], label: Label) -> Correction:
    predicted = fields.get("predicted")
    file, row = fields.get("source_file"), _whole(fields, "source_row", place)
    sample, name = fields.get("sample"), fields.get("stratum")
    documents, sampled = (_whole(fields, key, place) for key in ("stratum_documents", "stratum_sampled"))
    stratum = None
    if sample and name and documents is not None:
        stratum = Stratum(sample, name, documents, sampled or 0, _whole(fields, "documents", place))
    return Correction(
        place=place,
        label=label,
        text=None if fields.get("text") is None else str(fields["text"]),
        source=None if not file or row is None else (str(file), row),
        predicted=tuple(predicted) if isinstance(predicted, list) else predicted,
        stratum=stratum,
        model=fields.get("model") or "",
        reviewed_at=fields.get("reviewed_at") or "",
        is_pair=fields.get("text_pair") is not None,
    )


def _whole(fields: dict[str, Any], key: str, place: str) -> int | None:
    """A whole number from a key or cell, None if there is none."""
    value = fields.get(key)
    if value is None or value == "":
        return None
    number = _number(str(value))
    if number is None or not number.is_integer() or number < 0:
        raise UserError(f"{place}: {key} {value!r} is no whole number; leave it as it was exported")
    return int(number)
