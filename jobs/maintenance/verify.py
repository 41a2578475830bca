"""`label-corpus verify`: recounts the input against the commits and the files. Reads the input, loads no model."""

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.config import JobConfig
from jobs.console.step_progress import Steps
from jobs.maintenance.verify_table import compare_table, is_right, table_line
from jobs.number_format import counted
from jobs.results.reading_snippets import TABLE_SWITCHED_OFF, has_replaced_files
from jobs.run.result import some_mostly_rejected
from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.inputs.listing import find_inputs
from pipeline_ops.inputs.part import InputPart
from pipeline_ops.joining.parts import open_parts, part_with, parts_of
from pipeline_ops.line_formats.line_records import STREAM_CHUNK_BYTES
from pipeline_ops.output.commit_log import gaps, garbage_files, overlaps, pieces_by_file, read_job, read_ledger
from pipeline_ops.output.committed_files import read_written_bytes
from pipeline_ops.output.failed_units import outdated_failures, read_failures
from pipeline_ops.output.integrity import VerifyState, check_commit
from pipeline_ops.output.labeled_output import Labeled
from pipeline_ops.output.mostly_rejected import mostly_rejected
from pipeline_ops.planning.first_documents import document_blocks, first_documents
from pipeline_ops.publishing.kept_files import kept_files
from pipeline_ops.publishing.open_table import open_table
from pipeline_ops.row_formats.row_files import ROW_FORMATS, open_row_file
from pipeline_ops.schema.errors import UserError, is_store_fault, one_line, store_errors
from pipeline_ops.schema.units import Range
from pipeline_ops.storage.etags import MD5_ETAG
from pipeline_ops.storage.store import Store, StoredFile
from pipeline_ops.writing.commit_record import Commit, WrittenFile

MAX_LISTED = 100


def verify(job: JobConfig, *, deep: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Checks that each input document occurs exactly once in labeled + rejected, and that the committed files are intact.

    Of a trial's output, the input documents are the first ones of the input, as many as the trial was limited to.

    Args:
        deep: also read the committed files (integrity.check_commit).

    Returns:
        documents (recounted from the input), labeled and rejected (from the commits), and the lists missing, doubled,
        unreferenced, broken, failed and removed, whose entries name the path; in missing and doubled a file has one entry.
        `table`: what compare_table returns; table_switched_off: there is one that runs no longer publish. `ok` is true if all
        but `removed` are empty, and the table has the committed files. files_mostly_rejected and mostly_rejected, as in
        RunResult: all their rows are accounted for, so `ok` does not depend on them. With `deep`, `files_read`, and
        files_widened: input files of whose rows some have columns, or fields of objects, that others lack, since they were
        first seen late. `limit`: of a trial.

    Raises:
        UserError: the input or the output cannot be read.
        StoreError: the object store kept failing.
    """
    with Steps("verify", quiet=quiet) as steps:
        return _verify(job, deep, steps)


def _verify(job: JobConfig, deep: bool, steps: Steps) -> dict[str, Any]:
    steps.begin("listing inputs and commits")
    store = job.output_store
    try:
        output = _recorded(store)
        ledger, record = output.ledger, output.record
        failures = [failure for one in output.stores for failure in read_failures(one)]
        listed, _ = find_inputs(job.input, job.input_store, ledger.input_paths)
        outdated = outdated_failures(failures, {file.path: file.stored for file in listed})
        failures = [failure for failure in failures if failure not in outdated]
        trial = record.get("trial")
        files = listed if trial is None else first_documents(listed, trial["limit"], job.input, job.input_store).files
    except store_errors() as error:
        raise UserError(f"{job.input.path!r} or {store.path!r} cannot be read: {type(error).__name__}: {error}") from error
    outputs = output.parts or (output,)
    current = ledger.current
    pieces = pieces_by_file(current.values())
    quarantined = {piece.path for failure in failures for piece in failure.pieces}
    missing, doubled = [], []
    documents = 0
    steps.begin("recounting the input", sum(file.stored.size for file in files), is_bytes=True)
    for number, file in enumerate(files, 1):
        found = [piece for piece in pieces.get(file.path, []) if piece.identity == file.stored.identity]
        changed = len(found) < len(pieces.get(file.path, []))
        open_ranges = gaps(found, file.rows)
        if open_ranges:
            what = "has changed since it was labeled and not been labeled again" if changed else "not labeled yet"
            remedy = _remedy(file.path in quarantined, "join" in record, part_with(output, file.path))
            missing.append(f"{file.path}: {what} ({_rows_of(open_ranges)}); {remedy}")
        elif changed:
            missing.append(f"{file.path}: has changed since it was labeled")
        both = [Range(right.start_row, min(left.stop_row, right.stop_row)) for left, right in overlaps(found)]
        if both:
            doubled.append(f"{file.path}: {_rows_of(both)}")
        try:
            documents += count_documents(file, job.input, job.input_store, steps.add)
        except Exception as error:  # a broken file can make the parsers raise anything
            if is_store_fault(error):
                raise
            if not (open_ranges or changed):
                missing.append(f"{file.path}: cannot be read: {one_line(error)}")
        steps.add(0, f"{number:,} of {counted(len(files), 'file')}")
    labeled = sum(commit.labeled for commit in current.values())
    rejected = sum(commit.rejected for commit in current.values())
    removed = sorted(set(pieces).difference(file.path for file in listed))
    if not removed and not missing and labeled + rejected != documents:
        where = "input" if trial is None else f"first {trial['limit']} of the input"
        missing.append(
            f"{store.path}: documents are missing: {documents:,} in the {where}, {labeled:,} labeled and {rejected:,} rejected"
        )
    steps.begin("checking the committed files", sum(len(commit.all_files()) for commit in current.values()), item="file")
    wrong = dict(_broken_files(store, current, steps))
    broken = [f"{name}: {what}" for name, what in wrong.items()]
    deep_facts = {}
    if deep:
        state = VerifyState()
        to_read = [file for commit in current.values() for file in commit.all_files() if file.path not in wrong]
        columns = output.columns if "config" in record else job.output_columns()
        steps.begin("reading the committed files", sum(file.bytes for file in to_read), is_bytes=True)
        read = itertools.count(1)
        for commit in current.values():
            broken += check_commit(
                store,
                commit,
                columns,
                state,
                known_broken=wrong,
                on_file=lambda file: steps.add(file.bytes, counted(next(read), "file")),
            )
        if not wrong and state.documents != labeled + rejected:
            broken.append(
                f"{store.path}: {counted(state.documents, 'document')} in its files, its commits say {labeled + rejected}"
            )
        deep_facts = {"files_read": len(to_read), "files_widened": len(state.widened)}
    rejected_files = mostly_rejected(files, ledger.commits, job.input.max_reject_share)
    table = compare_table(store, outputs, job.output)
    unreferenced = [
        store.relative(file.path)
        for one in outputs
        for file in garbage_files(
            one.store, one.ledger, partial(kept_files, one.store, job.output, open_table(one.store, job.output))
        )
    ]
    failed = [str(failure) for failure in failures]
    return {
        "ok": not (missing or doubled or unreferenced or broken or failed) and is_right(table),
        "documents": documents,
        "labeled": labeled,
        "rejected": rejected,
        "units": len(current),
        "files": len(files),
        "missing": missing,
        "doubled": doubled,
        "unreferenced": unreferenced,
        "broken": list(dict.fromkeys(broken)),
        "failed": failed,
        "table": table,
        "table_switched_off": table is None and any(map(has_replaced_files, outputs)),
        **deep_facts,
        **(trial or {}),
        "removed": removed,
        "files_mostly_rejected": len(rejected_files),
        "mostly_rejected": [str(one) for one in rejected_files[:MAX_LISTED]],
        "output": store.path,
    }


def _recorded(store: Store) -> Labeled:
    """What is committed; of a split job by all its parts, some of which may have no labels. `record` is {} before a commit."""
    parts = parts_of(store)
    if parts:
        return open_parts(store, parts, allow_missing=True)
    ledger = read_ledger(store)
    return Labeled(store, read_job(store) or {}, ledger)


def _remedy(quarantined: bool, joined: bool, part: InputPart | None) -> str:
    if joined:
        return "label them with each model, then `join`"
    where = "" if part is None else f" of its part's job file, {part.name}.yaml where `split` wrote it,"
    return f"`run{' --retry-failed' if quarantined else ''}`{where} labels them"


def _rows_of(ranges: Sequence[Range]) -> str:
    """all rows; rows 5 to 9; rows 5 to 9, 20 to the end."""
    if ranges[0].start_row == 0 and ranges[0].stop_row is None:
        return "all rows"
    ends = ["the end" if rows.stop_row is None else str(rows.stop_row - 1) for rows in ranges]
    return "rows " + ", ".join(f"{rows.start_row} to {end}" for rows, end in zip(ranges, ends, strict=True))


def count_documents(
    file: InputFile, config: InputConfig, store: Store, on_bytes: Callable[[int], None] = lambda done: None
) -> int:
    """Counts the documents in an input file's rows, rejects included, independently of the commits.

    Parquet by its footer, the others by reading them.

    Args:
        on_bytes: called with the number of bytes done since the last call; they add up to the size of the file.
    """
    left = file.stored.size
    if file.format == "parquet":
        with store.open(file.stored, sequential=False) as source:
            rows = pq.read_metadata(source).num_rows
        on_bytes(left)
        return rows if file.stop_row is None else min(rows, file.stop_row)
    if file.format in ROW_FORMATS:
        total = 0
        with open_row_file(file, store) as source:
            for block in source.read_blocks(file.rows, STREAM_CHUNK_BYTES, config.text_columns):
                total = block.stop_row
                done = min(block.stored[1] - block.stored[0], left)
                left -= done
                on_bytes(done)
        on_bytes(left)
        return total
    if file.format == "text" and config.text_unit == "file":
        on_bytes(left)
        return 1
    total = 0
    for block, which in document_blocks(file, config, store, STREAM_CHUNK_BYTES):
        total += sum(which)
        if file.compression is None:  # else the blocks are larger than the bytes read for them
            done = min(len(block.data), left)
            left -= done
            on_bytes(done)
    on_bytes(left)
    return total


def _broken_files(store: Store, commits: dict[str, Commit], steps: Steps) -> Iterator[tuple[str, str]]:
    """Yields (path, what is wrong) of committed files that are missing, or whose size, etag or number of rows is not the
    committed one, and of units whose files have other numbers of rows than their commit."""
    found = {file.path: file for file in store.list_all()}
    for commit in commits.values():
        for file in commit.all_files():
            steps.add()
            path = store.join(file.path)
            if path not in found:
                yield file.path, f"missing, named by unit {commit.unit}"
            elif found[path].size != file.bytes:
                yield file.path, f"{counted(found[path].size, 'byte')}, its commit says {file.bytes}"
            elif (
                MD5_ETAG.fullmatch(found[path].identity)
                and found[path].identity != file.md5
                and not _has_committed_bytes(store, file)
            ):
                yield file.path, "not the bytes that were written (MD5)"
            elif (rows := _rows(store, found[path])) != file.rows:
                read = counted(rows, "row") if isinstance(rows, int) else rows
                yield file.path, f"{read}, its commit says {counted(file.rows, 'row')}"
        labeled = sum(file.rows for file in commit.files)
        if labeled != commit.labeled:
            yield f"unit {commit.unit}", f"{counted(labeled, 'row')} in its files, {commit.labeled} labeled"


def _has_committed_bytes(store: Store, file: WrittenFile) -> bool:
    """Reads the file: with some kinds of encryption its etag is no MD5."""
    try:
        read_written_bytes(store, file)
    except store_errors():
        return False
    return True


def _rows(store: Store, file: StoredFile) -> int | str:
    if file.path.endswith(".jsonl"):
        return store.read_files([file])[0].count(b"\n")
    with store.open(file, sequential=False) as source:
        try:
            return pq.read_metadata(source).num_rows
        except (OSError, pa.ArrowInvalid) as error:
            return f"unreadable ({error})"


def print_report(report: dict[str, Any]) -> None:
    """Prints a report for people, on stderr."""
    if "limit" in report:
        print(f"a trial: checked against the first {counted(report['limit'], 'document')} of the input", file=sys.stderr)
    for kind in ("missing", "doubled", "unreferenced", "broken", "failed", "removed"):
        for line in itertools.islice(report[kind], MAX_LISTED):
            print(line if kind == "missing" else f"{kind}: {line}", file=sys.stderr)  # a missing row's line says what to do
        if len(report[kind]) > MAX_LISTED:
            print(f"{kind}: and {len(report[kind]) - MAX_LISTED} more", file=sys.stderr)
    if not is_right(report["table"]):
        print(table_line(report["table"]), file=sys.stderr)
    if report["table_switched_off"]:
        print(TABLE_SWITCHED_OFF, file=sys.stderr)
    if report.get("files_widened"):
        count = counted(report["files_widened"], "input file")
        print(
            f"later rows of {count} have further columns or fields: read the output with labels(), or in DuckDB with"
            f" union_by_name = true",
            file=sys.stderr,
        )
    if report["files_mostly_rejected"]:
        print(some_mostly_rejected(report), file=sys.stderr)
