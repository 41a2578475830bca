"""What is checked of a damaged file that has been read: each row accounted for once, with the text that other parsers find."""

import bz2
import csv
import io
import json
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lz4.frame
import pyarrow as pa
import zstandard

from jobs.config import ResolvedJob
from jobs.maintenance.verify import count_documents
from pipeline_ops.inputs.file_formats import LINE_FORMATS
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.line_formats.csv_header import csv_header
from pipeline_ops.line_formats.csv_syntax import csv_syntax
from pipeline_ops.line_formats.decoding import open_lines
from pipeline_ops.line_formats.line_records import read_record_blocks, split_records
from pipeline_ops.output.commit_log import gaps
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.failures import Failure
from pipeline_ops.schema.units import Piece, Reject
from tests.fault.fuzz.json_elements import elements_of
from tests.fault.fuzz.row_truth import READERS, texts_of_rows

COMPLETE, PARTIAL = "complete", "partial"
MEMBERS: dict[str, Callable[[], Any]] = {
    "gzip": partial(zlib.decompressobj, wbits=31),
    "bz2": bz2.BZ2Decompressor,
    "xz": lzma.LZMADecompressor,
    "lz4": lz4.frame.LZ4FrameDecompressor,
}


@dataclass(frozen=True)
class Found:
    """What reading gave of one file."""

    pieces: list[Piece]
    failures: list[Failure]
    texts: dict[int, Any]  # by row
    rejects: list[Reject]


def check_file(file: InputFile, found: Found, job: ResolvedJob, damage: str) -> str:
    """Whether a file's rows are all accounted for, once."""
    failed = [piece for failure in found.failures for piece in failure.pieces]
    pieces = sorted([*found.pieces, *failed], key=lambda piece: (piece.start_row, piece.stop_row))
    assert not gaps(pieces), f"gaps {gaps(pieces)} in {pieces}"
    row = 0
    for piece in pieces:
        assert piece.start_row == row, f"{pieces} overlap or leave a gap at row {row}"
        assert piece.stop_row >= row, f"{piece} runs backwards"
        row = piece.stop_row
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True], f"another last piece: {pieces}"
    if file.format != "parquet":
        assert len(found.failures) <= 1, f"{len(found.failures)} failures"
    rejected = [reject.source_row for reject in found.rejects]
    assert len(set(rejected)) == len(rejected), "a row rejected twice"
    assert not set(rejected) & set(found.texts), "a row labeled and rejected"
    expected = _count(file, job)
    if isinstance(expected, str):
        assert found.failures, f"all was read, but counting raised {expected}"
        return PARTIAL
    accounted = len(found.texts) + len(found.rejects)
    if found.failures:
        assert accounted <= expected, f"{accounted} documents and rejects, {expected} in the file"
    else:
        assert accounted == expected, f"{accounted} documents and rejects, {expected} in the file"
    if file.format == "parquet":
        whole = sum(piece.stop_row - piece.start_row for piece in found.pieces)
        assert accounted == whole, f"{accounted} documents and rejects, {whole} rows in pieces"
    elif not found.failures and (file.format in LINE_FORMATS or file.compression):
        _check_whole_stream(file, damage)
    if file.format in READERS:
        _check_rows(file, found)
    if file.format in LINE_FORMATS and job.input.text_unit == "line":
        _check_texts(file, found, job)
    if file.format == "jsonl":
        _check_elements(file, found, job)
    return PARTIAL if found.failures else COMPLETE


def _count(file: InputFile, job: ResolvedJob) -> int | str:
    """The file's documents, or what `verify` reports when it cannot count them."""
    try:
        return count_documents(file, job.input, job.input_store)
    except Exception as error:  # as verify
        return repr(error)


def _check_whole_stream(file: InputFile, damage: str) -> None:
    """Whether other decompressors too find nothing wrong with a file of which all was read."""
    data = Path(file.path).read_bytes()
    assert file.compression is None or damage != "truncated" or not data, "a truncated file was read to its end"
    if file.compression == "zstd":
        assert _zstd_frames_end(data) == len(data), "zstd: the frames end elsewhere than the file"
    elif file.compression:
        while data:
            member = MEMBERS[file.compression]()
            member.decompress(data)
            assert member.eof, f"{file.compression}: ends within a member"
            data = member.unused_data
            if file.compression in ("gzip", "xz"):
                data = data.lstrip(b"\0")  # padding


def _zstd_frames_end(data: bytes) -> int:
    """Where the last whole zstd frame ends (RFC 8878)."""
    position = 0
    while data[position : position + 4] == b"\x28\xb5\x2f\xfd":
        descriptor = data[position + 4]
        single = bool(descriptor & 0x20)
        size_bytes = (int(single), 2, 4, 8)[descriptor >> 6]
        at = position + 5 + (not single) + (0, 1, 2, 4)[descriptor & 3] + size_bytes
        last = False
        while not last:
            header = int.from_bytes(data[at : at + 3], "little")
            last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
            at += 3 + (1 if kind == 1 else size)
            if at > len(data):
                return position
        position = at + (4 if descriptor & 4 else 0)
    return position


def _check_texts(file: InputFile, found: Found, job: ResolvedJob) -> None:
    """Whether each row has the text that Python's own parsers find in that line, where they do find one."""
    header, start = csv_header(file, job.input, job.input_store) if file.format == "csv" else ([], 0)
    syntax = csv_syntax(file, job.input)
    lines: list[bytes] = []
    try:
        with open_lines(file, job.input, job.input_store, start) as stream:
            for block in read_record_blocks(stream, target_bytes=1, syntax=syntax, start_byte=start):
                lines += split_records(block, syntax)
    except (OSError, UserError, pa.ArrowException):
        pass  # the lines before are checked
    for row, text in found.texts.items():
        line = lines[row]
        if syntax is not None:
            # strict: text behind a closing quote is an error
            reader = csv.reader(io.StringIO(line.decode(), newline=""), escapechar=syntax.escape, strict=True)
            fields = next(reader, [])
            expected = dict(zip(header, fields, strict=False)).get("text", text)
        elif file.format == "jsonl":
            try:
                expected = json.loads(line.decode()).get("text")
            except ValueError:
                expected = text
        else:
            expected = line.decode()
        assert expected == text, f"row {row} is {line!r}, read as {text!r}"


def _check_rows(file: InputFile, found: Found) -> None:
    """Whether each row has the text that another reader finds, and there are as many if nothing failed."""
    texts = texts_of_rows(Path(file.path).read_bytes(), file.format)
    for row, text in found.texts.items():
        if row < len(texts):
            expected = texts[row]
            expected = expected.decode() if isinstance(expected, bytes) else expected
            assert expected == text, f"row {row} is {expected!r}, read as {text!r}"
    if not found.failures:
        assert len(found.texts) + len(found.rejects) == len(texts), f"{len(texts)} rows by another reader"


def _check_elements(file: InputFile, found: Found, job: ResolvedJob) -> None:
    """Whether the elements of an array are those that elements_of finds, and all that stand before the damage are labeled."""
    data = Path(file.path).read_bytes()
    try:
        with open_lines(file, job.input, job.input_store) as stream:
            decoding = stream.decoding
        if decoding.compression:
            data = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    except (UserError, OSError, zstandard.ZstdError):
        return  # its bytes are damaged, not its structure
    if decoding.layout is None or decoding.encoding or decoding.carriage_returns:
        return
    elements, whole = elements_of(data, decoding.layout)
    assert whole == (not found.failures), f"whole: {whole}"
    stop = max((piece.stop_row for piece in found.pieces), default=0)
    blank = [row for row, element in enumerate(elements) if not element.strip()]
    accounted = sorted([*found.texts, *(reject.source_row for reject in found.rejects)])
    assert accounted == [row for row in range(len(elements)) if row not in blank], f"{stop} rows, {len(elements)} elements"
    for row, text in found.texts.items():
        expected = json.loads(elements[row].decode())["text"]
        assert expected == text, f"row {row} is {elements[row]!r}, read as {text!r}"
