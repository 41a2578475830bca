"""What a job does with a damaged input file, checked, in a process of its own: a parser may take the process with it.

`Worker` keeps that process; `python -m tests.fault.fuzz.fuzzed_job KIND SEED` does one case in this process, and
`python -m tests.fault.fuzz.fuzzed_job KIND FIRST STOP` a range of seeds in a worker (KIND "all": every kind).
"""

import bz2
import csv
import io
import json
import lzma
import os
import resource
import select
import subprocess
import sys
import tempfile
import traceback
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import lz4.frame
import pyarrow as pa
import zstandard
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from jobs.config import JobConfig, ResolvedJob
from jobs.maintenance.verify import count_documents
from jobs.run.prepare import Prepared, prepare
from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.file_formats import LINE_FORMATS
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.line_formats.csv_header import csv_header
from pipeline_ops.line_formats.csv_syntax import csv_syntax
from pipeline_ops.line_formats.decoding import open_lines
from pipeline_ops.line_formats.line_records import read_record_blocks, split_records
from pipeline_ops.models.config import ModelConfig, ModelFacts
from pipeline_ops.models.heads import Head
from pipeline_ops.models.resolve import ResolvedModel
from pipeline_ops.output.commit_log import gaps
from pipeline_ops.reading.reader import spans_to_json
from pipeline_ops.row_formats.parquet_files import STREAMED_ROW_GROUP_BYTES
from pipeline_ops.schema.arrow_cells import unpack_table
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.failures import Failure
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Piece, Reject, Unit, unpack_rejects
from pipeline_ops.stages.context import StageContext
from pipeline_ops.stages.reader import read_task
from pipeline_ops.stages.rows import has_failed
from tests.fault.fuzz.damage import ESCAPED_CSV, KINDS, damaged_file, original
from tests.fault.fuzz.json_elements import elements_of
from tests.fault.fuzz.row_truth import READERS, texts_of_rows

LIMIT_S = 60  # a case takes 20 ms; Arrow fills 2 GiB with zeros when a page header asks for them
START_LIMIT_S = 60
CASES_PER_PROCESS = 500  # pyarrow keeps the buffer of a read that raises, and address space is limited
ADDRESS_SPACE_BYTES = 3 * 2**30  # so that an absurd allocation is a MemoryError, and no trouble for the machine
UNIT_BYTES = 16_000
READ_BYTES = 4000  # so that damage is met in the middle of reading, not at its beginning
# no document is tokenized here
FACTS = ModelFacts("model", None, "", "", 128, Head(("A", "B"), "softmax"), 0, 0, False, False)
RESOLVED = ResolvedModel(FACTS, SimpleNamespace(backend_tokenizer=Tokenizer(WordLevel()), truncation_side="right"), None)

MEMBERS: dict[str, Callable[[], Any]] = {
    "gzip": partial(zlib.decompressobj, wbits=31),
    "bz2": bz2.BZ2Decompressor,
    "xz": lzma.LZMADecompressor,
    "lz4": lz4.frame.LZ4FrameDecompressor,
}
COMPLETE, PARTIAL, REFUSED, WRONG, DIED, HUNG = "complete", "partial", "refused", "WRONG", "process died", "HUNG"


class NoAttempts:
    """The first time that anything is read."""

    def begin(self, key: str) -> int:
        return 0

    def end(self, key: str) -> None: ...


@dataclass(frozen=True)
class Found:
    """What reading gave of one file."""

    pieces: list[Piece]
    failures: list[Failure]
    texts: dict[int, Any]  # by row
    rejects: list[Reject]


def examine(kind: str, seed: int, folder: Path) -> str:
    """Reads the damaged file as a job does, every fourth time beside a good one. Returns COMPLETE, PARTIAL or REFUSED.

    Raises:
        Exception: anything else than these came of it; an AssertionError if it was wrong.
    """
    data, damage = damaged_file(kind, seed)
    path = folder / f"a-{kind}"
    path.write_bytes(data)
    good = folder / f"b-{kind}"
    if beside := seed % 4 == 3:
        good.write_bytes(original(kind).data)
    job = JobConfig(
        input=InputConfig(
            path=str(folder),
            text_unit="file" if ".txt" in kind and seed % 5 == 4 else "line",
            escape="\\" if kind == ESCAPED_CSV else None,
        ),
        model=ModelConfig(path="model"),
        output=OutputConfig(path=str(folder) + "-out", columns=("all", "none", ("id",))[seed % 3], partition_by=()),
    )
    if ".txt" in kind and seed % 3 == 2:
        job = job.model_copy(update={"output": job.output.model_copy(update={"columns": "all"})})
    job = job.model_copy(update={"compute": job.compute.model_copy(update={"unit_bytes": UNIT_BYTES})})
    with mock.patch(
        "pipeline_ops.row_formats.parquet_files.STREAMED_ROW_GROUP_BYTES", 1 if seed % 2 else STREAMED_ROW_GROUP_BYTES
    ):
        prepared = _prepare(job)
        if isinstance(prepared, str):
            assert "\n" not in prepared, f"not one line: {prepared}"
            assert not beside or "cannot be read" not in prepared, f"the good file is not read: {prepared}"
            return REFUSED
        found = _read(prepared)
    outcomes = {}
    for file in prepared.files:
        try:
            outcomes[file.path] = _check(file, found[file.path], prepared.job, damage if file.path == str(path) else "none")
        except AssertionError as error:
            error.add_note(f"{file.path}, {damage}; failures: {[f.message for f in found[file.path].failures]}")
            raise
    if beside:
        assert outcomes[str(good)] == COMPLETE, f"the good file: {outcomes[str(good)]}"
    return outcomes[str(path)]


def _prepare(job: JobConfig) -> Prepared | str:
    """The job, checked, or why it is refused."""
    try:
        return prepare(job, leased=False)
    except UserError as refusal:
        return str(refusal)


def _read(prepared: Prepared) -> dict[str, Found]:
    """What read tasks pass on, by file."""
    job = prepared.job
    read = (job.input, job.storage, job.output, prepared.column_types, prepared.plan.unit_bytes, "fingerprint")
    context = StageContext(*read, models=(), batch_tokens=0, use_gpu=False)
    found: dict[str, Found] = defaultdict(lambda: Found([], [], {}, []))
    for spans in prepared.plan.tasks:
        for row in read_task(pa.table({"task": [spans_to_json(list(spans))]}), context, NoAttempts()):
            if has_failed(row):
                failure = Failure.from_json(row["failure"][0].as_py())
                assert not failure.store, failure.message
                assert len(failure.message.splitlines()) == 1, f"not one line: {failure.message!r}"
                for piece in failure.pieces:
                    found[piece.path].failures.append(replace(failure, pieces=(piece,)))
                continue
            unit = Unit.from_json(row["unit"][0].as_py())
            table = unpack_table(row["documents"][0])
            rejects = unpack_rejects(row["rejects"][0].as_py())
            for piece in unit.pieces:
                found[piece.path].pieces.append(piece)
            rows_of = defaultdict(set)
            for piece in unit.pieces:
                rows_of[piece.path] |= set(range(piece.start_row, piece.stop_row))
            columns = (table[name].to_pylist() for name in ("source_file", "source_row"))
            for place, text in zip(zip(*columns, strict=True), table[job.input.text_column], strict=True):
                assert place[1] in rows_of[place[0]], f"row {place[1]} in unit {unit}"
                assert place[1] not in found[place[0]].texts, f"row {place[1]} twice"
                found[place[0]].texts[place[1]] = text.as_py()
            for reject in rejects:
                assert reject.source_row in rows_of[reject.source_file], f"reject {reject} in unit {unit}"
                found[reject.source_file].rejects.append(reject)
    return found


def _check(file: InputFile, found: Found, job: ResolvedJob, damage: str) -> str:
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


def serve() -> None:
    """Does the cases that come as lines on stdin; answers each with a line on stdout."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        kind, seed = json.loads(line)
        print(json.dumps(outcome_of(kind, seed)), file=answers, flush=True)


def outcome_of(kind: str, seed: int) -> tuple[str, str]:
    """(outcome, what is wrong)"""
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch("jobs.run.prepare.resolve_model", return_value=RESOLVED),
        mock.patch("pipeline_ops.line_formats.line_records.STREAM_CHUNK_BYTES", READ_BYTES),
        mock.patch("pipeline_ops.line_formats.decoding.HEAD_BYTES", READ_BYTES),
        mock.patch("pipeline_ops.reading.input_schema.TYPE_SAMPLE_BYTES", READ_BYTES),
    ):
        try:
            return examine(kind, seed, Path(folder)), ""
        except Exception:
            return WRONG, traceback.format_exc()


class Worker:
    """A process that does cases one by one, started again when it has died or hangs."""

    def __init__(self, folder: Path):
        self.log = folder / "worker.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.cases = 0

    def do(self, kind: str, seed: int) -> tuple[str, str]:
        """(outcome, what is wrong or how the process died)"""
        if self.cases % CASES_PER_PROCESS == 0:
            self.stop()
        self.cases += 1
        process = self.process or self._start()
        assert process.stdin is not None
        process.stdin.write(json.dumps([kind, seed]).encode() + b"\n")
        process.stdin.flush()
        answer = self._answer(LIMIT_S)
        if answer is None:
            self.stop()
            return HUNG, f"no answer within {LIMIT_S} s"
        if not answer:
            code = process.wait()
            self.process = None
            return DIED, f"exit code {code}: {self.log.read_text(errors='replace')[-500:]}"
        outcome, why = json.loads(answer)
        return outcome, why

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.fault.fuzz.fuzzed_job"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self._answer(START_LIMIT_S) == b"ready\n", self.log.read_text()
        return self.process

    def _answer(self, limit_s: float) -> bytes | None:
        """A line; None if none comes in time, b"" if none will come."""
        assert self.process is not None
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], limit_s)
        return self.process.stdout.readline() if ready else None

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def do_cases(cases: Iterable[tuple[str, int]], worker: Worker) -> tuple[Counter[str], list[str]]:
    """(cases by outcome, a text about each that went wrong or took the process with it)"""
    outcomes: Counter[str] = Counter()
    remarkable = []
    for kind, seed in cases:
        outcome, why = worker.do(kind, seed)
        outcomes[outcome] += 1
        if why:
            remarkable.append(f"{kind} {seed}: {outcome}: {why}")
    return outcomes, remarkable


def main(arguments: list[str]) -> None:
    if not arguments:
        return serve()
    if len(arguments) == 2:
        return print(*outcome_of(arguments[0], int(arguments[1])), sep="\n")
    kinds = KINDS if arguments[0] == "all" else arguments[:1]
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(Path(folder))
        for kind in kinds:
            outcomes, remarkable = do_cases([(kind, seed) for seed in range(int(arguments[1]), int(arguments[2]))], worker)
            print(kind, dict(outcomes), *remarkable, sep="\n", flush=True)
        worker.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
