"""Tokens/s of a core that tokenizes as the job does, with more and more processes; what they cost whoever launches kernels."""

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa

from cluster.session import usable_cores
from jobs.gpu_benchmark.phases import Bench
from pipeline_ops.synthetic.benchmark_corpus import real_passages, shaped_texts
from pipeline_ops.synthetic.reference_loops import CHUNK_DOCUMENTS, Loop, run_together, save_texts
from pipeline_ops.tokenizing.batching import batches_to_columns, make_batches
from pipeline_ops.tokenizing.sequences import TextEncoder, definition_of
from pipeline_ops.training.base_model import train_wordpiece

VOCABULARY, MAX_LENGTH = 30_522, 512  # of BERT
BATCH_TOKENS = 65_536
PASSAGES = 3000
CHARACTERS_PER_TOKEN = 3.6  # of these passages
CHUNKS, CHUNKS_PER_PROCESS = 48, 12  # of CHUNK_DOCUMENTS: 3 million tokens in all, 800,000 for each
LAUNCHES = 400  # of a small kernel, whose time is the host's


def measure(bench: Bench) -> None:
    """A row per number of processes, as they are and nice; `launch_microseconds`: of a kernel, by this process meanwhile."""
    from transformers.utils import logging

    from jobs.executors.ray_executor import TOKENIZER_NICENESS

    logging.set_verbosity_error()
    passages = real_passages(200 if bench.tiny else PASSAGES)
    tokenizer = train_wordpiece(passages, 2000 if bench.tiny else VOCABULARY, lowercase=True)
    definition = definition_of(tokenizer, MAX_LENGTH)
    launch = _launcher(bench)
    bench.row({"processes": 0, "launch_microseconds": min(launch() for _ in range(3))})
    cores = usable_cores()
    most = 2 if bench.tiny else 2 * cores  # a logical CPU each, as Ray has them
    plans = (
        [(most, 0), (most, TOKENIZER_NICENESS)]
        if bench.tiny
        else [(16, 0), (1, 0), (most, 0), (most, TOKENIZER_NICENESS), (8, 0)]
    )
    with tempfile.TemporaryDirectory(prefix="label-corpus-gpu-") as folder:
        path = os.path.join(folder, "texts.arrow")
        chunks = 4 if bench.tiny else CHUNKS
        save_texts(list(islice(shaped_texts(passages, CHARACTERS_PER_TOKEN), chunks * CHUNK_DOCUMENTS)), path)
        for processes, niceness in plans:
            if not bench.has_time(4):
                bench.row({"processes": processes, "niceness": niceness, "left_out": "no time left"})
                continue
            work = processes * (2 if bench.tiny else CHUNKS_PER_PROCESS)
            run = partial(run_together, _tokenize, (definition, path, work, niceness), processes)
            loop, microseconds = _meanwhile(run, launch)
            rate = sum(loop.parts) / loop.seconds
            bench.row(
                {
                    "processes": processes,
                    "niceness": niceness,
                    "cores": cores,
                    "tokens_per_second": rate,
                    "tokens_per_second_per_core": rate / min(processes, cores),
                    "launch_microseconds": microseconds,
                }
            )


def _tokenize(
    take: Callable[[], int], ready: Callable[[], None], definition: str, path: str, work: int, niceness: int
) -> tuple[float, int]:
    """What a tokenizer of the job does with its texts, until `work` chunks are done by all; the number of tokens."""
    os.nice(niceness)
    encoder = TextEncoder(definition, with_type_ids=True)
    tokens = 0
    with pa.memory_map(path) as file:
        chunks = pa.ipc.open_file(file)
        encoder.encode([chunks.get_batch(0)["text"].to_pylist()])
        ready()
        while (number := take()) < work:
            encodings = encoder.encode([chunks.get_batch(number % chunks.num_record_batches)["text"].to_pylist()])
            batches = make_batches(encodings, batch_tokens=BATCH_TOKENS, pad_id=0, max_width=MAX_LENGTH)
            batches_to_columns(batches, 0)
            tokens += int(encodings.num_tokens.sum())
        return time.monotonic(), tokens


def _launcher(bench: Bench) -> Callable[[], float]:
    """A function that launches kernels for some milliseconds and waits for them; returns the microseconds of each."""
    import torch

    values = torch.ones(64, device=bench.device)

    def launch() -> float:
        def all_of_them() -> None:
            for _ in range(LAUNCHES):
                values.mul_(1)

        return 1e6 * bench.seconds(all_of_them) / LAUNCHES

    launch()
    return launch


def _meanwhile(run: Callable[[], Loop], launch: Callable[[], float]) -> tuple[Loop, float | None]:
    """The loop, and the mean of what `launch` returned between its begin and its end, while the processes were at work."""
    seen: list[tuple[float, float, float]] = []
    with ThreadPoolExecutor(1) as thread:
        running: Any = thread.submit(run)
        while not running.done():
            begin = time.monotonic()
            took = launch()
            seen.append((begin, time.monotonic(), took))
            time.sleep(0.02)
        loop = running.result()
    within = [took for begin, end, took in seen if begin >= loop.first and end <= loop.last]
    return loop, sum(within) / len(within) if within else None
