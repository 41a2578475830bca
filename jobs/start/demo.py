"""`label-corpus demo`: all of it on this machine, offline: trains a small classifier, labels a real corpus, counts, shows.

The corpus is made of the installed Python packages (pipeline_ops/passages.py): the classifier tells code, data, licenses and
prose apart, and labels passages of packages that it was not trained on, so the accuracy that is shown means something.
Everything stays in one folder; the model is kept for the next time.
"""

import hashlib
import json
import os
import shutil
import sys
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.config import JobConfig, check_config
from jobs.start.train import TrainConfig, train
from pipeline_ops.models.resolve import block_torch_import
from pipeline_ops.schema.errors import UserError
from pipeline_ops.synthetic.package_corpus import KINDS, collect_passages

NUM_PASSAGES = 6000  # to train on, and again to label
# DistilBERT's shape, small. Dropout would bisect_failures the speed on a CPU; the classifier sees its texts only twice.
ARCHITECTURE = {
    "model_type": "distilbert",
    "vocab_size": 8000,
    "options": {
        "dim": 128,
        "hidden_dim": 512,
        "n_heads": 4,
        "n_layers": 2,
        "max_position_embeddings": 128,
        "activation": "relu",
        "dropout": 0.0,
        "attention_dropout": 0.0,
    },
}
TRAINING = {"epochs": 2, "learning_rate": 1e-3, "max_length": 128}
NUM_EMPTY = 3  # rows without a text, to show where they go


def demo(folder: str, fresh: bool = False) -> dict[str, Any]:
    """Trains (unless the folder holds the same model already), labels, verifies.

    Returns:
        What `run` returns, `accuracy` against the known kinds, and `verified`: whether every document was found once.

    Raises:
        UserError: `folder` cannot be made, or holds something that the demo has not put there.
    """
    from jobs.label_corpus import run
    from jobs.maintenance.verify import verify
    from jobs.report.publish import make_report
    from jobs.results.evaluate import evaluate, keep
    from jobs.results.open_output import find_labeled

    folder = os.path.abspath(os.path.expanduser(folder))
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(f"--folder: {folder!r} cannot be made: {error.strerror}; give one that can be written") from error
    _say("collecting passages of the installed Python packages")
    training, held_out = collect_passages(max_training=NUM_PASSAGES, max_held_out=NUM_PASSAGES)
    model = _train_once(training, folder, fresh)
    job = check_config(
        JobConfig,
        {
            "input": {"path": _write_corpus(held_out, folder)},
            "model": {"path": model},
            "output": {"path": _cleared(os.path.join(folder, "labeled"))},
        },
    )
    block_torch_import()
    _say(f"labeling {held_out.num_rows:,} passages of packages that the model has not seen")
    summary = run(job, report=False)
    labeled = find_labeled(job.output.path)
    found = evaluate(labeled, "kind")
    keep(found, labeled)
    return {
        **summary.to_dict(),
        "report": make_report(labeled, lambda text: None),  # with what was right
        "accuracy": round(found["accuracy"], 4),
        "verified": verify(job)["ok"],
        "confusion": _by_kind(found),
    }


def _train_once(passages: pa.Table, folder: str, fresh: bool) -> str:
    """The model's folder; trained now unless the one there has the same settings, versions and passages."""
    source, model = os.path.join(folder, "training"), os.path.join(folder, "model")
    versions = [version(name) for name in ("torch", "transformers", "tokenizers")]
    texts = hashlib.sha256(json.dumps(passages.to_pylist()).encode()).hexdigest()
    key = hashlib.sha256(json.dumps([ARCHITECTURE, TRAINING, versions, texts]).encode()).hexdigest()
    marker = os.path.join(folder, "model.sha256")
    if not fresh and os.path.isdir(model) and _read(marker) == key:
        _say("the model of the last time still fits; --fresh trains it again")
        return model
    os.makedirs(source, exist_ok=True)
    pq.write_table(passages, os.path.join(source, "passages.parquet"))
    if os.path.exists(marker):
        os.unlink(marker)
    report = train(
        check_config(
            TrainConfig,
            {
                "input": {"path": source, "label_column": "kind"},
                "model": {"architecture": ARCHITECTURE},
                "training": TRAINING,
                "output": {"path": model, "overwrite": True},
            },
        )
    )
    _say(f"trained {report['parameters']:,} parameters in {report['seconds']:.0f} s")
    with open(marker, "w", encoding="utf-8") as file:
        file.write(key)
    return model


def _write_corpus(passages: pa.Table, folder: str) -> str:
    """Half Parquet, half JSON Lines with zstd; id, text, kind, package, path; the last rows without text."""
    source = os.path.join(folder, "corpus")
    os.makedirs(source, exist_ok=True)
    ids = pa.array([f"passage-{row:05}" for row in range(passages.num_rows)])
    passages = passages.add_column(0, "id", ids)
    half = passages.num_rows // 2
    pq.write_table(passages.slice(0, half), os.path.join(source, "part-0.parquet"), row_group_size=500)
    empty = [{"id": f"empty-{row}", "text": None} for row in range(NUM_EMPTY)]
    with pa.CompressedOutputStream(os.path.join(source, "part-1.jsonl.zst"), "zstd") as file:
        for row in [*passages.slice(half).to_pylist(), *empty]:
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return source


def _cleared(output: str) -> str:
    """`output` without the last demo's labels."""
    if os.path.exists(os.path.join(output, "_job.json")):
        shutil.rmtree(output)
    elif os.path.isdir(output) and os.listdir(output):
        raise UserError(f"--folder: {output!r} holds something else than the labels of a demo; choose another folder")
    return output


def _by_kind(evaluation: dict[str, Any]) -> dict[str, dict[str, int]]:
    """{kind: {label: documents}}, of all kinds, whether there are any or not."""
    labels, matrix = evaluation["confusion"]["labels"], evaluation["confusion"]["matrix"]
    counted = {(kind, label): matrix[row][column] for row, kind in enumerate(labels) for column, label in enumerate(labels)}
    return {kind: {label: counted.get((kind, label), 0) for label in KINDS} for kind in KINDS}


def _read(path: str) -> str | None:
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return file.read()


def _say(text: str) -> None:
    print(f"demo: {text}", file=sys.stderr, flush=True)


def print_result(result: dict[str, Any]) -> None:
    """Print the confusion matrix, the counts and how to read the output, on stderr."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stderr, highlight=False)
    table = Table("really", *[f"labeled {kind}" for kind in KINDS])
    for kind, counts in result["confusion"].items():
        table.add_row(kind, *[f"{counts[label]:,}" for label in KINDS])
    console.print(table)
    console.print(
        f"{result['documents']:,} documents: {result['labeled']:,} labeled, {result['rejected']:,} rejected (no text);"
        f" {result['accuracy']:.1%} of the labels are right;"
        f" {result['documents_per_second']:,.0f} documents/s, Ray's start included",
        soft_wrap=True,
    )
    files = os.path.join(result["output"], "label=*", "*.parquet")
    console.print(f"report  file://{result['report']}", soft_wrap=True)
    console.print(f"output  {result['output']}", soft_wrap=True)
    console.print(f"DuckDB  SELECT label, count(*) FROM read_parquet('{files}') GROUP BY label", soft_wrap=True, markup=False)
    console.print(f"pandas  pd.read_parquet({result['output']!r})", soft_wrap=True, markup=False)
