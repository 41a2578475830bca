"""The commit log: which units are labeled, which rows remain, and which files are part of the output.

It follows Delta Lake's transaction log (Armbrust et al., Delta Lake, VLDB 2020): immutable records that are only ever created,
by conditional puts, and checkpoints of many records.

- A loose record is `_commits/<unit>.json`, or `_commits/<unit>-<term>.json` once there is a pack of that term.
- A pack, `_commits/pack-<term>.jsonl.zst`, is a checkpoint: all records that were current when it was written, by the holder of
  the lease of that term (lease.py).
- The newest pack is a fence: loose records of another term than its own are void.

A run that takes over from a holder that did not release its lease writes a pack first (lease.hold_lease). Whatever the earlier
holder still creates or deletes has names of an earlier term, so it need not be known to be dead; the term is a fencing token as
in Kleppmann, How to do distributed locking (2016).

Guarantee: at any moment every row belongs to at most one current commit. Readers that need exactly the committed rows read the
files that `current_commits` names. After a finished run a plain glob of the partitions gives the same files, because all others
have been deleted.
"""

import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pyarrow as pa

from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.schema.misfits import MISFITS_FOLDER
from pipeline_ops.schema.units import END_OF_FILE, Piece, Range
from pipeline_ops.storage.store import TEMPORARY_PREFIX, Store, StoredFile
from pipeline_ops.writing.commit_record import Commit
from pipeline_ops.writing.unit_files import REJECTS_FOLDER

COMMITS_FOLDER = "_commits"
JOB_FILE = "_job.json"
OUR_FILE = re.compile(r"[0-9a-f]{24}-[0-9a-f]{12}(-\d+){0,2}\.(parquet|jsonl)")
RECORD = re.compile(r"[0-9a-f]{24}(?:-(\d{10}))?\.json")
PACK = re.compile(r"pack-(\d{10})\.jsonl\.zst")
LOOSE_RECORDS = 1000  # more than these are packed: reading each costs a request
RECORDS_PER_READ = 4096  # held as bytes while they are parsed
MAX_LISTINGS = 20  # the log is listed again when records were packed between listing and reading


@dataclass
class Ledger:
    """The commit log in memory. A run that commits keeps it up to date."""

    commits: dict[str, Commit] = field(default_factory=dict)  # by unit id; replaced ones included
    packed: set[str] = field(default_factory=set)  # names of the commits in the newest pack
    pack_term: int = 0  # of the newest pack; 0: there is none

    @property
    def loose(self) -> int:
        """Number of records outside the pack."""
        return sum(commit.name not in self.packed for commit in self.commits.values())

    @property
    def current(self) -> dict[str, Commit]:
        return current_commits(self.commits)

    @property
    def input_paths(self) -> set[str]:
        """Of the files that have labels or rejects in the output."""
        return {piece.path for commit in self.current.values() for piece in commit.pieces}


def read_ledger(store: Store) -> Ledger:
    """Reads every commit record that is not void.

    Raises:
        OSError: the store cannot be read, or a record is malformed.
    """
    for _ in range(MAX_LISTINGS):
        listed = store.list_all(COMMITS_FOLDER)
        try:
            return _read_listed(store, listed)
        except OSError:
            if store.list_all(COMMITS_FOLDER) == listed:  # else a running job has packed or deleted records
                raise
    raise OSError(f"{store.join(COMMITS_FOLDER)}: changed {MAX_LISTINGS} times while it was read")


def _read_listed(store: Store, listed: list[StoredFile]) -> Ledger:
    packs = sorted((int(match.group(1)), file) for file in listed if (match := PACK.fullmatch(_file_name(file))))
    ledger = Ledger()
    if packs:
        ledger.pack_term, pack = packs[-1]
        (content,) = store.read_files([pack])
        for line in _lines(content, pack.path):
            commit = _parse(line, pack.path)
            ledger.commits[commit.unit] = commit
            ledger.packed.add(commit.name)
    loose = [file for file in listed if _is_valid(_file_name(file), ledger.pack_term)]
    for start in range(0, len(loose), RECORDS_PER_READ):
        files = loose[start : start + RECORDS_PER_READ]
        for file, content in zip(files, store.read_files(files), strict=True):
            commit = _parse(content, file.path)
            ledger.commits[commit.unit] = commit
    return ledger


def _is_valid(name: str, pack_term: int) -> bool:
    """Whether the name is that of a loose record of the pack's term."""
    record = RECORD.fullmatch(name)
    return record is not None and int(record.group(1) or 0) == pack_term


def _record_name(unit: str, pack_term: int) -> str:
    return f"{unit}-{pack_term:010}.json" if pack_term else f"{unit}.json"


def _file_name(file: StoredFile) -> str:
    return file.path.rsplit("/", 1)[-1]


def _parse(record: bytes, path: str) -> Commit:
    try:
        return Commit.from_json(record)
    except (ValueError, TypeError, KeyError) as error:
        raise OSError(f"{path} is no commit record: {type(error).__name__}: {error}") from error


def _lines(content: bytes, path: str) -> Iterator[bytes]:
    try:
        with pa.CompressedInputStream(pa.BufferReader(content), "zstd") as stream:
            yield from io.BufferedReader(stream)
    except (OSError, pa.ArrowInvalid) as error:
        raise OSError(f"{path} cannot be decompressed: {error}") from error


def current_commits(commits: dict[str, Commit]) -> dict[str, Commit]:
    """The commits that no other commit replaces."""
    replaced = {name for commit in commits.values() for name in commit.replaces}
    return {unit: commit for unit, commit in commits.items() if commit.name not in replaced}


def commit_unit(store: Store, ledger: Ledger, commit: Commit) -> bool:
    """Creates the commit record and adds it to the ledger.

    The caller holds the lease and has called Lease.check just before. Creating the record is the only step that makes the
    unit's files part of the output: before it, and if it fails, they are garbage.

    Returns:
        False if another attempt at the unit is committed already.

    Raises:
        OSError: the store cannot be written, or the record exists although the ledger does not have it.
    """
    assert commit.term >= ledger.pack_term, "the lease is older than the newest pack"
    if commit.unit in ledger.commits:
        return ledger.commits[commit.unit].attempt == commit.attempt
    name = f"{COMMITS_FOLDER}/{_record_name(commit.unit, ledger.pack_term)}"
    commit = replace(commit, replaces=_all_replaced(commit, ledger))
    if not store.put_new(name, commit.to_json().encode()):
        raise OSError(f"{store.join(name)}: a commit of another run that this one has not seen")
    ledger.commits[commit.unit] = commit
    return True


def _all_replaced(commit: Commit, ledger: Ledger) -> tuple[str, ...]:
    """The commits it replaces, and the packed ones that those replace: loose records are deleted, packed ones are not."""
    replaced = [ledger.commits.get(name.rpartition("-")[0]) for name in commit.replaces]
    earlier = {name for older in replaced if older and older.name in commit.replaces for name in older.replaces}
    return (*commit.replaces, *sorted((earlier & ledger.packed).difference(commit.replaces)))


def write_pack(store: Store, ledger: Ledger, term: int) -> None:
    """Puts all current records into one object, which voids whatever earlier terms may still commit.

    Loose records stay until the next sweep; they are in the pack as well, or void.

    Args:
        term: of the lease that the caller holds.
    """
    assert term >= ledger.pack_term, "the lease is older than the newest pack"
    sink = pa.BufferOutputStream()
    current = ledger.current
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        for commit in current.values():
            if commit.pieces:  # else a tombstone: what it replaces is not in the pack either
                stream.write(commit.to_json().encode() + b"\n")
    store.put(f"{COMMITS_FOLDER}/pack-{term:010}.jsonl.zst", sink.getvalue().to_pybytes())
    ledger.commits = {unit: commit for unit, commit in current.items() if commit.pieces}
    ledger.packed, ledger.pack_term = {commit.name for commit in ledger.commits.values()}, term


def pieces_by_file(commits: Iterable[Commit]) -> dict[str, list[Piece]]:
    """Each input file's committed pieces, in row order."""
    found: dict[str, list[Piece]] = defaultdict(list)
    for commit in commits:
        for piece in commit.pieces:
            found[piece.path].append(piece)
    for pieces in found.values():
        pieces.sort(key=lambda piece: (piece.start_row, piece.stop_row))
    return found


def gaps(pieces: list[Piece], rows: Range = Range(0, None)) -> list[Range]:
    """The ranges of `rows` that `pieces`, in row order, do not cover; [] for a complete file.

    Args:
        rows: of the file, from its first one on; by default all.
    """
    open_ranges = []
    row = byte = 0
    complete = False
    for piece in pieces:
        if piece.start_row > row:
            open_ranges.append(Range(row, piece.start_row, byte, piece.start_byte))
        row, byte = max(row, piece.stop_row), max(byte, piece.stop_byte)
        complete = complete or piece.last
    if complete or row >= (END_OF_FILE if rows.stop_row is None else rows.stop_row):
        return open_ranges
    return [*open_ranges, Range(row, rows.stop_row, byte, rows.stop_byte)]


def incomplete_files(files: Iterable[InputFile], commits: dict[str, Commit]) -> list[str]:
    """Paths of the input files that the current commits do not cover from the first row to the last (InputFile.rows)."""
    done = pieces_by_file(current_commits(commits).values())
    return [
        file.path
        for file in files
        if gaps([piece for piece in done.get(file.path, []) if piece.identity == file.stored.identity], file.rows)
    ]


def overlaps(pieces: list[Piece]) -> list[tuple[Piece, Piece]]:
    """Neighboring pieces, in row order, that share rows; [] unless the protocol was violated."""
    return [(left, right) for left, right in pairwise(pieces) if right.start_row < left.stop_row]


def read_job(store: Store) -> dict[str, Any] | None:
    """The recorded job; None before the first commit."""
    try:
        return json.loads(store.read(JOB_FILE))
    except FileNotFoundError:
        return None


def write_job(store: Store, record: dict[str, Any]) -> None:
    store.put(JOB_FILE, json.dumps(record, indent=2).encode())


def has_garbage(store: Store, ledger: Ledger, kept: Callable[[], Set[str]]) -> bool:
    """Whether a sweep would delete anything; arguments as garbage_files."""
    return bool(garbage_files(store, ledger, kept))


def garbage_files(store: Store, ledger: Ledger, kept: Callable[[], Set[str]]) -> list[StoredFile]:
    """Files that no current commit names: data, rejects, misfits, temporary files of interrupted local writes, and commit
    records that are replaced, packed or void. Files with other names than the product gives are never among them.

    Args:
        kept: gives the relative paths of files that stay nevertheless (publishing/kept_files.py); called only where some file
            of labels is named by no commit.
    """
    current = ledger.current
    named = {file.path for commit in current.values() for file in commit.all_files()}
    records = {_record_name(unit, ledger.pack_term) for unit, commit in current.items() if commit.name not in ledger.packed}
    found = [file for file in store.list_all() if _is_garbage(store.relative(file.path), named, records, ledger.pack_term)]
    if not any(file.path.endswith(".parquet") for file in found):
        return found
    stay = kept()
    return [file for file in found if store.relative(file.path) not in stay]


def _is_garbage(path: str, named: set[str], kept_records: set[str], pack_term: int) -> bool:
    *folders, name = path.split("/")
    if name.startswith(TEMPORARY_PREFIX):
        return True
    if folders == [COMMITS_FOLDER]:
        pack = PACK.fullmatch(name)
        return int(pack.group(1)) < pack_term if pack else bool(RECORD.fullmatch(name)) and name not in kept_records
    in_ours = folders in ([REJECTS_FOLDER], [MISFITS_FOLDER]) or all("=" in folder for folder in folders)
    return in_ours and bool(OUR_FILE.fullmatch(name)) and path not in named


def sweep(store: Store, ledger: Ledger, confirm: Callable[[], None], kept: Callable[[], Set[str]]) -> list[StoredFile]:
    """Deletes the garbage files, and returns them.

    Args:
        kept: as garbage_files.
        confirm: Lease.confirm; called between listing and deleting, raises unless the caller still holds the lease. So no file
            of a later holder is deleted, however late the deletion arrives: it was not listed.
    """
    garbage = garbage_files(store, ledger, kept)
    confirm()
    store.delete(store.relative(file.path) for file in garbage)
    ledger.commits = ledger.current
    store.remove_empty_partitions()
    return garbage
