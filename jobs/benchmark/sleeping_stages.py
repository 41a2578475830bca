"""The job's stages on units of a few documents: they sleep for as long as a unit of full size takes, and move as many bytes.

Ray, the driver, the commits and the object store work as in any run; nothing is computed.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.resources import BYTES_PER_TOKEN, GPU_FLOPS, TOKEN_FLOPS, TOKENIZED_OVER_TEXT, TOKENS_PER_CORE
from jobs.executors.ray_executor import RayExecutor
from pipeline_ops.classifying.classify import UnitLogits
from pipeline_ops.classifying.forward_pass import ForwardPasses
from pipeline_ops.models.flops import DocumentFlops
from pipeline_ops.planning.forecast import READ_WRITE_SECONDS_PER_BYTE
from pipeline_ops.planning.work_plan import LARGEST_UNIT
from pipeline_ops.schema.arrow_cells import binary_cell
from pipeline_ops.stages.classifier import ClassifyActor
from pipeline_ops.stages.reader import read_task
from pipeline_ops.stages.rows import Columns, UnitRow
from pipeline_ops.stages.tokenizer import TokenizeActor
from pipeline_ops.stages.writer import write_task
from pipeline_ops.tokenizing.batching import TokenBatches

UNIT_TOKENS = LARGEST_UNIT / BYTES_PER_TOKEN
TOKENIZE_SECONDS = UNIT_TOKENS / TOKENS_PER_CORE
READ_SECONDS = WRITE_SECONDS = LARGEST_UNIT * READ_WRITE_SECONDS_PER_BYTE / 2
CLASSIFY_SECONDS = UNIT_TOKENS * TOKEN_FLOPS / GPU_FLOPS


class NoPasses(ForwardPasses):
    """In place of the passes through a model."""

    def __init__(self) -> None:
        self.against_padding = None


@dataclass(frozen=True)
class SleepingStages:
    """Stages for an executor.

    Attributes:
        classify_seconds: per unit of full size.
        moved_bytes: of each unit's text that go through the object store, and of its tokens in proportion; then the other
            stages sleep as well. 0: they only do their work.
        unit_documents: of a unit of full size; of smaller ones all is in proportion.
    """

    classify_seconds: float
    moved_bytes: int = 0
    unit_documents: int = 1

    def executor(self) -> RayExecutor:
        if not self.moved_bytes:
            return RayExecutor(classify_actor=self.classify_actor())
        return RayExecutor(self.read(), self.tokenize_actor(), self.classify_actor(), self.write())

    def read(self) -> Callable[..., Iterator[pa.Table]]:
        def read_slowly(task: pa.Table, **arguments: Any) -> Iterator[pa.Table]:
            for row in read_task(task, **arguments):
                share = self.share_of(UnitRow(row).documents.num_rows)
                time.sleep(share * READ_SECONDS)
                moved = _lengthened(row["documents"], int(share * self.moved_bytes))
                yield row.set_column(row.column_names.index("documents"), "documents", moved)

        return read_slowly

    def tokenize_actor(self) -> type[TokenizeActor]:
        stages = self

        class SleepingTokenizeActor(TokenizeActor):
            def tokenize(self, row: UnitRow) -> Columns:
                time.sleep(stages.share_of(row.documents.num_rows) * TOKENIZE_SECONDS)
                columns = super().tokenize(row)
                return {**columns, "documents": _lengthened(row.table["documents"], stages.token_bytes(row))}

        return SleepingTokenizeActor

    def classify_actor(self) -> type[ClassifyActor]:
        """The job's classifier without a model: it gives the labels in turn."""
        stages = self

        class SleepingClassifyActor(ClassifyActor):
            def load(self) -> list[ForwardPasses]:
                return [NoPasses() for _ in self.context.models]

            def count_flops(self) -> list[DocumentFlops | None]:
                return [None] * len(self.context.models)

            def forward(self, batches: Sequence[TokenBatches]) -> tuple[list[UnitLogits], list[float]]:
                seconds = stages.share_of(len(batches[0].lengths)) * stages.classify_seconds
                time.sleep(seconds)
                outputs: list[UnitLogits] = []
                for model, inputs in zip(self.context.models, batches, strict=True):
                    labels = len(model.facts.head.labels)
                    outputs.append((np.eye(labels, dtype=np.float32)[np.arange(len(inputs.lengths)) % labels], {}))
                return outputs, [seconds] * len(batches)

            def classify(self, row: UnitRow) -> Columns:
                return {**super().classify(row), "documents": _lengthened(row.table["documents"], -stages.token_bytes(row))}

        return SleepingClassifyActor

    def write(self) -> Callable[..., pa.Table]:
        def write_slowly(row: pa.Table, **arguments: Any) -> pa.Table:
            time.sleep(self.share_of(UnitRow(row).documents.num_rows) * WRITE_SECONDS)
            return write_task(row, **arguments)

        return write_slowly

    def share_of(self, documents: int) -> float:
        """Of a unit of full size."""
        return documents / self.unit_documents

    def token_bytes(self, row: UnitRow) -> int:
        return int((TOKENIZED_OVER_TEXT - 1) * self.share_of(row.documents.num_rows) * self.moved_bytes)


def _lengthened(column: pa.ChunkedArray, size: int) -> pa.Array:
    """The cell of a packed table, with so many more bytes at its end, which unpacking it does not read; fewer if negative."""
    cell = column[0].as_buffer()
    return binary_cell(cell.slice(0, cell.size + size) if size <= 0 else pa.py_buffer(cell.to_pybytes() + bytes(size)))
