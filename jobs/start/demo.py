"""`label-corpus demo`: train a small classifier, label a corpus with it, verify and evaluate, all offline on this machine.

The corpus consists of passages of the installed Python packages (see synthetic/package_corpus.py), which the classifier sorts
into code, data, licenses and prose. Training and labeling use different packages, so the accuracy is a held-out one. All files
are in one folder; corpus and model are reused by the next demo while the installed packages stay the same.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.session import sleeping_threads
from jobs.config import JobConfig, check_config
from jobs.number_format import counted, number
from jobs.start.train import TrainConfig, train
from pipeline_ops.models.resolve import block_torch_import
from pipeline_ops.output.commit_log import read_job
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.store import Store
from pipeline_ops.synthetic.package_corpus import KINDS, collect_passages, fingerprint

NUM_PASSAGES = 6000  # for training, and as many for labeling
# A small DistilBERT. Dropout would halve the speed on a CPU, and two epochs are too few to overfit. One layer, as a second one
# doubles the time, and packages that were not trained on are labeled no better: 0.920 and 0.910 right; with one layer 0.928,
# 0.929 and 0.926 (seeds 0, 1, 2). In half the tokens, or in one epoch of smaller batches, it is less: 0.911 and 0.915.
ARCHITECTURE = {
    "model_type": "distilbert",
    "vocab_size": 8000,
    "options": {
        "dim": 128,
        "hidden_dim": 512,
        "n_heads": 4,
        "n_layers": 1,
        "max_position_embeddings": 128,
        "activation": "relu",
        "dropout": 0.0,
        "attention_dropout": 0.0,
    },
}
TRAINING = {"epochs": 2, "learning_rate": 1e-3, "max_length": 128}
NUM_EMPTY = 3  # rows without a text, which become rejects


def demo(folder: str, fresh: bool = False) -> dict[str, Any]:
    """Collect passages and train (unless `folder` has both from an earlier demo), label, verify, evaluate, report.

    Args:
        fresh: collect and train again in any case.

    Returns:
        The fields of run(), `accuracy` against the known kinds, `verified` (every document stands once in the output) and
        `confusion`.

    Raises:
        UserError: `folder` cannot be created, or holds files that are not of a demo.
    """
    from jobs.label_corpus import run
    from jobs.maintenance.verify import verify
    from jobs.report.publish import make_report
    from jobs.results.evaluate import evaluate, save_evaluation
    from jobs.results.open_output import find_labeled

    folder = os.path.abspath(os.path.expanduser(folder))
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--folder: {folder!r} cannot be created: {error.strerror}; give a folder that can be written"
        ) from error
    output = _clear(os.path.join(folder, "labeled"), os.path.join(folder, "model"))
    corpus, model = _prepare(folder, fresh)
    job = check_config(
        JobConfig,
        {
            "input": {"path": corpus},
            "model": {"path": model},
            "output": {"path": output},
        },
    )
    block_torch_import()
    _print("labeling passages of packages that were not trained on")
    summary = run(job, report=False)
    labeled = find_labeled(job.output.path)
    evaluation = evaluate(labeled, "kind")
    save_evaluation(evaluation, labeled)
    return {
        **summary.to_dict(),
        "report": make_report(labeled, lambda text: None),  # after evaluate, whose result is a section of it
        "accuracy": round(evaluation["accuracy"], 4),
        "verified": verify(job)["ok"],
        "confusion": _by_kind(evaluation),
    }


def _prepare(folder: str, fresh: bool) -> tuple[str, str]:
    """The folders of the corpus and of the model; made unless they come from the same settings, versions and packages."""
    corpus, model, marker = os.path.join(folder, "corpus"), os.path.join(folder, "model"), Path(folder, "made-of.sha256")
    versions = [version(name) for name in ("torch", "transformers", "tokenizers")]
    settings = [ARCHITECTURE, TRAINING, versions, NUM_PASSAGES, fingerprint()]
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
    if not fresh and os.path.isdir(corpus) and os.path.isdir(model) and marker.exists() and marker.read_text() == key:
        _print("using the corpus and the model of the last demo; --fresh makes them again")
        return corpus, model
    marker.unlink(missing_ok=True)
    _print("collecting passages of the installed Python packages")
    training, held_out = _collect()
    _write_corpus(held_out, corpus)
    _train(training, os.path.join(folder, "training"), model)
    marker.write_text(key)
    return corpus, model


def _collect() -> tuple[pa.Table, pa.Table]:
    """collect_passages() in a process of its own; meanwhile this one imports what training needs, which takes as long."""
    ignore_interrupt = (signal.SIGINT, signal.SIG_IGN)  # it is for this process, which says so in one line
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=signal.signal, initargs=ignore_interrupt) as pool:
        passages = pool.submit(collect_passages, max_training=NUM_PASSAGES, max_held_out=NUM_PASSAGES)
        sleeping_threads()
        from transformers import AutoModelForSequenceClassification, Trainer  # noqa: F401 torch with them

        return passages.result()


def _train(passages: pa.Table, source: str, model: str) -> None:
    """Write the passages to the folder `source`, train, publish to the folder `model`."""
    os.makedirs(source, exist_ok=True)
    pq.write_table(passages, os.path.join(source, "passages.parquet"))
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
    _print(f"trained {report['parameters']:,} parameters in {report['seconds']:.0f} s")


def _write_corpus(passages: pa.Table, folder: str) -> None:
    """Write the passages, half as Parquet, half as JSON Lines with zstd, and NUM_EMPTY rows without text.

    Columns: id, text, kind, package, path.
    """
    os.makedirs(folder, exist_ok=True)
    ids = pa.array([f"passage-{row:05}" for row in range(passages.num_rows)])
    passages = passages.add_column(0, "id", ids)
    half = passages.num_rows // 2
    pq.write_table(passages.slice(0, half), os.path.join(folder, "part-0.parquet"), row_group_size=500)
    empty = [{"id": f"empty-{row}", "text": None} for row in range(NUM_EMPTY)]
    with pa.CompressedOutputStream(os.path.join(folder, "part-1.jsonl.zst"), "zstd") as file:
        for row in [*passages.slice(half).to_pylist(), *empty]:
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def _clear(output: str, model: str) -> str:
    """Delete the last demo's output, which the demo's model has labeled; returns the folder.

    Raises:
        UserError: the folder is not an output of a demo.
    """
    record = read_job(Store(output))
    if record is not None and ((record.get("config") or {}).get("model") or {}).get("path") == model:
        shutil.rmtree(output)
    elif os.path.isdir(output) and os.listdir(output):
        raise UserError(f"--folder: {output!r} is not the output of a demo; choose another folder")
    return output


def _by_kind(evaluation: dict[str, Any]) -> dict[str, dict[str, int]]:
    """{true kind: {label: documents}}, with zeros for kinds that do not occur."""
    labels, matrix = evaluation["confusion"]["labels"], evaluation["confusion"]["matrix"]
    counted = {(kind, label): matrix[row][column] for row, kind in enumerate(labels) for column, label in enumerate(labels)}
    return {kind: {label: counted.get((kind, label), 0) for label in KINDS} for kind in KINDS}


def _print(text: str) -> None:
    print(f"demo: {text}", file=sys.stderr, flush=True)


def print_result(result: dict[str, Any]) -> None:
    """Print the confusion matrix, the counts and how to read the output, on stderr."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stderr, highlight=False)
    table = Table("true kind", *[f"labeled {kind}" for kind in KINDS])
    for kind, counts in result["confusion"].items():
        table.add_row(kind, *[f"{counts[label]:,}" for label in KINDS])
    console.print(table)
    console.print(
        f"{counted(result['documents'], 'document')}: {result['labeled']:,} labeled, {result['rejected']:,} rejected (no text);"
        f" {result['accuracy']:.1%} of the labels are right;"
        f" {number(result['labeling_documents_per_second'])} documents/s, start-up left out",
        soft_wrap=True,
    )
    files = os.path.join(result["output"], "label=*", "*.parquet")
    console.print(f"report  file://{result['report']}", soft_wrap=True)
    console.print(f"output  {result['output']}", soft_wrap=True)
    console.print(f"DuckDB  SELECT label, count(*) FROM read_parquet('{files}') GROUP BY label", soft_wrap=True, markup=False)
    console.print(f"pandas  pd.read_parquet({result['output']!r})", soft_wrap=True, markup=False)
