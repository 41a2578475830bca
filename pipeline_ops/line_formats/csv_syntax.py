"""The syntax of CSV: where records end, which fields they have, and whose quotes are wrong. Pure."""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.input_files import InputFile

# in prose a comma is no sign of a column, nor is a colon; a tab is
PROSE_DELIMITERS = frozenset(",;: ")
MERGED_LINES, MERGED_LINES_OF_PROSE = 2, 6  # from so many on, lines with all fields of a record each are taken for rows
MERGED_SHARE = 0.9  # of the lines behind the first
LONGEST_FIELD = 2**31 - 1  # bytes; Python's csv module takes 128 KiB otherwise
RETURN_FAULT = r"\r outside quotes, where Arrow ends the row; quote the field, or take \r out, or end each line alike"
QUOTE_REMEDY = "where quotes are plain characters, set input.quote=null"


@dataclass(frozen=True)
class CsvSyntax:
    """What separates fields and records, as Arrow's CSV parser takes it.

    Attributes:
        delimiter: between fields.
        quote: begins and ends a field that may hold delimiters and newlines; doubled it is a character of the field. Anywhere
            else than at the beginning of a field it is a plain character: 5" pipe. None: everywhere.
        escape: makes the next character, whichever, a plain one of the field, quoted or not. None: there is none.
    """

    delimiter: str = ","
    quote: str | None = '"'
    escape: str | None = None

    def ends_at_newlines(self, data: bytes | bytearray) -> bool:
        """True if each newline in `data`, which begins with a record, ends a record: nothing in it is quoted or escaped."""
        return not any(mark is not None and mark.encode() in data for mark in (self.quote, self.escape))

    def fields(self, record: bytes) -> list[str]:
        """The fields of one record without its line end; bytes that are not UTF-8 are replaced."""
        csv.field_size_limit(LONGEST_FIELD)  # for the process
        reader = csv.reader(
            io.StringIO(record.decode(errors="replace"), newline=""),
            delimiter=self.delimiter,
            quotechar=self.quote,
            quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
            escapechar=self.escape,
        )
        return next(reader, [])

    def without_line_end(self, record: bytes) -> bytes:
        """A record without its newline, and without carriage returns before it that are not escaped."""
        record = record.removesuffix(b"\n")
        before = record.rstrip(b"\r")
        if self.escape is None or before == record:
            return before
        escapes = len(before) - len(before.rstrip(self.escape.encode()))
        return before + b"\r" if escapes % 2 else before

    def is_whole(self, record: bytes) -> bool:
        """True if no quoted field, and no escape, of a record is unfinished; only a file's last record can have one."""
        return self.ends_at_newlines(record) or bool(record_pattern(self).fullmatch(record + b"\n"))

    def takes_in_rows(self, record: bytes, num_columns: int) -> bool:
        """True if a record of several lines consists of lines that have all fields of a record each.

        Its quotes then are characters of two texts, and the rows between them would become part of the first. In prose a line
        may have as many delimiters as a record by chance, commas sooner than tabs, so it takes several in a row: six, or two
        of at least three columns each that tabs separate, or three. A line that is indented, or ends with a delimiter as lines
        of code and of lists do, is none.
        """
        if self.delimiter in PROSE_DELIMITERS:
            least = MERGED_LINES_OF_PROSE
        else:
            least = MERGED_LINES if num_columns > 2 else MERGED_LINES + 1
        lines, delimiter, wanted = record.count(b"\n") + 1, self.delimiter.encode(), num_columns - 1
        if self.quote is None or wanted < 1 or lines < least or record.count(delimiter) < MERGED_SHARE * lines * wanted:
            return False
        first, *others = (line.removesuffix(b"\r") for line in record.split(b"\n"))
        rows = sum(
            line.count(delimiter) == wanted
            and not (line[:1].isspace() or line.startswith((delimiter, self.quote.encode())) or line.endswith(delimiter))
            for line in others
        )
        return first.count(delimiter) == wanted and rows >= MERGED_SHARE * len(others)

    def quoting_fault(self, record: bytes, num_columns: int) -> str | None:
        """What is wrong with the quotes of a record that Arrow would accept, and the remedy; None if nothing is."""
        if self.ends_at_newlines(record):
            return RETURN_FAULT if b"\r" in record else None
        lines = record.count(b"\n") + 1
        if not self.is_whole(record):
            if self.quote is None:
                return f"{self.escape!r} is the file's last character"
            takes = f": it takes the {lines:,} lines up to the end of the file; {QUOTE_REMEDY}" if lines > 1 else ""
            return f"a quoted field has no end{takes}"
        strict = strict_record_pattern(self)
        if not strict.fullmatch(record + b"\n"):
            if strict.fullmatch(record.replace(b"\r", b" ") + b"\n"):
                return RETURN_FAULT
            remedy = "" if self.escape else "where texts have \\\" for a quote, set input.escape='\\'; "
            return f"a field has text behind its closing quote; {remedy}{QUOTE_REMEDY}"
        if self.takes_in_rows(record, num_columns):
            return f"a quoted field takes in rows: {lines:,} lines with {num_columns} fields each; {QUOTE_REMEDY}"
        return None


def csv_syntax(file: InputFile, config: InputConfig) -> CsvSyntax | None:
    """The syntax of a CSV file; None for other line formats, where each newline ends a record."""
    return CsvSyntax(csv_delimiter(file, config), config.quote, config.escape) if file.format == "csv" else None


def csv_delimiter(file: InputFile, config: InputConfig) -> str:
    """`input.delimiter`, or else a tab for .tsv and a comma for any other name."""
    return config.delimiter or ("\t" if ".tsv" in file.path.lower().rsplit("/", 1)[-1] else ",")


@cache
def record_pattern(syntax: CsvSyntax) -> re.Pattern[bytes]:
    """One record up to its newline, as Arrow finds it: text behind a closing quote is part of the field."""
    return _record_pattern(syntax, lambda quoted, plain: quoted + plain)


@cache
def strict_record_pattern(syntax: CsvSyntax) -> re.Pattern[bytes]:
    """One record whose quoted fields end with their quotes, and that has no \\r outside them, which ends a row of Arrow's.

    Where it matches it ends where record_pattern does.
    """
    delimiter = re.escape(syntax.delimiter.encode())
    return _record_pattern(syntax, lambda quoted, plain: quoted + rb"(?=" + delimiter + rb"|\r*+\n)", rb"\n\r")


def _record_pattern(
    syntax: CsvSyntax, quoted_field: Callable[[bytes, bytes], bytes], not_plain: bytes = rb"\n"
) -> re.Pattern[bytes]:
    """See record_pattern; `quoted_field` makes the pattern of such a field from those of its quoted part and of plain text.

    Args:
        not_plain: characters that no text outside quotes has.
    """
    d = re.escape(syntax.delimiter.encode())
    q = re.escape(syntax.quote.encode()) if syntax.quote else None
    e = re.escape(syntax.escape.encode()) if syntax.escape else b""
    plain = rb"[^" + d + e + not_plain + rb"]*+"
    if e:
        plain += rb"(?:" + e + rb"." + plain + rb")*+"
    field = plain
    if q:
        inner = rb"[^" + q + e + rb"]*+"
        pair = rb"(?:" + q + q + rb"|" + e + rb".)" if e else q + q
        quoted = q + inner + rb"(?:" + pair + inner + rb")*+" + q
        field = rb"(?:" + quoted_field(quoted, plain) + rb"|(?!" + q + rb")" + plain + rb")"
    return re.compile(field + rb"(?:" + d + field + rb")*+\r*+\n", re.DOTALL)
