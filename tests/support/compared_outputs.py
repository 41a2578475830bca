"""Outputs with made-up answers, written and committed by the product: what comparing reads."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from pipeline_ops.models.heads import Head, check_output
from pipeline_ops.output.commit_log import commit_unit, read_ledger, write_job
from pipeline_ops.output.compaction import compacted, merge_files, plan_compactions
from pipeline_ops.output.labeled_output import Labeled, open_labeled
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Piece, Reject, Unit
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.postprocessing import ModelOutputs, label_documents
from pipeline_ops.writing.unit_files import write_unit

Answer = Callable[[str, np.ndarray], np.ndarray]  # (path, rows) -> logits
Truth = Callable[[str, np.ndarray], Sequence[Any]]  # (path, rows) -> values of the column `truth`


class MadeOutput:
    """An output folder that units are added to."""

    def __init__(
        self, folder: Path, head: Head, answer: Answer, source: str = "/in", truth: Truth | None = None, **output: Any
    ):
        self.head, self.answer, self.truth = head, answer, truth
        self.output = check_output(head, OutputConfig(path=str(folder), **output))
        config = {"input": {"path": source, "text_column": "text"}, "output": self.output.model_dump(mode="json")}
        facts = {name: getattr(head, name) for name in Head.__dataclass_fields__}
        record = {
            "config": config,
            "models": {"": {"path": folder.name, **facts}},
            "settings": {"model.path": folder.name, "model.dtype": "float32"},
        }
        write_job(Store(str(folder)), record)

    def add(self, *pieces: Piece, reject: Sequence[int] = ()) -> None:
        """A unit of these pieces; the rows of `reject` are rejects."""
        parts, rejects = [], []
        for piece in pieces:
            rows = np.array([row for row in range(piece.start_row, piece.stop_row) if row not in reject], np.int64)
            logits = self.answer(piece.path.rsplit("/", 1)[-1], rows).astype(np.float32)
            rejects += [
                Reject(piece.path, row, "null_text", "") for row in range(piece.start_row, piece.stop_row) if row in reject
            ]
            columns = {"text": pa.array([f"text {row} of {piece.path}" for row in rows], pa.string())}
            if self.truth is not None:
                columns["truth"] = pa.array(self.truth(piece.path.rsplit("/", 1)[-1], rows))
            columns[self.output.source_file_column] = pa.array([piece.path] * len(rows), pa.string())
            columns[self.output.source_row_column] = pa.array(rows)
            documents = pa.table(columns)
            classified = ModelOutputs(logits, np.ones(len(rows), np.int32), np.zeros(len(rows), bool))
            parts.append(label_documents(documents, classified, head=self.head, output=self.output))
        labeled = pa.concat_tables(parts)
        unit = Unit(uuid.uuid4().hex[:24], pieces)
        commit = write_unit(Store(self.output.path), unit, labeled, rejects, self.output, metadata={}, padded_tokens=1)
        commit_unit(Store(self.output.path), read_ledger(Store(self.output.path)), commit)

    def compact(self, target_bytes: int = 2**20) -> None:
        ledger = read_ledger(Store(self.output.path))
        for compaction in plan_compactions(ledger.commits.values(), target_bytes, {}):
            merged = [merge_files(Store(self.output.path), merge) for merge in compaction.merges]
            commit = compacted(Store(self.output.path), compaction, merged)
            commit_unit(Store(self.output.path), ledger, replace(commit, term=1))
            for name in compaction.commits:
                for file in name.files:
                    if file not in compaction.kept:
                        Path(self.output.path, file.path).unlink()

    def opened(self) -> Labeled:
        return open_labeled(Store(self.output.path))


def spread_logits(labels: int, seed: int) -> Answer:
    """Logits that depend on a document alone, however the input is cut."""

    def answer(name: str, rows: np.ndarray) -> np.ndarray:
        one = np.random.default_rng([seed, *name.encode()]).normal(size=(10_000, labels))
        return one[rows] if len(rows) else np.empty((0, labels))

    return answer


def joined_by_duckdb(a: str, b: str, columns: str, on: str = "a.source_file = b.source_file") -> list[tuple]:
    """`columns` of the documents that both outputs' plain files have."""
    files = {side: f"read_parquet('{folder}/**/*.parquet', hive_partitioning=true)" for side, folder in (("a", a), ("b", b))}
    query = f"select {columns} from {files['a']} a join {files['b']} b on {on} and a.source_row = b.source_row"
    return duckdb.connect().execute(query).fetchall()
