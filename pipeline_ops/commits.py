"""Commit records: which rows are labelled, which remain, and which files count. They alone say what is done.

A reader who wants exactly the committed rows takes the files that `current_commits` names. After a finished run a plain glob of
the partitions gives the same files, because every other file has been swept.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from pipeline_ops.inputs import InputFile
from pipeline_ops.schema import Piece, Range
from pipeline_ops.storage import (
    TEMPORARY_PREFIX,
    StorageConfig,
    delete_many,
    exists,
    join,
    list_all,
    put,
    put_new,
    read_bytes,
    read_many,
    remove_empty_folders,
)
from pipeline_ops.writing import REJECTS_FOLDER, Commit

COMMITS_FOLDER = "_commits"
JOB_FILE = "_job.json"
OUR_FILE = re.compile(r"[0-9a-f]{24}-[0-9a-f]{12}\.(parquet|jsonl)")


def read_commits(output: str, storage: StorageConfig) -> dict[str, Commit]:
    """Every commit record, by unit id, those that others replace included."""
    paths = [file.path for file in list_all(join(output, COMMITS_FOLDER), storage) if file.path.endswith(".json")]
    return {commit.unit: commit for commit in map(Commit.from_json, read_many(paths, storage))}


def current_commits(commits: dict[str, Commit]) -> dict[str, Commit]:
    """The commits that count: those that no other one replaces."""
    replaced = {name for commit in commits.values() for name in commit.replaces}
    return {unit: commit for unit, commit in commits.items() if commit.name not in replaced}


def commit_unit(commit: Commit, output: str, storage: StorageConfig) -> bool:
    """Puts the commit record; False when another attempt at the unit was committed before: then its files count."""
    return put_new(join(output, COMMITS_FOLDER, f"{commit.unit}.json"), commit.to_json().encode(), storage)


def pieces_by_file(commits: Iterable[Commit]) -> dict[str, list[Piece]]:
    """Each input file's committed pieces, in row order."""
    found: dict[str, list[Piece]] = defaultdict(list)
    for commit in commits:
        for piece in commit.pieces:
            found[piece.path].append(piece)
    for pieces in found.values():
        pieces.sort(key=lambda piece: (piece.start_row, piece.stop_row))
    return found


def gaps(pieces: list[Piece]) -> list[Range]:
    """The row ranges that `pieces`, in row order, leave open; [] for a complete file."""
    open_ranges = []
    row = byte = 0
    complete = False
    for piece in pieces:
        if piece.start_row > row:
            open_ranges.append(Range(row, piece.start_row, byte, piece.start_byte))
        row, byte = max(row, piece.stop_row), max(byte, piece.stop_byte)
        complete = complete or piece.last
    return open_ranges if complete else [*open_ranges, Range(row, None, byte, None)]


def incomplete_files(files: Iterable[InputFile], commits: dict[str, Commit]) -> list[str]:
    """Paths of the input files that the current commits do not cover from the first row to the last."""
    done = pieces_by_file(current_commits(commits).values())
    return [
        file.path
        for file in files
        if gaps([piece for piece in done.get(file.path, []) if piece.identity == file.stored.identity])
    ]


def overlaps(pieces: list[Piece]) -> list[tuple[Piece, Piece]]:
    """Neighbouring pieces, in row order, that share rows; there are none unless something went wrong."""
    return [(left, right) for left, right in pairwise(pieces) if right.start_row < left.stop_row]


def read_job(output: str, storage: StorageConfig) -> dict[str, Any] | None:
    """The recorded job; None before the first commit."""
    path = join(output, JOB_FILE)
    return json.loads(read_bytes(path, storage)) if exists(path, storage) else None


def write_job(record: dict[str, Any], output: str, storage: StorageConfig) -> None:
    put(join(output, JOB_FILE), json.dumps(record, indent=2).encode(), storage)


def unreferenced_files(output: str, commits: dict[str, Commit], storage: StorageConfig) -> list[str]:
    """Data and reject files, and leftovers of interrupted local writes, that no current commit names. Relative paths."""
    named = {file.path for commit in current_commits(commits).values() for file in commit.all_files()}
    below = [file.path.removeprefix(output).lstrip("/") for file in list_all(output, storage)]
    return [path for path in below if path not in named and _is_ours(path)]


def _is_ours(path: str) -> bool:
    *folders, name = path.split("/")
    if name.startswith(TEMPORARY_PREFIX):
        return True
    return bool(OUR_FILE.fullmatch(name)) and (folders == [REJECTS_FOLDER] or all("=" in folder for folder in folders))


def sweep(output: str, commits: dict[str, Commit], storage: StorageConfig) -> int:
    """Deletes replaced commits, then every file that no current commit names; returns how many files went."""
    replaced = [unit for unit in commits if unit not in current_commits(commits)]
    delete_many([join(output, COMMITS_FOLDER, f"{unit}.json") for unit in replaced], storage)
    for unit in replaced:
        del commits[unit]
    garbage = unreferenced_files(output, commits, storage)
    delete_many([join(output, path) for path in garbage], storage)
    remove_empty_folders(output, storage)
    return len(garbage)
