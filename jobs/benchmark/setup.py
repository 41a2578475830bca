"""The setup of a benchmark, the same for every contender: model, corpus, dtype and cores; made here where not given.

The corpus is as large as the bare model labels in --seconds, by a trial on a few documents.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import islice
from typing import Any

import numpy as np

from cluster.resources import TOKENS_PER_CORE, ComputeConfig, Pools, resolve_pools
from cluster.session import this_machine
from jobs.benchmark.processes import run_contender
from pipeline_ops.loading.device import resolve_dtype
from pipeline_ops.models.config import ModelConfig
from pipeline_ops.models.resolve import resolve_model
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.synthetic.benchmark_corpus import ModelShape, make_model_once, real_passages, shaped_texts, write_corpus
from pipeline_ops.synthetic.reference_loops import corpus_formats, corpus_texts, save_batches, sorted_batches
from pipeline_ops.tokenizing.batching import TokenBatches

DEFAULT_CONTENDERS = ("limit", "job")
CONTENDERS = (*DEFAULT_CONTENDERS, "job-on-ray")  # of --contender
FOLDER = "~/.cache/label-corpus/benchmark"
DTYPES = ("auto", "float32", "bfloat16", "float16")
GROUP_DOCUMENTS = 1000  # per row group: what the datasets library writes
LEAST_DOCUMENTS = 240
FACTS_DOCUMENTS = 20_000  # of which the tokens are counted where the corpus is as large as what all cores tokenize
UNIT_FILL = 0.75  # unit_bytes per row group's bytes: none is then put together with the next, and none cut
GPU_BATCH_TOKENS = 65_536  # the same for all, whatever the memory allows
PIECE_CHARACTERS = 1000  # of a text whose tokens are counted


@dataclass(frozen=True)
class Size:
    """The dimensions of the model and the corpus that the command makes itself."""

    model: ModelShape
    most_documents: int
    passages: int
    sample: int  # documents per core that the trial labels; a GPU labels a hundred times as many
    units: int | None = None  # of the job, per worker; None: as large as the job makes them itself


SIZES = {
    "full": Size(ModelShape(6, 384, 12, 1536), 20_000_000, 12_000, 48),
    "tiny": Size(ModelShape(2, 32, 2, 64, vocabulary=2000, max_length=128), 240, 600, 48, units=6),
}
HOST_MODEL = ModelShape(1, 8, 0, 8)  # what it computes is next to nothing; vocabulary and max_length are the real ones
TINY_HOST_MODEL = ModelShape(1, 8, 0, 8, vocabulary=2000, max_length=128)


@dataclass(frozen=True)
class Options:
    """The options of the command line."""

    model: str | None = None
    corpus: str | None = None
    text_column: str = "text"
    seconds: float = 60.0
    repeat: int = 3
    contenders: tuple[str, ...] = DEFAULT_CONTENDERS
    dtype: str = "auto"
    batch_tokens: int | None = None
    size: str = "full"
    quiet: bool = False


@dataclass
class BenchmarkSetup:
    """What all contenders have in common: model, corpus, dtype, batch size and workers."""

    options: Options
    folder: str  # temporary
    model: str
    corpus: str
    pools: Pools  # of the job
    compute: dict[str, int]  # settings of the job
    workers: int  # actors of the job that are at work on a unit each, while it is the bottleneck
    dtype: str
    own_code: bool = False  # the model's folder has code of this program, bag_of_tokens
    model_bound: bool = True  # False: reading, tokenizing and writing take most of the time
    text_column: str = "text"
    documents: int = 0
    text_bytes: int = 0
    facts: dict[str, Any] = field(default_factory=dict)  # of the corpus
    measured_on: dict[str, Any] = field(default_factory=dict)  # what only a process with the model knows

    @property
    def processes(self) -> int:
        """One per core, or one for the GPU."""
        return 1 if self.pools.use_gpu else this_machine().cores

    @property
    def batch_tokens(self) -> int:
        """The same for all: where there are GPUs, the job's setting decides."""
        assert self.pools.batch_tokens is not None
        return self.pools.batch_tokens

    @property
    def batches(self) -> str:
        return os.path.join(self.folder, "batches.npz")

    def task(self, **more: Any) -> dict[str, Any]:
        """Input of a process of contenders.py."""
        return {
            "model": self.model,
            "corpus": self.corpus,
            "text_column": self.text_column,
            "use_gpu": self.pools.use_gpu,
            "processes": self.processes,
            **more,
        }

    def row_groups(self, documents: int) -> int:
        """Of a corpus of so many documents that is made here."""
        units = SIZES[self.options.size].units
        return min(documents, self.workers * units) if units else -(-documents // GROUP_DOCUMENTS)

    def unit_bytes(self) -> int | str:
        """The job's setting."""
        units = SIZES[self.options.size].units
        return max(1, int(UNIT_FILL * self.text_bytes / (self.workers * units))) if units else "auto"


def say(text: str, options: Options) -> None:
    if not options.quiet:
        print(f"benchmark: {text}", file=sys.stderr, flush=True)


def check(options: Options) -> None:
    """Checks the options before anything is made or measured.

    Raises:
        UserError: no such model, corpus, contender, dtype or size.
    """
    for name in options.contenders:
        if name not in CONTENDERS:
            raise UserError(f"--contender: {name!r} is none of {', '.join(CONTENDERS)}")
    if options.dtype not in DTYPES:
        raise UserError(f"--dtype: {options.dtype!r} is none of {', '.join(DTYPES)}")
    if options.size not in SIZES:
        raise UserError(f"--size: {options.size!r} is none of {', '.join(SIZES)}")
    if options.model and not os.path.isfile(os.path.join(full(options.model), "config.json")):
        raise UserError(
            f"--model: {options.model!r} is no local folder with a config.json; give one that save_pretrained wrote"
        )
    if options.corpus:
        if not os.path.exists(full(options.corpus)):
            raise UserError(
                f"--corpus: {options.corpus!r} does not exist; give a local file or folder of Parquet or JSON Lines"
            )
        if corpus_formats(full(options.corpus), options.text_column) not in ({"parquet"}, {"jsonl"}):
            raise UserError(
                f"--corpus: {options.corpus!r} holds other files than Parquet, or than JSON Lines; give one of these"
            )


def full(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def make_setup(options: Options, folder: str) -> BenchmarkSetup:
    """The setup on which the model's forward passes take most of the time.

    Raises:
        UserError: see check(); or a document of the corpus has no text.
    """
    check(options)
    setup, passages, given = _begin(options, folder, SIZES[options.size].model)
    few = SIZES[options.size].sample * (100 if setup.pools.use_gpu else setup.processes)
    _write_sample(setup, given or own_texts(passages, setup.model), few)
    sample = os.path.join(folder, "sample")
    save_batches(sorted_batches(corpus_texts(sample, "text"), setup.model, setup.batch_tokens), setup.batches)
    task = setup.task(dtype=options.dtype, batches=setup.batches, labels=os.path.join(folder, "sample-labels"))
    measured, _ = run_contender("limit", {**task, "corpus": sample, "text_column": "text"}, folder, 1)
    setup.dtype = measured["dtype"]
    setup.measured_on = {"gpu": measured["gpu"], "parameters": measured["parameters"]}
    batches = _finish(setup, passages, measured["documents"] / measured["seconds"])
    save_batches(batches, setup.batches)
    return setup


def make_host_setup(options: Options, folder: str) -> BenchmarkSetup:
    """The setup on which the model computes next to nothing; sized by the bare tokenizer. Raises what make_setup() does."""
    check(options)
    cores = this_machine().cores
    shape = TINY_HOST_MODEL if options.size == "tiny" else HOST_MODEL
    setup, passages, given = _begin(options, folder, shape)
    setup.workers = setup.pools.tokenizers + setup.pools.classifiers
    setup.dtype = "float32"
    setup.own_code = not options.model
    setup.model_bound = False
    _write_sample(setup, given or own_texts(passages, setup.model), 2000 if options.size == "tiny" else 20_000)
    task = {
        **setup.task(processes=cores, texts=os.path.join(folder, "texts.arrow")),
        "corpus": os.path.join(folder, "sample"),
        "text_column": "text",
    }
    measured, _ = run_contender("tokenizer", task, folder, 1)
    setup.measured_on = {"gpu": None, "parameters": None}
    _finish(setup, passages, measured["documents"] / measured["seconds"], most=FACTS_DOCUMENTS)
    return setup


def _begin(options: Options, folder: str, shape: ModelShape) -> tuple[BenchmarkSetup, list[str], Iterator[str] | None]:
    """A setup without a corpus yet; the passages to make one of, or the texts of the one that is given."""
    batch_tokens = options.batch_tokens or (GPU_BATCH_TOKENS if this_machine().gpus else None)
    settings = {"batch_tokens": batch_tokens} if batch_tokens else {}
    given = corpus_texts(full(options.corpus), options.text_column) if options.corpus else None
    passages = [] if given and options.model else real_passages(SIZES[options.size].passages)
    model = full(options.model) if options.model else own_model(shape, passages)
    found = resolve_model(ModelConfig(path=model), StorageConfig())
    compute = ComputeConfig(**settings)  # pyright: ignore[reportArgumentType]
    pools = resolve_pools(compute, this_machine(), found.token_flops, found.tokens_per_core or TOKENS_PER_CORE)
    setup = BenchmarkSetup(
        options,
        folder,
        model=model,
        corpus=full(options.corpus) if options.corpus else os.path.join(folder, "corpus"),
        pools=pools,
        compute=settings,
        workers=pools.classifiers,
        dtype=options.dtype,
        text_column=options.text_column if options.corpus else "text",
    )
    return setup, passages, None if given is None else iter(given)


def own_model(shape: ModelShape, passages: list[str]) -> str:
    os.makedirs(full(FOLDER), exist_ok=True)
    return make_model_once(shape, passages, full(FOLDER))


def own_texts(passages: list[str], model: str) -> Iterator[str]:
    """Endless documents whose lengths fit the model's tokenizer."""
    sample = [text[:PIECE_CHARACTERS] for text in passages[:500]]
    tokens = int(sorted_batches(sample, model, 2**20).lengths.sum())
    return shaped_texts(passages, sum(map(len, sample)) / tokens)


def _write_sample(setup: BenchmarkSetup, texts: Iterator[str], count: int) -> None:
    few = list(islice(texts, count))
    write_corpus(iter(few), len(few), os.path.join(setup.folder, "sample"), row_groups=1)


def _finish(setup: BenchmarkSetup, passages: list[str], rate: float, most: int | None = None) -> TokenBatches:
    """Writes the corpus, where none is given, and fills in its facts; tokenizes the first `most` documents, None: all."""
    if not setup.options.corpus:
        count = min(SIZES[setup.options.size].most_documents, max(LEAST_DOCUMENTS, int(rate * setup.options.seconds)))
        say(f"the limit is about {rate:,.0f} documents/s here; making a corpus of {count:,}", setup.options)
        write_corpus(own_texts(passages, setup.model), count, setup.corpus, setup.row_groups(count))
    texts = corpus_texts(setup.corpus, setup.text_column)
    batches = sorted_batches(texts[:most], setup.model, setup.batch_tokens)
    setup.documents, setup.text_bytes = len(texts), sum(len(text.encode()) for text in texts)
    half, most = (int(value) for value in np.percentile(batches.lengths, [50, 90]))
    setup.facts = {
        "documents": setup.documents,
        "text_bytes": setup.text_bytes,
        "tokens": int(batches.lengths.sum() * (len(texts) / len(batches.lengths))),
        "tokens_p50": half,
        "tokens_p90": most,
        "tokens_max": int(batches.lengths.max()),
        "padding_share": 1 - int(batches.lengths.sum()) / len(batches.ids),
    }
    return batches


def machine_facts() -> dict[str, Any]:
    """CPU, cores and package versions of this machine."""
    cpu = "unknown"
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            cpu = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), cpu)
    names = ("label-corpus", "ray", "torch", "transformers", "tokenizers", "pyarrow")
    return {
        "hardware": {
            "cores": this_machine().cores,
            "cpu": cpu,
            "native_bfloat16": resolve_dtype("auto", use_gpu=False) == "bfloat16",
        },
        "versions": {"python": sys.version.split()[0], **{name: version(name) for name in names}},
    }
