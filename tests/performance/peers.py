"""Measures the job beside other people's patterns, by hand: python -m tests.performance.peers [--contender NAME] [--seconds 60]

Contenders: Hugging Face's `pipeline`, in float32 and in the job's dtype, with its default and with its best batch size
(pipeline, pipeline-best); the pattern of Ray Data's guide (ray-data, ray-data-best); the job on an S3 server on the same cores
(job-s3). All label the corpus of `label-corpus benchmark`, which measures the limit and the job beside them.
"""

import argparse
import json
import os
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cluster.session import this_machine
from jobs.benchmark.contenders import run_process, write_labels
from jobs.benchmark.modes import measure_contenders
from jobs.benchmark.processes import run_contender
from jobs.benchmark.report import of_run, print_result, save
from jobs.benchmark.runs import Run, job_run, start_job
from jobs.benchmark.setup import LEAST_DOCUMENTS, BenchmarkSetup, Options, say
from pipeline_ops.synthetic.reference_loops import corpus_formats, corpus_texts
from tests.servers.s3_server import REGION, moto_server

PEERS = ("job-s3", "pipeline", "pipeline-best", "ray-data", "ray-data-best")
PEER_SECONDS = 120.0  # a peer labels only as much as it can in this time
BATCH_SIZES = (1, 8, 32, 64, 128, 256)  # of the pipeline, tried in this order
SWEEP_DOCUMENTS = 128
LEAST_BATCHES = 16  # that a corpus has to give, for a steady state to show
PIPELINE_STEP = 16  # documents between two time stamps, at least
RAY_ROWS = 16  # per batch of Ray Data on a CPU; few, so that the last ones leave no core idle for long
RAY_ROWS_GPU = 256
BUCKET = "benchmark"


def peer_runs(setup: BenchmarkSetup, chosen: set[str], notes: list[str], stack: ExitStack) -> dict[str, Run]:
    """The chosen peers, by name; the pipeline's and Ray Data's names end with their dtype.

    Ray Data runs as its guide has it, in float32 and with single documents, and as well as the pipeline inside it can do.
    """
    runs: dict[str, Run] = {}
    if "job-s3" in chosen:
        runs["job-s3"] = job_on_s3(setup, stack)
        notes.append("job-s3: the S3 server (moto) works on the same cores; what it takes of them counts against the job")
    peers = [("pipeline", run_pipeline), ("ray-data", run_ray_data)]
    for dtype in dict.fromkeys(["float32", setup.dtype]):
        if chosen <= {"job-s3"}:
            break
        best, rates = sweep_batch_sizes(setup, dtype)
        for kind, run in peers:
            if kind in chosen and (kind == "pipeline" or dtype == "float32"):
                runs[f"{kind}-{dtype}"] = peer(run, setup, dtype, 1, rates[1])
            if f"{kind}-best" in chosen and (kind == "pipeline" or dtype == setup.dtype):
                if best == 1 and f"{kind}-{dtype}" in runs:
                    notes.append(f"{kind}-{dtype}: its best batch size is its default, 1")
                else:
                    runs[f"{kind}-best-{dtype}"] = peer(run, setup, dtype, best, rates[best])
                    notes.append(f"{kind}-best-{dtype}: batches of {best}")
    notes.append("slow contenders label only the first documents; their whole process is taken to go on at its steady rate")
    return runs


def peer(run: Callable[..., Any], setup: BenchmarkSetup, dtype: str, batch_size: int, rate: float) -> Run:
    count = min(setup.documents, max(LEAST_DOCUMENTS, int(rate * PEER_SECONDS)))
    return lambda folder: run(setup, folder, dtype, batch_size, count)


def job_on_s3(setup: BenchmarkSetup, stack: ExitStack) -> Run:
    """Starts a server with the corpus, which ends with `stack`; the run reads and writes there."""
    server = stack.enter_context(moto_server(Path(setup.folder)))
    files = server.filesystem()
    files.mkdir(BUCKET)
    files.put(setup.corpus, f"{BUCKET}/corpus", recursive=os.path.isdir(setup.corpus))
    environment: dict[str, str | None] = {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_SESSION_TOKEN": None,
        "AWS_PROFILE": None,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }

    def run(folder: str) -> tuple[dict[str, Any], None]:
        storage = {"endpoint_url": server.endpoint_url}
        target = f"s3://{BUCKET}/{uuid.uuid4().hex}"
        summary, seconds = start_job(setup, folder, f"s3://{BUCKET}/corpus", target, storage, environment)
        return job_run(setup, summary, seconds, []), None

    return run


def sweep_batch_sizes(setup: BenchmarkSetup, dtype: str) -> tuple[int, dict[int, float]]:
    """The pipeline's best batch size, and its documents/s by batch size, on the first documents."""
    few = min(SWEEP_DOCUMENTS * (8 if setup.pools.use_gpu else 1), setup.documents // 4)
    sizes = [size for size in BATCH_SIZES if size <= max(8, setup.documents // LEAST_BATCHES)]
    task = setup.task(dtype=dtype, documents=few, batch_sizes=sizes)
    result, _ = run_contender("sweep", task, setup.folder, this_machine().cores, MODULE)
    rates = {int(size): rate for size, rate in result["rates"].items()}
    by_size = ", ".join(f"{size}: {rate:,.0f}" for size, rate in rates.items())
    say(f"pipeline, {dtype}, documents/s by batch size: {by_size}", setup.options)
    return result["best"], rates


def run_pipeline(setup: BenchmarkSetup, folder: str, dtype: str, batch_size: int, count: int) -> tuple[dict[str, Any], str]:
    labels = os.path.join(folder, "labels")
    task = setup.task(dtype=dtype, batch_size=batch_size, documents=count, labels=labels)
    result, seconds = run_contender("pipeline", task, folder, this_machine().cores, MODULE)
    return of_run(count, result["stamps"], 1, seconds, setup.documents), labels


def run_ray_data(setup: BenchmarkSetup, folder: str, dtype: str, batch_size: int, count: int) -> tuple[dict[str, Any], str]:
    labels = os.path.join(folder, "labels")
    (corpus_format,) = corpus_formats(setup.corpus, setup.text_column)
    task = setup.task(
        dtype=dtype,
        batch_size=batch_size,
        rows=max(batch_size, RAY_ROWS_GPU if setup.pools.use_gpu else RAY_ROWS),
        documents=count,
        all_documents=setup.documents,
        format=corpus_format,
        output=folder,
        labels=labels,
    )
    result, seconds = run_contender("ray-data", task, folder, None if setup.pools.use_gpu else 1, MODULE)
    return of_run(count, result["stamps"], result["workers"], seconds, setup.documents), labels


# what follows runs in the process of a contender


def pipeline(task: dict[str, Any]) -> dict[str, Any]:
    """Hugging Face's pipeline as people use it: one process, texts in their order, torch with all cores."""
    texts = corpus_texts(task["corpus"], task["text_column"])[: task["documents"]]
    labels, stamps = classify(texts, load_pipeline(task), task["batch_size"])
    write_labels(task, labels)
    return {"documents": len(texts), "stamps": stamps, "workers": 1}


def sweep(task: dict[str, Any]) -> dict[str, Any]:
    """The pipeline's documents/s per batch size on the first documents; ends when two sizes in a row were slower."""
    texts = corpus_texts(task["corpus"], task["text_column"])[: task["documents"]]
    classifier = load_pipeline(task)
    classify(texts[:16], classifier, 4)  # warm up
    rates: dict[int, float] = {}
    for size in task["batch_sizes"]:
        started = time.monotonic()
        classify(texts, classifier, size)
        rates[size] = len(texts) / (time.monotonic() - started)
        if len(rates) > 2 and max(list(rates.values())[-2:]) < max(rates.values()):
            break
    return {"rates": rates, "best": max(rates, key=lambda size: rates[size])}


def load_pipeline(task: dict[str, Any]) -> Any:
    import torch
    from transformers import pipeline as hugging_face_pipeline
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    device = "cuda:0" if task["use_gpu"] else "cpu"
    return hugging_face_pipeline("text-classification", model=task["model"], dtype=getattr(torch, task["dtype"]), device=device)


def classify(texts: list[str], classifier: Any, batch_size: int) -> tuple[list[str], list[float]]:
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

    def __init__(self, task: dict[str, Any], stamps: str):
        self.model = load_pipeline(task)
        self.batch_size, self.stamps = task["batch_size"], os.path.join(stamps, str(os.getpid()))

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
            fn_constructor_args=(task, stamps),
            compute=ActorPoolStrategy(size=actors),
            batch_size=task["rows"],
            **device,
        ).write_parquet(task["labels"])
    times = sorted(float(line) for path in Path(stamps).iterdir() for line in path.read_text().split())
    return {"documents": task["documents"], "stamps": times, "workers": actors}


MODULE = "tests.performance.peers"
CHILDREN = {"pipeline": pipeline, "sweep": sweep, "ray-data": ray_data}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--contender", action="append", choices=PEERS, help="repeatable; default: all")
    arguments.add_argument("--model", help="local folder")
    arguments.add_argument("--corpus", help="local Parquet or JSON Lines")
    arguments.add_argument("--text-column", default="text")
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--repeat", type=int, default=3)
    arguments.add_argument("--dtype", default="auto")
    arguments.add_argument("--size", default="full")
    arguments.add_argument("--output", help="folder for benchmark.json and benchmark.png")
    given = vars(arguments.parse_args())
    chosen, output = {*(given.pop("contender") or PEERS)}, given.pop("output")
    with ExitStack() as stack:
        result = measure_contenders(Options(**given), lambda setup, notes: peer_runs(setup, chosen, notes, stack))
    print_result(result)
    if output:
        save(result, output)
    print(json.dumps(result))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in CHILDREN:
        run_process(CHILDREN)
    else:
        main()
