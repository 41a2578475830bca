"""Units with made-up labels, written by the product: what rewriting and checking read."""

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline_ops.models.heads import Head
from pipeline_ops.output.committed_files import column_of, read_written
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Piece, Reject, Unit, unpack_rejects
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import Commit
from pipeline_ops.writing.postprocessing import ModelOutputs, label_documents
from pipeline_ops.writing.unit_files import write_unit

LABELS = ("NEGATIVE", "POSITIVE")
Key = tuple[str, int]


def write_pieces(
    output: OutputConfig,
    *pieces: Piece,
    reject_every: int = 4,
    metadata: dict[str, Any] | None = None,
    extra: dict[str, pa.Array] | None = None,
) -> Commit:
    """A unit of these pieces: each `reject_every`th row a reject, labels and truncation in turns, row % 7 tokens.

    Args:
        extra: further columns, one value per labeled row.
    """
    rows = [(piece.path, row) for piece in pieces for row in range(piece.start_row, piece.stop_row)]
    rejects = [Reject(path, row, "null_text", "none\r\n\u2028") for path, row in rows if row % reject_every == reject_every - 1]
    rows = [(path, row) for path, row in rows if row % reject_every != reject_every - 1]
    numbers = np.array([row for _, row in rows], np.int64)
    documents = pa.table(
        {
            "text": pa.array([f"{path} {row}" for path, row in rows], pa.string()),
            **(extra or {}),
            output.source_file_column: pa.array([path for path, _ in rows], pa.string()),
            output.source_row_column: numbers,
        }
    )
    logits = np.stack([numbers % 3 == 0, numbers % 3 != 0], axis=1).astype(np.float32)
    classified = ModelOutputs(logits, (numbers % 7).astype(np.int32), numbers % 2 == 0)
    labeled = label_documents(documents, classified, head=Head(LABELS, "softmax"), output=output)
    unit = Unit(uuid.uuid4().hex[:24], pieces)
    return write_unit(
        Store(output.path), unit, labeled, rejects, output, metadata=metadata or {"model": "m"}, padded_tokens=len(rows)
    )


def whole(path: str, rows: int = 12, identity: str = "v1") -> Piece:
    return Piece(path, identity, 0, rows, True)


def rows_of(commit: Commit, output: OutputConfig) -> list[tuple[Key, str, int, bool]]:
    """(key, label, tokens, truncated) of each labeled row that the commit's files hold, sorted."""
    found = []
    for file in commit.files:
        table = read_written(Store(output.path), file)
        columns = [
            column_of(table, name, file.path)
            for name in (
                output.source_file_column,
                output.source_row_column,
                output.label_name,
                output.num_tokens_column,
                output.truncated_column,
            )
        ]
        for source, row, label, tokens, truncated in zip(*(column.to_pylist() for column in columns), strict=True):
            found.append(((source, int(row)), label, int(tokens), str(truncated).lower() == "true"))
    return sorted(found)


def rejects_of(commit: Commit, output: OutputConfig) -> list[Key]:
    if commit.rejects_file is None:
        return []
    lines = (Path(output.path) / commit.rejects_file.path).read_bytes()
    return sorted((reject.source_file, reject.source_row) for reject in unpack_rejects(lines))


def check_counts(commit: Commit, output: OutputConfig) -> None:
    """Asserts that a commit's counts, and the statistics of its files, are those of its rows."""
    rows, rejects = rows_of(commit, output), rejects_of(commit, output)
    assert (commit.labeled, commit.rejected) == (len(rows), len(rejects))
    assert commit.tokens == sum(tokens for _, _, tokens, _ in rows)
    assert commit.truncated == sum(truncated for _, _, _, truncated in rows)
    counts = {label: sum(found == label for _, found, _, _ in rows) for label in LABELS}
    assert {label: commit.labels.get(label, 0) for label in LABELS} == counts
    assert 0 not in commit.labels.values()
    assert sum(file.rows for file in commit.files) == len(rows)
    assert all((Path(output.path) / file.path).stat().st_size == file.bytes for file in commit.all_files())
    described = {output.source_file_column, output.source_row_column, output.score_column, output.num_tokens_column}
    for file in commit.files:
        columns = read_written(Store(output.path), file).select([*described.difference(output.partition_columns())]).to_pydict()
        assert file.statistics == {name: (min(values), max(values), 0) for name, values in columns.items()}


def flip_byte(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    Store(str(path.parent)).put(path.name, bytes(data))


def files_of(commits: Sequence[Commit]) -> list[str]:
    return [file.path for commit in commits for file in commit.files]
