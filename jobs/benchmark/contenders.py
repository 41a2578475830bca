"""What `label-corpus benchmark` measures beside the job, each in a process of its own: `python -m jobs.benchmark.contenders`.

    python -m jobs.benchmark.contenders limit|pipeline|sweep|ray-data|tokenizer|scaling|s3|upload TASK.json

The last line on stdout is one JSON object; `documents`, `stamps` (CLOCK_MONOTONIC) and `workers` in it are what
jobs.benchmark.report.steady_rate takes. The process ends when its stdin does: with its parent.
"""

import json
import os
import sys
import threading
import time
from typing import Any

PIPELINE_STEP = 16  # documents between two looks at the clock, at least


def limit(task: dict[str, Any]) -> dict[str, Any]:
    """The bare model on batches that are in memory; see pipeline_ops.synthetic.reference_loops."""
    from pipeline_ops.models.device import resolve_dtype
    from pipeline_ops.synthetic.reference_loops import run_bare_model

    dtype = resolve_dtype(task["dtype"], task["use_gpu"])
    loop, labels = run_bare_model(
        task["model"], task["batches"], dtype=dtype, use_gpu=task["use_gpu"], processes=task["processes"]
    )
    names = _label_names(task["model"])
    _write_labels(task, [names[label] for label in labels.tolist()])
    return {"documents": len(labels), "seconds": loop.seconds, "dtype": dtype, **_model_facts(task["model"], task["use_gpu"])}


def tokenizer(task: dict[str, Any]) -> dict[str, Any]:
    """The bare tokenizer on texts that are in memory."""
    from pipeline_ops.synthetic.reference_loops import corpus_texts, run_bare_tokenizer, save_texts

    texts = corpus_texts(task["corpus"], task["text_column"])
    save_texts(texts, task["texts"])
    loop = run_bare_tokenizer(task["model"], task["texts"], task["processes"])
    os.unlink(task["texts"])
    return {"documents": len(texts), "seconds": loop.seconds}


def pipeline(task: dict[str, Any]) -> dict[str, Any]:
    """Hugging Face's pipeline as people use it: one process, texts in their order, torch with all cores."""
    from pipeline_ops.synthetic.reference_loops import corpus_texts

    texts = corpus_texts(task["corpus"], task["text_column"])[: task["documents"]]
    classifier = _pipeline(task["model"], task["dtype"], "cuda:0" if task["use_gpu"] else "cpu")
    labels, stamps = _labels_of(texts, classifier, task["batch_size"])
    _write_labels(task, labels, texts)
    return {"documents": len(texts), "stamps": stamps, "workers": 1}


def sweep(task: dict[str, Any]) -> dict[str, Any]:
    """The pipeline's documents/s per batch size on the first documents; ends when two sizes in a row were slower."""
    from pipeline_ops.synthetic.reference_loops import corpus_texts

    texts = corpus_texts(task["corpus"], task["text_column"])[: task["documents"]]
    classifier = _pipeline(task["model"], task["dtype"], "cuda:0" if task["use_gpu"] else "cpu")
    _labels_of(texts[:16], classifier, 4)  # warm up
    rates: dict[int, float] = {}
    for size in task["batch_sizes"]:
        started = time.monotonic()
        _labels_of(texts, classifier, size)
        rates[size] = len(texts) / (time.monotonic() - started)
        if len(rates) > 2 and max(list(rates.values())[-2:]) < max(rates.values()):
            break
    return {"rates": rates, "best": max(rates, key=lambda size: rates[size])}


def _pipeline(model: str, dtype: str, device: str) -> Any:
    import torch
    from transformers import pipeline as hugging_face_pipeline
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return hugging_face_pipeline("text-classification", model=model, dtype=getattr(torch, dtype), device=device)


def _labels_of(texts: list[str], classifier: Any, batch_size: int) -> tuple[list[str], list[float]]:
    """The labels, and the time after about every PIPELINE_STEP documents, in whole batches; a smaller rest has none."""
    step = batch_size * -(-PIPELINE_STEP // batch_size)
    labels: list[str] = []
    stamps: list[float] = []
    documents = (text for text in texts)  # a generator is how the pipeline gives results while it goes on
    for result in classifier(documents, batch_size=batch_size, truncation=True):
        labels.append(result["label"])
        if len(labels) % step == 0:
            stamps.append(time.monotonic())
    return labels, stamps


class TextClassifier:
    """The class of Ray Data's guide, with truncation, and a stamp per batch.

    From "Performing inference on text", https://docs.ray.io/en/latest/data/working-with-text.html
    """

    def __init__(self, model: str, dtype: str, batch_size: int, use_gpu: bool, stamps: str):
        self.model = _pipeline(model, dtype, "cuda:0" if use_gpu else "cpu")
        self.batch_size, self.stamps = batch_size, os.path.join(stamps, str(os.getpid()))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        predictions = self.model(list(batch["text"]), batch_size=self.batch_size, truncation=True)
        batch["label"] = [prediction["label"] for prediction in predictions]
        with open(self.stamps, "a", encoding="utf-8") as file:
            file.write(f"{time.monotonic()}\n")
        return batch


def ray_data(task: dict[str, Any]) -> dict[str, Any]:
    """read -> map_batches(TextClassifier) -> write_parquet, the pattern of Ray Data's guide (see TextClassifier).

    Where the guide leaves things open they are chosen in its favor: one single-thread actor per core, as many logical CPUs as
    the job has, so that reading does not wait for the actors' ones, and batches small enough that all actors have work.
    """
    import ray.data
    from ray.data import ActorPoolStrategy

    from cluster.session import connected

    stamps = os.path.join(task["output"], "stamps")
    os.makedirs(stamps)
    actors = task["processes"]
    with connected():
        ray.data.DataContext.get_current().enable_progress_bars = False
        read = ray.data.read_parquet if task["format"] == "parquet" else ray.data.read_json
        corpus = read(task["corpus"])
        if task["text_column"] != "text":
            corpus = corpus.select_columns([task["text_column"]]).rename_columns({task["text_column"]: "text"})
        if task["documents"] < task["all_documents"]:
            corpus = corpus.limit(task["documents"])
        device: dict[str, Any] = {"num_gpus": 1} if task["use_gpu"] else {"num_cpus": 1}
        corpus.map_batches(
            TextClassifier,  # pyright: ignore[reportArgumentType]
            fn_constructor_args=(task["model"], task["dtype"], task["batch_size"], task["use_gpu"], stamps),
            compute=ActorPoolStrategy(size=actors),
            batch_size=task["rows"],
            **device,
        ).write_parquet(task["labels"])
    times = sorted(float(line) for name in os.listdir(stamps) for line in open(os.path.join(stamps, name), encoding="utf-8"))  # noqa: SIM115
    return {"documents": task["documents"], "stamps": times, "workers": actors}


def scaling(task: dict[str, Any]) -> dict[str, Any]:
    """The job's chain with classifiers that sleep; see jobs.benchmark.scaling."""
    from jobs.benchmark.scaling import measure
    from jobs.console import signals as stopping

    stopping.install()  # it stops its Ray, whose processes would go on writing
    return measure(task)


def s3(task: dict[str, Any]) -> dict[str, Any]:
    """An S3 server on loopback, until stdin ends: says its address on stderr, and the time of each PUT on stdout.

    The server's own times have whole seconds only.
    """
    import moto.server
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication

    class Journal(DomainDispatcherApplication):
        def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
            answer = super().__call__(environ, start_response)
            if environ["REQUEST_METHOD"] == "PUT":
                os.write(1, f"PUT {time.monotonic()} {environ['PATH_INFO']}\n".encode())  # whole, from any thread
            return answer

    moto.server.DomainDispatcherApplication = Journal  # pyright: ignore[reportPrivateImportUsage] main's
    moto.server.main(["-H", "127.0.0.1", "-p", "0"])
    return {}


def upload(task: dict[str, Any]) -> dict[str, Any]:
    """Puts the corpus on the S3 server."""
    from pipeline_ops.storage.config import StorageConfig
    from pipeline_ops.storage.store import Store

    corpus, store = task["corpus"], Store(task["target"], StorageConfig(endpoint_url=task["endpoint"]))
    for path in [os.path.join(place, name) for place, _, names in os.walk(corpus) for name in names] or [corpus]:
        name = os.path.relpath(path, corpus) if path != corpus else os.path.basename(path)
        with open(path, "rb") as file:
            store.put(name, file.read())
    return {}


def _write_labels(task: dict[str, Any], labels: list[str], texts: list[str] | None = None) -> None:
    """Writes `text` and `label`, as the others do."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipeline_ops.synthetic.reference_loops import corpus_texts

    texts = corpus_texts(task["corpus"], task["text_column"])[: len(labels)] if texts is None else texts
    os.makedirs(task["labels"], exist_ok=True)
    pq.write_table(pa.table({"text": texts, "label": labels}), os.path.join(task["labels"], "labels.parquet"))


def _label_names(model: str) -> list[str]:
    from pipeline_ops.models.config import ModelConfig
    from pipeline_ops.models.resolve import resolve_model
    from pipeline_ops.storage.files import StorageConfig

    return list(resolve_model(ModelConfig(path=model), StorageConfig())[0].head.labels)


def _model_facts(model: str, use_gpu: bool) -> dict[str, Any]:
    import torch

    from pipeline_ops.models.config import ModelConfig
    from pipeline_ops.models.load import load_classifier
    from pipeline_ops.storage.files import StorageConfig

    loaded = load_classifier(ModelConfig(path=model), StorageConfig(), revision=None, dtype="float32", device="meta")
    parameters = sum(parameter.numel() for parameter in loaded.parameters())
    return {"gpu": torch.cuda.get_device_name() if use_gpu else None, "parameters": parameters}


CONTENDERS = {
    "limit": limit,
    "pipeline": pipeline,
    "sweep": sweep,
    "ray-data": ray_data,
    "tokenizer": tokenizer,
    "scaling": scaling,
    "s3": s3,
    "upload": upload,
}


def main() -> None:
    """Runs one contender; ends with its parent."""
    name, path = sys.argv[1:]
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
    with open(path, encoding="utf-8") as file:
        task = json.load(file)
    print(json.dumps(CONTENDERS[name](task)), flush=True)
    os._exit(0)  # as the job does: other threads have nothing left to do


if __name__ == "__main__":
    main()
