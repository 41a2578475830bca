"""The bounds of the job's speed: the bare model and the bare tokenizer, each in a loop of its own, on the same cores.

Several processes start together, behind a barrier, when all have loaded and warmed up; the time runs until the last has ended.
They take their work, one batch or chunk after the other, from a shared counter, so that none waits while another has work left.
"""

import inspect
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.listing import find_inputs
from pipeline_ops.loading.load import load_classifier
from pipeline_ops.models.config import ModelConfig
from pipeline_ops.models.resolve import resolve_model
from pipeline_ops.reading.reader import read_units
from pipeline_ops.reading.spans import ReadSettings, Span
from pipeline_ops.reading.unit_sizes import UnitSizes
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Range, row_of
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store
from pipeline_ops.tokenizing.batching import TokenBatches, attention_mask, make_batches
from pipeline_ops.tokenizing.encoding import encode, truncating_backend

UNIT_BYTES = 32 * 2**20
CHUNK_DOCUMENTS = 256
WARM_UP_BATCHES = 8


@dataclass(frozen=True)
class Loop:
    """The result of a loop: `first` and `last` are seconds of CLOCK_MONOTONIC, shared by all processes."""

    first: float
    last: float
    parts: list[Any]  # what each process returned

    @property
    def seconds(self) -> float:
        return self.last - self.first


def corpus_formats(path: str, text_column: str) -> set[str]:
    """The formats of a corpus' files.

    Raises:
        UserError: there are none.
    """
    files, _ = find_inputs(InputConfig(path=path, text_column=text_column), Store(path))
    return {file.format for file in files}


def corpus_texts(path: str, text_column: str) -> list[str]:
    """Every text of a corpus, in the order in which the job reads it.

    Raises:
        UserError: a file cannot be read, or a document has no text: the contenders would not label the same documents.
    """
    settings = InputConfig(path=path, text_column=text_column)
    files, _ = find_inputs(settings, Store(path))
    reading = ReadSettings(
        settings,
        StorageConfig(),
        OutputConfig(path="", columns="none"),
        pa.schema([(text_column, pa.string())]),
        UnitSizes(UNIT_BYTES),
        "",
    )
    texts: list[str] = []
    for unit in read_units([Span(file, (Range(0, None),)) for file in files], reading):
        if not isinstance(unit, tuple):
            raise UserError(f"--corpus: {unit.where}: {unit.message}")
        _, documents, rejects = unit
        if rejects:
            raise UserError(
                f"--corpus: {row_of(rejects[0].source_file, rejects[0].source_row)}: {rejects[0].reason}; remove it"
            )
        texts += documents[text_column].to_pylist()
    return texts


def sorted_batches(texts: list[str], model: str, batch_tokens: int) -> TokenBatches:
    """All texts as batches for that model, sorted by length over the whole corpus."""
    facts, tokenizer, *_ = resolve_model(ModelConfig(path=model), StorageConfig())
    encodings = encode(texts, truncating_backend(tokenizer, facts.max_length), with_type_ids=facts.has_type_ids)
    return make_batches(
        encodings,
        batch_tokens=batch_tokens,
        pad_id=facts.pad_id,
        pad_type_id=facts.pad_type_id,
        pad_left=facts.pad_left,
        max_width=facts.max_length,
    )


def save_batches(batches: TokenBatches, path: str) -> None:
    np.savez(path, **{field.name: getattr(batches, field.name) for field in fields(TokenBatches)})


def load_batches(path: str) -> TokenBatches:
    with np.load(path) as arrays:
        return TokenBatches(*(arrays[field.name] for field in fields(TokenBatches)))


def run_bare_model(model: str, batches: str, *, dtype: str, use_gpu: bool, processes: int) -> tuple[Loop, np.ndarray]:
    """Forward passes over saved batches, each already a tensor on its device when the time begins; longest batches first.

    Args:
        batches: path that save_batches has written.
        processes: one thread each on a CPU.

    Returns:
        The loop, and the label ids of the documents, int64, in the order of the texts.
    """
    loop = run_together(_classify_loop, (model, batches, dtype, use_gpu), processes)
    flat = load_batches(batches)
    ends = np.cumsum(flat.rows)
    labels = np.full(len(flat.order), -1, np.int64)
    for done in loop.parts:
        for batch, ids in done.items():
            labels[flat.order[ends[batch] - flat.rows[batch] : ends[batch]]] = ids
    assert (labels >= 0).all(), "every document has gone through the model"
    return loop, labels


def _classify_loop(take: Callable[[], int], ready: Callable[[], None], model: str, path: str, dtype: str, use_gpu: bool) -> Any:
    import torch

    if not use_gpu:
        torch.set_num_threads(1)
    config, storage = ModelConfig(path=model), StorageConfig()
    facts, *_ = resolve_model(config, storage)
    device = "cuda" if use_gpu else "cpu"
    classifier = load_classifier(config, storage, revision=facts.revision, dtype=dtype, device=device)
    inputs = [
        {name: torch.from_numpy(array).to(device) for name, array in batch.items()}
        for batch in _model_inputs(load_batches(path), classifier, facts.pad_left)
    ]
    outputs: dict[int, Any] = {}
    with torch.inference_mode():
        for batch in inputs[:: max(1, len(inputs) // WARM_UP_BATCHES)]:
            classifier(**batch)
        if use_gpu:
            torch.cuda.synchronize()
        ready()
        while (number := len(inputs) - 1 - take()) >= 0:
            outputs[number] = classifier(**inputs[number]).logits
        if use_gpu:
            torch.cuda.synchronize()
    ended = time.monotonic()
    return ended, {number: logits.float().argmax(dim=1).cpu().numpy() for number, logits in outputs.items()}


def _model_inputs(batches: TokenBatches, model: Any, pad_left: bool) -> list[dict[str, np.ndarray]]:
    """The model's arguments per batch, int64 (documents, width)."""
    takes = inspect.signature(model.forward).parameters
    inputs = []
    place = row = 0
    for rows, width in zip(batches.rows.tolist(), batches.widths.tolist(), strict=True):
        block = slice(place, place + rows * width)
        arrays = {"input_ids": batches.ids[block].reshape(rows, width).astype(np.int64)}
        mask = attention_mask(batches.lengths[row : row + rows], width, pad_left)
        if not mask.all():
            arrays["attention_mask"] = mask
        if len(batches.type_ids) and "token_type_ids" in takes:
            arrays["token_type_ids"] = batches.type_ids[block].reshape(rows, width).astype(np.int64)
        if pad_left and "position_ids" in takes:
            arrays["position_ids"] = np.maximum(mask.cumsum(axis=1) - 1, 0)
        inputs.append(arrays)
        place, row = block.stop, row + rows
    return inputs


def save_texts(texts: Sequence[str], path: str) -> None:
    """As an Arrow file of chunks, which processes map into their memory instead of copying it."""
    table = pa.table({"text": pa.array(texts, pa.large_string())})
    with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=CHUNK_DOCUMENTS)


def run_bare_tokenizer(model: str, texts: str, processes: int) -> Loop:
    """`encode_batch_fast` over all texts, a chunk at a time, and nothing kept.

    Args:
        texts: path that save_texts has written.
    """
    return run_together(_tokenize_loop, (model, texts), processes)


def _tokenize_loop(take: Callable[[], int], ready: Callable[[], None], model: str, path: str) -> Any:
    facts, tokenizer, *_ = resolve_model(ModelConfig(path=model), StorageConfig())
    backend = truncating_backend(tokenizer, facts.max_length)
    with pa.memory_map(path) as file:
        chunks = pa.ipc.open_file(file)
        backend.encode_batch_fast(chunks.get_batch(0)["text"].to_pylist())
        ready()
        while (number := take()) < chunks.num_record_batches:
            backend.encode_batch_fast(chunks.get_batch(number)["text"].to_pylist())
        return time.monotonic(), None


def run_together(loop: Callable[..., Any], arguments: tuple[Any, ...], processes: int) -> Loop:
    """Runs `loop` in that many processes; see the module.

    Args:
        loop: a function of a module, called with `take`, which gives 0, 1, 2, … to whichever process asks next; `ready`, which
            it calls once, when it has loaded; and the arguments. Returns when it has ended (time.monotonic), and its part.
    """
    context = multiprocessing.get_context("spawn")
    barrier, counter = context.Barrier(processes + 1), context.Value("q", 0)
    results = context.SimpleQueue()
    workers = [
        context.Process(target=_worker, args=(loop, barrier, counter, results, arguments), daemon=True)
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    while barrier.n_waiting < processes:  # a worker that dies while it loads would leave the others waiting for ever
        if any(worker.exitcode for worker in workers):
            raise RuntimeError("a process of the bare loop has died; its error stands above")
        time.sleep(0.01)
    first = time.monotonic()
    barrier.wait()
    ended = []
    while len(ended) < processes:
        while results.empty():
            if any(worker.exitcode for worker in workers):
                raise RuntimeError("a process of the bare loop has died; its error stands above")
            time.sleep(0.01)
        ended.append(results.get())
    for worker in workers:
        worker.join()
    return Loop(first, max(last for last, _ in ended), [part for _, part in ended])


def _worker(loop: Callable[..., Any], barrier: Any, counter: Any, results: Any, arguments: tuple[Any, ...]) -> None:
    def take() -> int:
        with counter.get_lock():
            counter.value += 1
            return counter.value - 1

    results.put(loop(take, barrier.wait, *arguments))
