"""Statistics of an output for its report: exact ones from commits, others from a bounded sample of the labeled rows.

The sample is stratified by partition, so that it has rare labels; a row's weight is its partition's rows per sampled row.
"""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline_ops.output.labeled_output import SMALL_FILE_BYTES, Labeled, read_columns
from pipeline_ops.schema.units import Reject
from pipeline_ops.storage.store import StoredFile
from pipeline_ops.writing.commit_record import ClassifySeconds, Commit, FileCounts, WrittenFile

SAMPLE_FILES = 96
SAMPLE_BYTES = 96 * 2**20  # stops adding files; one that is larger than SMALL_FILE_BYTES counts as that
ROWS_PER_FILE = 1000
CANDIDATE_ROWS = 4 * ROWS_PER_FILE  # first rows of a file, from which ROWS_PER_FILE are drawn
REJECT_FILES = 24
REJECT_LINES = 500  # per file
REJECT_EXAMPLES = 3  # per reason
WEIGHT = "_weight"  # column of the sample: how many rows of the output a row represents


@dataclass(frozen=True)
class Partition:
    """A partition's folder, "" for an output without partitions, and its totals."""

    folder: str
    files: int
    rows: int
    bytes: int


def partitions_of(commits: Iterable[Commit]) -> list[Partition]:
    """Partitions by rows, largest first."""
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
        model: name of one of several models, whose labels are counted as `model=label`.
    """
    counted: Counter[str] = Counter()
    for commit in commits:
        counted.update(commit.labels)
    start = f"{model}=" if model else ""
    return {label.removeprefix(start): count for label, count in counted.most_common() if label.startswith(start)}


def rejects_by_reason(commits: Iterable[Commit]) -> dict[str, int]:
    """Rejects by reason, most frequent first."""
    counted: Counter[str] = Counter()
    for commit in commits:
        counted.update(commit.reasons)
    return {reason: count for reason, count in counted.most_common() if count}


def rejects_by_file(commits: Iterable[Commit]) -> list[FileCounts]:
    """The input files with rejects, most rejects first."""
    counts = FileCounts.sum_of(one for commit in commits for one in commit.by_file())
    return sorted((one for one in counts.values() if one.rejected), key=lambda one: (-one.rejected, one.path))


def stage_seconds(commits: Iterable[Commit]) -> tuple[ClassifySeconds, dict[str, float]]:
    """(classifier seconds by activity, {other stage: seconds}), summed over processes."""
    commits = list(commits)
    stages: Counter[str] = Counter()
    for commit in commits:
        stages.update(commit.stage_seconds)
    return ClassifySeconds.sum_of(commit.classify_seconds for commit in commits), dict(stages)


def sample_rows(labeled: Labeled, columns: Sequence[str]) -> pa.Table:
    """A sample of the labeled rows, with a column WEIGHT (float64): how many rows of the output each represents.

    Reads at most SAMPLE_FILES files, about SAMPLE_BYTES, and takes ROWS_PER_FILE rows of each. Deterministic.

    Args:
        columns: the columns to read; one that no file has is null.
    """
    chooser = random.Random(0)
    strata: dict[str, list[WrittenFile]] = defaultdict(list)
    for file in labeled.files:
        strata[folder_of(file)].append(file)
    rows_of = {folder: sum(file.rows for file in files) for folder, files in strata.items()}
    ordered = sorted(strata, key=lambda folder: (-rows_of[folder], folder))
    for folder in ordered:
        chooser.shuffle(strata[folder])
    files = _round_robin([strata[folder] for folder in ordered])
    drawn: list[tuple[str, pa.Table]] = []
    sampled: Counter[str] = Counter()
    draw = np.random.default_rng(0)
    for file, table in read_columns(labeled.store, files, columns, labeled.partition_types, CANDIDATE_ROWS):
        if table.num_rows > ROWS_PER_FILE:
            table = table.take(pa.array(np.sort(draw.choice(table.num_rows, ROWS_PER_FILE, replace=False))))
        drawn.append((folder_of(file), table))
        sampled[folder_of(file)] += table.num_rows
    tables = []
    for folder, table in drawn:
        weight = rows_of[folder] / sampled[folder] if sampled[folder] else 0.0
        tables.append(table.append_column(WEIGHT, pa.array(np.full(table.num_rows, weight))))
    if not tables:
        return pa.table({**{name: pa.nulls(0) for name in columns}, WEIGHT: pa.array([], pa.float64())})
    return pa.concat_tables(tables, promote_options="permissive")


def _round_robin(strata: Sequence[Sequence[WrittenFile]]) -> list[WrittenFile]:
    """The first file of each stratum, then the second of each, until the sample's limits are reached."""
    chosen: list[WrittenFile] = []
    fetched = turn = 0
    while any(turn < len(files) for files in strata):
        for files in strata:
            if turn < len(files):
                if len(chosen) == SAMPLE_FILES or (chosen and fetched > SAMPLE_BYTES):
                    return chosen
                chosen.append(files[turn])
                fetched += min(files[turn].bytes, SMALL_FILE_BYTES)
        turn += 1
    return chosen


def reject_examples(labeled: Labeled) -> dict[str, list[Reject]]:
    """{reason: up to REJECT_EXAMPLES rejects}, from at most REJECT_FILES reject files."""
    files = [commit.rejects_file for commit in labeled.commits if commit.rejects_file is not None]
    files = [file for file in files if file.bytes <= SMALL_FILE_BYTES] or files[:1]
    random.Random(0).shuffle(files)
    stored = [StoredFile(labeled.store.join(file.path), file.bytes, file.md5) for file in files[:REJECT_FILES]]
    found: dict[str, list[Reject]] = defaultdict(list)
    for content in labeled.store.read_files(stored):
        for line in content.splitlines()[:REJECT_LINES]:
            reject = Reject(**json.loads(line))
            if len(found[reject.reason]) < REJECT_EXAMPLES:
                found[reject.reason].append(reject)
    return dict(found)


def statistics_below(scores: np.ndarray, weights: np.ndarray, thresholds: Sequence[float]) -> list[dict[str, Any]]:
    """For each threshold: `share` of documents with a lower score, and `expected_wrong`, the share of all documents that have a
    lower score and a wrong label if scores are calibrated probabilities (the mean of 1 - score over these)."""
    total = weights.sum()
    found = []
    for threshold in thresholds:
        below = scores < threshold
        found.append(
            {
                "threshold": threshold,
                "share": float(weights[below].sum() / total) if total else 0.0,
                "expected_wrong": float((weights[below] * (1 - scores[below])).sum() / total) if total else 0.0,
            }
        )
    return found


def example_rows(scores: np.ndarray, count: int) -> dict[str, list[int]]:
    """Row numbers of up to `count` examples each with the highest scores, the lowest scores and at random; none twice."""
    order = np.argsort(-scores, kind="stable")
    highest = [int(row) for row in order[:count]]
    lowest = [int(row) for row in order[::-1][:count] if row not in set(highest)]
    rest = [row for row in range(len(scores)) if row not in {*highest, *lowest}]
    drawn = sorted(random.Random(0).sample(rest, min(count, len(rest))))
    return {"highest scores": highest, "lowest scores": lowest, "random": drawn}
