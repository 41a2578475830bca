"""What a job does with a damaged input file, checked, in a process of its own: a parser may take the process with it.

`Worker` keeps that process; `python -m tests.fault.fuzz.fuzzed_job KIND SEED` does one case in this process, and
`python -m tests.fault.fuzz.fuzzed_job KIND FIRST STOP` a range of seeds in a worker (KIND "all": every kind).
"""

import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pyarrow as pa
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from jobs.config import JobConfig
from jobs.run.prepare import Prepared, prepare
from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.models.config import ModelConfig, ModelFacts
from pipeline_ops.models.heads import Head
from pipeline_ops.models.resolve import ResolvedModel
from pipeline_ops.reading.spans import spans_to_json
from pipeline_ops.reading.unit_sizes import UnitSizes
from pipeline_ops.row_formats.parquet_files import STREAMED_ROW_GROUP_BYTES
from pipeline_ops.schema.arrow_cells import unpack_table
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.failures import Failure
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Unit, unpack_rejects
from pipeline_ops.stages.context import StageContext
from pipeline_ops.stages.reader import read_task
from pipeline_ops.stages.rows import has_failed
from tests.fault.fuzz.checks import COMPLETE, Found, check_file
from tests.fault.fuzz.damage import ESCAPED_CSV, KINDS, damaged_file, original

LIMIT_S = 60  # a case takes 20 ms; Arrow fills 2 GiB with zeros when a page header asks for them
START_LIMIT_S = 180
CASES_PER_PROCESS = 500  # pyarrow keeps the buffer of a read that raises, and address space is limited
ADDRESS_SPACE_BYTES = 3 * 2**30  # so that an absurd allocation is a MemoryError, and no trouble for the machine
UNIT_BYTES = 16_000
READ_BYTES = 4000  # so that damage is met in the middle of reading, not at its beginning
# no document is tokenized here
FACTS = ModelFacts("model", None, "", "", 128, Head(("A", "B"), "softmax"), 0, 0, False, False)
RESOLVED = ResolvedModel(
    FACTS, SimpleNamespace(is_fast=True, backend_tokenizer=Tokenizer(WordLevel()), truncation_side="right"), None
)

REFUSED, WRONG, DIED, HUNG = "refused", "WRONG", "process died", "HUNG"


class NoAttempts:
    """The first time that anything is read."""

    def begin(self, key: str) -> int:
        return 0

    def end(self, key: str) -> None: ...


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
            outcomes[file.path] = check_file(file, found[file.path], prepared.job, damage if file.path == str(path) else "none")
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
    read = (job.input, job.storage, job.output, prepared.column_types, UnitSizes(prepared.plan.unit_bytes), "fingerprint")
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
