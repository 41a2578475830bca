"""Two outputs with made-up answers over files that exist, and their join: what the tests of joining start from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset

from jobs.maintenance.join import join
from pipeline_ops.models.heads import Head, check_output
from pipeline_ops.output.commit_log import commit_unit, read_ledger, write_job
from pipeline_ops.output.labeled_output import Labeled, open_labeled
from pipeline_ops.output.lease import check_free, hold_lease
from pipeline_ops.output.rewriting import tombstone
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Piece, Reject, Unit, short_id
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import Commit
from pipeline_ops.writing.postprocessing import ModelOutputs, label_documents
from pipeline_ops.writing.unit_files import write_unit

SOURCE = "/in"
Rows = dict[tuple[str, int], tuple[Any, ...]]


class LabeledOnce:
    """An output that is labeled piece by piece, without a model: a document's label is its row modulo the number of labels."""

    def __init__(self, path: object, name: str, labels: Sequence[str], storage: StorageConfig = StorageConfig(), **output: Any):
        self.labels = tuple(labels)
        self.head = Head(self.labels, "softmax")
        self.output = check_output(self.head, OutputConfig(path=str(path), **output))
        self.store = Store(self.output.path, storage)
        facts = {field: getattr(self.head, field) for field in Head.__dataclass_fields__}
        self.record = {
            "fingerprint": short_id([name, self.labels]),
            "settings": {"model.path": name, "input.text_column": "text", "output.partition_by": ["label"]},
            "config": {
                "input": {"path": SOURCE, "text_column": "text", "text_pair_column": None},
                "model": {"path": name},
                "models": None,
                "output": self.output.model_dump(mode="json"),
                "storage": {},
                "compute": {},
            },
            "models": {"": {"path": name, "dtype": "float32", **facts, "output": self.output.model_dump(mode="json")}},
            "versions": {},
        }
        write_job(self.store, self.record)

    def add(self, *pieces: Piece, reject: Sequence[int] = (), replaces: Sequence[Commit] = ()) -> Commit:
        """Commits a unit of these pieces; the rows of `reject` are rejects."""
        rows = [(piece, row) for piece in pieces for row in range(piece.start_row, piece.stop_row)]
        kept = [(piece, row) for piece, row in rows if row not in reject]
        numbers = np.array([row for _, row in kept], np.int64)
        documents = pa.table(
            {
                "text": pa.array([text_of(piece, row) for piece, row in kept], pa.string()),
                self.output.source_file_column: pa.array([piece.path for piece, _ in kept], pa.string()),
                self.output.source_row_column: numbers,
            }
        )
        logits = np.eye(len(self.labels), dtype=np.float32)[numbers % len(self.labels)] * 3
        outputs = ModelOutputs(logits, (numbers % 7 + 1).astype(np.int32), numbers % 2 == 0)
        if self.output.embedding:
            outputs = ModelOutputs(logits, outputs.num_tokens, outputs.truncated, None, embedding_of(numbers))
        labeled = label_documents(documents, outputs, head=self.head, output=self.output)
        rejects = [Reject(piece.path, row, "null_text", "no text") for piece, row in rows if row in reject]
        names = tuple(commit.name for commit in replaces)
        unit = Unit(short_id([self.record["fingerprint"], [str(piece) for piece in pieces], names]), pieces, names)
        metadata = {"fingerprint": self.record["fingerprint"]}
        commit = write_unit(self.store, unit, labeled, rejects, self.output, metadata=metadata, padded_tokens=1)
        self.put(commit)
        return commit

    def put(self, commit: Commit) -> None:
        ledger, seen = read_ledger(self.store), check_free(self.store)
        with hold_lease(self.store, 60, seen, ledger):
            assert commit_unit(self.store, ledger, commit)

    def drop(self, *commits: Commit) -> None:
        self.put(tombstone(commits))

    def opened(self) -> Labeled:
        return open_labeled(self.store)


def text_of(piece: Piece, row: int) -> str:
    return f"{piece.identity} of {piece.path}, {row}"


def embedding_of(rows: np.ndarray) -> np.ndarray:
    return np.stack([rows, rows + 0.5], axis=1).astype(np.float32)


def piece_of(name: str, start: int, stop: int, *, last: bool = True, version: str = "v1") -> Piece:
    return Piece(f"{SOURCE}/{name}", version, start, stop, last)


def join_here(target: object, *outputs: LabeledOnce, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Joins the outputs as they are now, in this process."""
    return join([one.opened() for one in outputs], Store(str(target), outputs[0].store.config), names, quiet=True)


def expected_rows(pieces: Sequence[Piece], reject: Sequence[int] = (), *, labels: Sequence[Sequence[str]]) -> Rows:
    """{(source_file, source_row): (text, label of each model)} of the joined rows."""
    return {
        (piece.path, row): (text_of(piece, row), *(one[row % len(one)] for one in labels))
        for piece in pieces
        for row in range(piece.start_row, piece.stop_row)
        if row not in reject
    }


def joined_rows(target: Path, *columns: str) -> Rows:
    """The same of the plain files of a joined output."""
    table = pa.dataset.dataset(str(target), format="parquet", partitioning="hive").to_table()
    values = zip(*(table[name].to_pylist() for name in ("source_file", "source_row", *columns)), strict=True)
    found = {(path, row): tuple(rest) for path, row, *rest in values}
    assert len(found) == table.num_rows, "a document stands twice"
    return found
