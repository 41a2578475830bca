"""The stages called one by one in this process: from a file to the row of the write stage, and what it says."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from cluster.attempts import AttemptCounts
from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.models.config import JobModel, ModelConfig
from pipeline_ops.models.resolve import resolve_model
from pipeline_ops.reading.spans import ReadSettings, spans_to_json
from pipeline_ops.reading.unit_sizes import UnitSizes
from pipeline_ops.schema.failures import Attempts, Failure
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.stages.classifier import ClassifyActor, ProgressAttempts
from pipeline_ops.stages.context import StageContext
from pipeline_ops.stages.reader import read_task
from pipeline_ops.stages.tokenizer import TokenizeActor
from pipeline_ops.stages.writer import write_task
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.tokenizing.sequences import definition_of
from pipeline_ops.writing.commit_record import Commit
from tests.support.reading_path import prepare, spans_of

STORAGE = StorageConfig()


def models_of(model: Path, output: OutputConfig, **settings: Any) -> list[JobModel]:
    """The resolved model of a job that has only one."""
    config = ModelConfig(path=str(model), **settings)
    facts, tokenizer, *_ = resolve_model(config, STORAGE)
    return [JobModel("", config, facts, definition_of(tokenizer, facts.max_length), output, dtype="float32")]


def context_of(models: list[JobModel], output: OutputConfig, batch_tokens: int = 512) -> StageContext:
    """What the tokenize, classify and write stages of a job get."""
    config = InputConfig(path="in")
    return StageContext(
        config, STORAGE, output, pa.schema([]), UnitSizes(2**20), "fingerprint", tuple(models), batch_tokens, use_gpu=False
    )


def read_context(settings: ReadSettings) -> StageContext:
    """What the read stage of a job gets."""
    return StageContext(**vars(settings), models=(), batch_tokens=512, use_gpu=False)


def tokenizer_of(context: StageContext, attempts: Attempts) -> TokenizeActor:
    return TokenizeActor(context, attempts, [model.tokenizer for model in context.models])


def rows_of(path: Path, unit_bytes: int = 2**20, **options: Any) -> list[pa.Table]:
    """What the read task of `path` yields."""
    return read(*prepare(path, unit_bytes=unit_bytes, **options))


def read(files: list[InputFile], settings: ReadSettings, attempts: Attempts | None = None) -> list[pa.Table]:
    task = pa.table({"task": [spans_to_json(spans_of(files))]})
    return list(read_task(task, read_context(settings), attempts or AttemptCounts()))


def label(
    row: pa.Table,
    model: Path,
    output: OutputConfig,
    batch_tokens: int = 512,
    attempts: ProgressAttempts | None = None,
    **settings: Any,
) -> pa.Table:
    context = context_of(models_of(model, output, **settings), output, batch_tokens)
    attempts = attempts or AttemptCounts()
    classified = ClassifyActor(context, attempts)(tokenizer_of(context, attempts)(row))
    return write_task(classified, context, attempts)


def commit_of(row: pa.Table) -> Commit:
    assert row["failure"][0].as_py() is None
    return Commit.from_json(row["commit"][0].as_py())


def failure_of(row: pa.Table) -> Failure:
    assert [name for name in row.column_names if row[name].null_count == 0] == ["failure"]
    return Failure.from_json(row["failure"][0].as_py())


def rejects_in(folder: Path, commit: Commit) -> list[tuple[int, str, str]]:
    """(row, reason, detail) of each reject of a commit, by row."""
    assert commit.rejects_file is not None
    rejects = [json.loads(line) for line in (folder / commit.rejects_file.path).read_text().splitlines()]
    return sorted((reject["source_row"], reject["reason"], reject["detail"]) for reject in rejects)


def labeled(folder: Path) -> list[dict[str, Any]]:
    """The rows of a written output, in input order."""
    table = ds.dataset(folder, partitioning="hive", format="parquet").to_table()
    return sorted(table.to_pylist(), key=lambda row: (row["source_file"], row["source_row"]))
