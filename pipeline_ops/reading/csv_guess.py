"""Guess the syntax of a CSV file, and whether it has a header, from its beginning. Pure, but for csv_remarks.

A guess that is not the default has a reason; `init` writes both into the job file, which a person reads before a run. A file
is taken for what the settings say unless its records speak against it: csv.Sniffer guesses from the letters of prose as well.
"""

from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import asdict, dataclass, replace

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.input_files import InputFile, UnreadableInput, evenly_spread, readable_files
from pipeline_ops.line_formats.csv_header import named_delimiter, numbered_names
from pipeline_ops.line_formats.csv_syntax import CsvSyntax, csv_syntax
from pipeline_ops.line_formats.decoding import LineStream, open_lines
from pipeline_ops.line_formats.line_records import BYTE_ORDER_MARK, RecordBlock, is_document, record_ends, split_quoted_records
from pipeline_ops.reading.column_guess import FORMS, SECONDARY_NAMES, TEXT_NAMES, TRUTH_NAMES, form_of
from pipeline_ops.storage.paths import shown
from pipeline_ops.storage.store import Store

DELIMITERS = (",", ";", "\t", "|")  # tried where the usual one leaves one column
SAMPLE_RECORDS = 250  # whose values are looked at
GOOD_SHARE = 0.95  # of the lines are in good records with a syntax that is guessed
MOST_QUOTED = 0.9  # of the fields that begin with a quote end with one, where quotes are plain characters
REMARK_FILES, REMARK_BYTES = 3, 2**18  # that csv_remarks reads
NAME_CHARACTERS = 60  # a longer first value is prose, unless it is a survey's question
NAME_WORDS = 8
SENTENCE_WORDS = 4  # a first value with so many may be a text
ALIKE_SHARE = 0.2  # of the other texts end as the first one does, with a full stop or a question mark
KNOWN_NAMES = TEXT_NAMES | SECONDARY_NAMES | TRUTH_NAMES | {"id", "index", "date", "timestamp", "url"}


@dataclass(frozen=True)
class CsvGuess:
    """What a CSV file looks like.

    Attributes:
        header: the first record has the names of the columns.
        records: of the beginning, whole ones, without a line that names the delimiter.
        size: bytes of the beginning up to the end of the records.
        whole: the beginning is the whole file.
        reasons: {key of `input` whose value is not the one that the settings have: why}.
        doubt: the text in the first record that may be a document's, although it is taken for names.
    """

    syntax: CsvSyntax
    header: bool
    records: list[bytes]
    size: int
    whole: bool
    reasons: dict[str, str]
    doubt: str | None = None

    @property
    def values(self) -> dict[str, str | bool | None]:
        """{key of `input`: value}"""
        return {**asdict(self.syntax), "header": self.header}

    @property
    def settings(self) -> dict[str, str | bool | None]:
        """{key of `input`: value} of what the settings do not have."""
        return {key: value for key, value in self.values.items() if key in self.reasons}

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        rows = [self.syntax.fields(record) for record in self.records[: SAMPLE_RECORDS + 1]]
        if not rows or self.header:
            return rows[0] if rows else []
        return numbered_names(_usual_width(rows))

    @property
    def documents(self) -> list[bytes]:
        return self.records[1:] if self.header else self.records


def guess_csv(data: bytes, syntax: CsvSyntax, header: bool = True, fixed: Set[str] = frozenset(), *, whole: bool) -> CsvGuess:
    """Guess the syntax and the header of a CSV file.

    Args:
        data: its beginning.
        syntax, header: of the settings.
        fixed: keys of `input` that are not guessed.
        whole: `data` is the whole file.
    """
    all_bytes = len(data)
    data = data.removeprefix(BYTE_ORDER_MARK)
    reasons = dict[str, str]()
    first, newline, rest = data.partition(b"\n")
    if delimiter := named_delimiter(first.removesuffix(b"\r")):
        data = rest if newline else b""
        if "delimiter" not in fixed and delimiter != syntax.delimiter:
            syntax, reasons["delimiter"] = replace(syntax, delimiter=delimiter), f"the first line is sep={delimiter}"
    elif "delimiter" not in fixed:
        syntax, reasons = _with_delimiter(data, syntax)
    best = _Parsed.of(data, syntax, whole)
    for key, other in _other_syntaxes(data, best, fixed):
        parsed = _Parsed.of(data, other, whole)
        if parsed.good_share >= max(GOOD_SHARE, best.good_share + 1e-9):
            shares = f"{parsed.good_share:.0%} of the lines are in whole records, {best.good_share:.0%} otherwise"
            why = 'texts have \\" for a quote' if key == "escape" else "quoted fields would take in the rows between two quotes"
            best, reasons[key] = parsed, f"{why}: {shares}"
            break
    doubt = None
    if header and "header" not in fixed:
        rows = [best.syntax.fields(record) for record in best.records[: SAMPLE_RECORDS + 1]]
        why = why_no_header(rows)
        if why is not None:
            header, reasons["header"] = False, why
        else:
            doubt = _doubtful_name(rows)
    return CsvGuess(best.syntax, header, best.records, all_bytes - best.left, whole, reasons, doubt)


@dataclass(frozen=True)
class _Parsed:
    """The whole records at the beginning of a file, read with a syntax."""

    syntax: CsvSyntax
    records: list[bytes]  # that are documents, or the header
    left: int  # bytes behind the records
    good_share: float  # of the lines: those in records with as many fields as most have, and with no fault in their quotes

    @classmethod
    def of(cls, data: bytes, syntax: CsvSyntax, whole: bool) -> "_Parsed":
        ends = record_ends(data, syntax, at_end=whole, begins_file=True)
        cut = int(ends[-1]) if len(ends) else 0
        data, rest = data[:cut], data[cut:]
        unfinished = rest.count(b"\n")  # lines of a record that may never end
        lines = split_quoted_records(RecordBlock(data, 0, len(ends), 0, whole), syntax)[0]
        records = [line for line in lines if is_document(line, "csv")]
        widths = [len(syntax.fields(record)) for record in records]
        usual = Counter(widths).most_common(1)[0][0] if widths else 0
        counts = [record.count(b"\n") + 1 for record in records]
        good = sum(
            count
            for record, width, count in zip(records, widths, counts, strict=True)
            if width == usual and syntax.quoting_fault(record, usual) is None
        )
        return cls(syntax, records, len(rest), good / max(sum(counts) + unfinished, 1))


def _with_delimiter(data: bytes, syntax: CsvSyntax) -> tuple[CsvSyntax, dict[str, str]]:
    """The delimiter that gives the first record several fields, where that of `syntax` gives one."""
    line = data.lstrip(b"\r\n").split(b"\n", 1)[0].removesuffix(b"\r")
    widths = {mark: len(replace(syntax, delimiter=mark).fields(line)) for mark in DELIMITERS if mark != syntax.quote}
    widest = max(widths, key=lambda mark: widths[mark])
    if len(syntax.fields(line)) > 1 or widths[widest] < 2:
        return syntax, {}
    reason = f"the first record has {widths[widest]} fields with it, one with {syntax.delimiter!r}"
    return replace(syntax, delimiter=widest), {"delimiter": reason}


def _other_syntaxes(data: bytes, parsed: _Parsed, fixed: Set[str]) -> Iterable[tuple[str, CsvSyntax]]:
    """(key of `input`, a syntax with another value of it) that may do better, best first."""
    syntax = parsed.syntax
    if syntax.quote is None or parsed.good_share == 1:
        return
    if "escape" not in fixed and syntax.escape is None and b"\\" + syntax.quote.encode() in data:
        yield "escape", replace(syntax, escape="\\")
    if "quote" in fixed:
        return
    plain = replace(syntax, quote=None)
    lines = [line.removesuffix(b"\r") for line in data.split(b"\n", SAMPLE_RECORDS)[:SAMPLE_RECORDS]]
    begun = [field for line in lines for field in plain.fields(line) if field.startswith(syntax.quote)]
    closed = [field for field in begun if len(field) > 1 and field.endswith(syntax.quote)]
    if len(closed) <= MOST_QUOTED * len(begun) and syntax.quote not in lines[0].decode(errors="replace"):
        yield "quote", plain


def why_no_header(rows: Sequence[Sequence[str]]) -> str | None:
    """Why the first row looks like a document, such as those below it; None where it may hold the names of columns.

    It does if its value in some column is of the form that all others in that column have, a number or a date, or one of
    the few values that the others have; and in no column of another form than the others: names are not numbers. A long text
    above others is enough, unless it ends like a survey's question; so are sentences where each column has them.
    """
    first, others = [value.strip() for value in rows[0]] if rows else [], [[v.strip() for v in row] for row in rows[1:]]
    others = [row for row in others if len(row) == len(first)]
    counts = [str(number) for number in range(len(first))]
    # a frame without names is written with numbers for names, with or without those of its rows
    named = any(value.lower() in KNOWN_NAMES for value in first) or first in (counts, ["", *counts[:-1]])
    if not others or named or first in others:
        return None
    found, prose, is_long = list[str](), list[bool](), False
    for value, column in zip(first, zip(*others, strict=True), strict=True):
        values = [other for other in column if other]
        if not value or not values:
            continue
        form = form_of(values).form
        if form in FORMS:
            if not FORMS[form].fullmatch(value):
                return None
            found.append(f"{_shortened(value)} is one of the {form} below it")
        elif FORMS["numbers"].fullmatch(value):
            continue  # the number of a column, or a text as all others
        elif form == "few values":
            if value not in values:
                return None
            found.append(f"{_shortened(value)} is a value of other records")
        elif form == "texts" and " " not in value and len(value) < form_of(values).median / 4:
            return None  # one word above texts
        else:
            is_long |= form == "texts" and _is_prose(value)
            prose.append(form == "texts" and (_is_prose(value) or _ends_alike(value, values)))
    if not found and not is_long and not (prose and all(prose)):
        return None
    because = found[0] if found else "it has texts that are longer than names, or sentences as those below it"
    return f"the first record looks like a document: {because}"


def _is_prose(value: str) -> bool:
    """Whether a text is too long for the name of a column; a survey's questions are names."""
    return len(value) >= NAME_CHARACTERS and len(value.split()) >= NAME_WORDS and not value.endswith(("?", ":"))


def _ends_alike(value: str, others: Sequence[str]) -> bool:
    """Whether a text is a sentence that ends as many of the others do."""
    alike = sum(other.endswith(value[-1]) for other in others)
    return _is_sentence(value) and value[-1] in ".!?" and alike >= ALIKE_SHARE * len(others)


def _is_sentence(value: str) -> bool:
    return len(value.split()) >= SENTENCE_WORDS


def _doubtful_name(rows: Sequence[Sequence[str]]) -> str | None:
    """The first value of the first row that is a sentence, as those of the rows below it; None: it has names."""
    columns = [*zip(*(row for row in rows if len(row) == len(rows[0])), strict=True)] if rows[1:] else []
    return next(
        (
            column[0].strip()
            for column in columns
            if _is_sentence(column[0]) and len(column) > 1 and form_of(column[1:]).form == "texts"
        ),
        None,
    )


def header_doubt(file: InputFile, guessed: CsvGuess) -> str | None:
    """A sentence about a first record that may be a document; None where there is no doubt."""
    if guessed.doubt is None:
        return None
    text = guessed.doubt if len(guessed.doubt) <= NAME_CHARACTERS else guessed.doubt[: NAME_CHARACTERS - 1] + "…"
    return (
        f'{shown(file.path)}: the first record may be a document ("{text}"), not names: then set input.header=false;'
        " input.header=true if these are names"
    )


def _shortened(value: str) -> str:
    return repr(value if len(value) <= 30 else value[:29] + "…")


def _usual_width(rows: Sequence[Sequence[str]]) -> int:
    return Counter(map(len, rows)).most_common(1)[0][0]


def guess_file(stream: LineStream, file: InputFile, config: InputConfig, size: int) -> CsvGuess:
    """guess_csv() of the first `size` decoded bytes of a file; the keys that the configuration sets are not guessed."""
    data = stream.read(size)
    whole = len(data) < size or not stream.read(1)
    syntax = csv_syntax(file, config) or CsvSyntax()
    return guess_csv(data, syntax, config.header is True, config.model_fields_set, whole=whole)


def csv_remarks(files: Sequence[InputFile], config: InputConfig, store: Store) -> list[str]:
    """A sentence about CSV files whose beginnings look as if they had another quote, escape or header than the settings say.

    Raises:
        Exception: of the object store.
    """
    filled = [file for file in files if file.format == "csv" and file.stored.size]

    def guess(file: InputFile) -> CsvGuess:
        with open_lines(file, config, store) as stream:
            return guess_file(stream, file, config, REMARK_BYTES)

    try:
        read = [*readable_files(evenly_spread(filled, REMARK_FILES), guess)] if filled else []
    except UnreadableInput:  # which the run quarantines
        return []
    found = {key: (file, guessed) for file, guessed in reversed(read) for key in guessed.settings if key != "delimiter"}
    doubt = next((doubt for file, guessed in read if (doubt := header_doubt(file, guessed))), None)
    doubts = [doubt] if doubt is not None and "header" not in found else []
    return doubts + [
        f"{file.path}: {guessed.reasons[key]}; if so, set input.{key}={shown_setting(guessed.settings[key])}"
        for key, (file, guessed) in found.items()
    ]


def shown_setting(value: str | bool | None) -> str:
    """A value as it stands on the command line."""
    return {None: "null", True: "true", False: "false"}.get(value, repr(value))
