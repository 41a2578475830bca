"""An output in numbers, for its report: exact from commits where they say it, else from a bounded sample of the labeled rows.

The sample is drawn file by file from every partition, so that rare labels are in it; each row then stands for as many as its
partition has per sampled row.
"""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline_ops.output.labeled_output import WHOLE_BYTES, Labeled, read_columns
from pipeline_ops.schema.units import Reject
from pipeline_ops.storage.store import StoredFile
from pipeline_ops.writing.commit_record import ClassifySeconds, Commit, WrittenFile

SAMPLED_FILES = 96
SAMPLED_BYTES = 96 * 2**20  # of files that are fetched; a large one counts as WHOLE_BYTES
SAMPLED_ROWS = 1000  # of a file
READ_ROWS = 4 * SAMPLED_ROWS  # of its first ones, of which those are drawn
REJECT_FILES = 24
REJECT_LINES = 500  # of a file
REJECT_EXAMPLES = 3  # per reason
WEIGHT = "_weight"  # the sample's column that says how many rows one stands for


@dataclass(frozen=True)
class Partition:
    """The files in a folder of the output; "" for the output itself."""

    folder: str
    files: int
    rows: int
    bytes: int


def partitions_of(commits: Iterable[Commit]) -> list[Partition]:
    """Largest first, by rows."""
    files: dict[str, list[WrittenFile]] = defaultdict(list)
    for commit in commits:
        for file in commit.files:
            files[folder_of(file)].append(file)
    found = [
        Partition(folder, len(held), sum(file.rows for file in held), sum(file.bytes for file in held))
        for folder, held in files.items()
    ]
    return sorted(found, key=lambda partition: (-partition.rows, partition.folder))


def folder_of(file: WrittenFile) -> str:
    return file.path.rpartition("/")[0]


def labels_of(commits: Iterable[Commit], model: str = "") -> dict[str, int]:
    """Documents by label, most frequent first.

    Args:
        model: of several, whose labels; they are counted as `model=label`.
    """
    counted: Counter[str] = Counter()
    for commit in commits:
        counted.update(commit.labels)
    start = f"{model}=" if model else ""
    return {label.removeprefix(start): count for label, count in counted.most_common() if label.startswith(start)}


def reasons_of(commits: Iterable[Commit]) -> dict[str, int]:
    """Rejects by reason, most frequent first; `unknown` where a commit does not tell."""
    counted: Counter[str] = Counter()
    for commit in commits:
        counted.update(commit.reasons if commit.reasons is not None else {"unknown": commit.rejected})
    return {reason: count for reason, count in counted.most_common() if count}


def seconds_of(commits: Iterable[Commit]) -> tuple[ClassifySeconds, dict[str, float]]:
    """(where the classifiers' time went, seconds of all processes of the other stages), of the commits that tell."""
    commits = list(commits)
    stages: Counter[str] = Counter()
    for commit in commits:
        stages.update(commit.stage_seconds or {})
    return ClassifySeconds.sum_of(commit.classify_seconds for commit in commits), dict(stages)


def draw_rows(labeled: Labeled, columns: Sequence[str], seed: int = 0) -> pa.Table:
    """A sample of the labeled rows, with a column WEIGHT (float64): how many rows each stands for.

    At most SAMPLED_FILES files and SAMPLED_BYTES are read, and SAMPLED_ROWS rows of each. The same output gives the same rows.

    Args:
        columns: what is read; a column that no file has is null.
    """
    chooser = random.Random(seed)
    strata: dict[str, list[WrittenFile]] = defaultdict(list)
    for file in labeled.files:
        strata[folder_of(file)].append(file)
    rows_of = {folder: sum(file.rows for file in files) for folder, files in strata.items()}
    ordered = sorted(strata, key=lambda folder: (-rows_of[folder], folder))
    for folder in ordered:
        chooser.shuffle(strata[folder])
    chosen = _in_turns([strata[folder] for folder in ordered])
    drawn: list[tuple[str, pa.Table]] = []
    sampled: Counter[str] = Counter()
    draw = np.random.default_rng(seed)
    for file, table in read_columns(labeled.store, chosen, columns, rows=READ_ROWS):
        if table.num_rows > SAMPLED_ROWS:
            table = table.take(pa.array(np.sort(draw.choice(table.num_rows, SAMPLED_ROWS, replace=False))))
        drawn.append((folder_of(file), table))
        sampled[folder_of(file)] += table.num_rows
    tables = []
    for folder, table in drawn:
        weight = rows_of[folder] / sampled[folder] if sampled[folder] else 0.0
        tables.append(table.append_column(WEIGHT, pa.array(np.full(table.num_rows, weight))))
    if not tables:
        return pa.table({**{name: pa.nulls(0) for name in columns}, WEIGHT: pa.array([], pa.float64())})
    return pa.concat_tables(tables, promote_options="permissive")


def _in_turns(strata: Sequence[Sequence[WrittenFile]]) -> list[WrittenFile]:
    """One file of each, then another of each, until the sample's bounds are reached."""
    chosen: list[WrittenFile] = []
    fetched = turn = 0
    while any(turn < len(files) for files in strata):
        for files in strata:
            if turn < len(files):
                if len(chosen) == SAMPLED_FILES or (chosen and fetched > SAMPLED_BYTES):
                    return chosen
                chosen.append(files[turn])
                fetched += min(files[turn].bytes, WHOLE_BYTES)
        turn += 1
    return chosen


def reject_examples(labeled: Labeled, seed: int = 0) -> dict[str, list[Reject]]:
    """By reason, up to REJECT_EXAMPLES of what REJECT_FILES files of rejects hold."""
    files = [commit.rejects_file for commit in labeled.commits if commit.rejects_file is not None]
    files = [file for file in files if file.bytes <= WHOLE_BYTES] or files[:1]
    random.Random(seed).shuffle(files)
    stored = [StoredFile(labeled.store.join(file.path), file.bytes, file.md5) for file in files[:REJECT_FILES]]
    found: dict[str, list[Reject]] = defaultdict(list)
    for content in labeled.store.read_files(stored):
        for line in content.splitlines()[:REJECT_LINES]:
            reject = Reject(**json.loads(line))
            if len(found[reject.reason]) < REJECT_EXAMPLES:
                found[reject.reason].append(reject)
    return dict(found)


def weighted_histogram(values: np.ndarray, weights: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """float64 (bins,): the weight of the values in each bin; the last bin has its upper edge too."""
    counts, _ = np.histogram(values, bins=edges, weights=weights)
    return counts


def share_below(scores: np.ndarray, weights: np.ndarray, limits: Sequence[float]) -> list[dict[str, Any]]:
    """For each limit: the share of documents whose score is below it, and the share of all that are wrong among those, if a
    score is the probability to be right (the sum of 1 - score)."""
    total = weights.sum()
    found = []
    for limit in limits:
        below = scores < limit
        found.append(
            {
                "limit": limit,
                "share": float(weights[below].sum() / total) if total else 0.0,
                "expected_wrong": float((weights[below] * (1 - scores[below])).sum() / total) if total else 0.0,
            }
        )
    return found


def notable_rows(scores: np.ndarray, count: int, seed: int = 0) -> dict[str, list[int]]:
    """Rows to show of a label's documents: `count` with the highest scores, with the lowest, and at random; none twice."""
    order = np.argsort(-scores, kind="stable")
    highest = [int(row) for row in order[:count]]
    lowest = [int(row) for row in order[::-1][:count] if row not in set(highest)]
    rest = [row for row in range(len(scores)) if row not in {*highest, *lowest}]
    drawn = sorted(random.Random(seed).sample(rest, min(count, len(rest))))
    return {"most certain": highest, "least certain": lowest, "at random": drawn}
