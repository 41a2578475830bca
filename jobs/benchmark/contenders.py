"""What `label-corpus benchmark` measures beside the job, each in a process of its own.

    python -m jobs.benchmark.contenders limit|tokenizer|scaling TASK.json

The last line on stdout is one JSON object. The process ends when its stdin does: with its parent.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def limit(task: dict[str, Any]) -> dict[str, Any]:
    """The bare model on batches that are in memory; see pipeline_ops.synthetic.reference_loops."""
    from pipeline_ops.loading.device import resolve_dtype
    from pipeline_ops.synthetic.reference_loops import run_bare_model

    dtype = resolve_dtype(task["dtype"], task["use_gpu"])
    loop, labels = run_bare_model(
        task["model"], task["batches"], dtype=dtype, use_gpu=task["use_gpu"], processes=task["processes"]
    )
    names = _label_names(task["model"])
    write_labels(task, [names[label] for label in labels.tolist()])
    return {"documents": len(labels), "seconds": loop.seconds, "dtype": dtype, **_model_facts(task["model"], task["use_gpu"])}


def tokenizer(task: dict[str, Any]) -> dict[str, Any]:
    """The bare tokenizer on texts that are in memory."""
    from pipeline_ops.synthetic.reference_loops import corpus_texts, run_bare_tokenizer, save_texts

    texts = corpus_texts(task["corpus"], task["text_column"])
    save_texts(texts, task["texts"])
    loop = run_bare_tokenizer(task["model"], task["texts"], task["processes"])
    os.unlink(task["texts"])
    return {"documents": len(texts), "seconds": loop.seconds}


def scaling(task: dict[str, Any]) -> dict[str, Any]:
    """The job's chain with classifiers that sleep; see jobs.benchmark.scaling."""
    from jobs.benchmark.scaling import measure
    from jobs.console import signals

    signals.install()  # the end of this process stops its Ray, whose processes would go on writing
    return measure(task)


def write_labels(task: dict[str, Any], labels: list[str]) -> None:
    """Writes the columns `text` and `label` of the corpus' first documents into the folder that `task` names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipeline_ops.synthetic.reference_loops import corpus_texts

    texts = corpus_texts(task["corpus"], task["text_column"])[: len(labels)]
    os.makedirs(task["labels"], exist_ok=True)
    pq.write_table(pa.table({"text": texts, "label": labels}), os.path.join(task["labels"], "labels.parquet"))


def _label_names(model: str) -> list[str]:
    from pipeline_ops.models.config import ModelConfig
    from pipeline_ops.models.resolve import resolve_model
    from pipeline_ops.storage.config import StorageConfig

    return list(resolve_model(ModelConfig(path=model), StorageConfig())[0].head.labels)


def _model_facts(model: str, use_gpu: bool) -> dict[str, Any]:
    import torch

    from pipeline_ops.loading.load import load_classifier
    from pipeline_ops.models.config import ModelConfig
    from pipeline_ops.storage.config import StorageConfig

    loaded = load_classifier(ModelConfig(path=model), StorageConfig(), revision=None, dtype="float32", device="meta")
    parameters = sum(parameter.numel() for parameter in loaded.parameters())
    return {"gpu": torch.cuda.get_device_name() if use_gpu else None, "parameters": parameters}


def run_process(functions: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]) -> None:
    """Runs the function that the command line names on its TASK.json and prints its result; ends with its parent."""
    name, path = sys.argv[1:]
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
    task = json.loads(Path(path).read_text(encoding="utf-8"))
    print(json.dumps(functions[name](task)), flush=True)
    os._exit(0)  # as the job does: other threads have nothing left to do


if __name__ == "__main__":
    run_process({"limit": limit, "tokenizer": tokenizer, "scaling": scaling})
