"""How many actors of each stage, with what share of a CPU or GPU; checked against what the cluster has."""

from dataclasses import dataclass
from math import ceil
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

TOKENIZERS_PER_GPU = 6  # where the model's size is not known
TOKENS_PER_CORE = 600_000  # that a core tokenizes in a second, about: 3 MB of text
GPU_FLOPS = 5e14  # per second that a model gets out of a GPU, at half of an H200's peak in bfloat16
CORE_FLOPS = 1e11  # the same for a core, in float32 with AVX-512
LEAST_PASS_FLOPS = 2e9  # of a forward pass on a core: 20 ms, beside which what torch does per pass is little
READER_CPUS = 0.5  # of a logical CPU; differs from the tokenizers' so that Ray does not fuse reading into them:
WRITER_CPUS = 0.5  # one large file would then be tokenized by one actor


class ComputeConfig(BaseModel):
    """How the work is spread. None of these changes results."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokenizers: Annotated[int, Field(gt=0)] | Literal["auto"] = Field(
        default="auto", description="tokenizing actors, a core each"
    )
    classifiers: Annotated[int, Field(gt=0)] | Literal["auto"] = Field(default="auto", description="actors that hold the model")
    gpus_per_classifier: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        default="auto", description="fractions share a GPU; 0: CPU replicas"
    )
    batch_tokens: Annotated[int, Field(gt=0)] | Literal["auto"] = Field(
        default="auto", description="tokens of a forward pass, padding included"
    )
    unit_bytes: Annotated[int, Field(gt=0)] | Literal["auto"] = Field(
        default="auto", description="input per unit, about: read, labelled and committed as a whole"
    )
    max_failed_units: int | None = Field(
        default=100, ge=0, description="failed units at which a run stops early; null: it never does"
    )


@dataclass(frozen=True)
class Machines:
    """What there is to run on.

    `here`: Ray runs on this machine alone, for this job; then `cores` are physical, else they are Ray's CPUs.
    """

    cpus: float  # Ray's logical CPUs
    cores: int
    gpus: float
    here: bool = False


@dataclass(frozen=True)
class Pools:
    """The resolved numbers, and where each came from."""

    tokenizers: int
    classifiers: int
    gpus_per_classifier: float
    batch_tokens: int | None  # None: what a GPU's memory allows, which is known only where it is
    sources: dict[str, str]

    @property
    def use_gpu(self) -> bool:
        return self.gpus_per_classifier > 0


def tokenizers_for(flops: float, token_flops: float) -> int:
    """Cores of tokenizing that keep a model busy, rounded up: its tokens per second over those that a core tokenizes.

    Args:
        flops: per second, of all devices that hold the model.
        token_flops: of the model, per token.
    """
    return ceil(flops / token_flops / TOKENS_PER_CORE)


def tokens_per_pass(token_flops: float) -> int:
    """Tokens of a forward pass on a core: 2048, or 4096 for models so small that a pass would be over in no time.

    Not more: documents of more different lengths would share a batch, and need more padding.
    """
    return 4096 if 4096 * token_flops < LEAST_PASS_FLOPS else 2048


def resolve_pools(compute: ComputeConfig, machines: Machines, token_flops: float | None = None) -> Pools:
    """Fills in what is `auto`.

    Args:
        token_flops: of the model, per token, about; None: not known.

    Raises:
        ValueError: the cluster can never hold what is asked for.
    """
    sources: dict[str, str] = {}

    def resolve(key: str, automatic, why: str):
        value = getattr(compute, key)
        sources[key] = why if value == "auto" else "job file"
        return automatic if value == "auto" else value

    gpus = resolve("gpus_per_classifier", 1.0 if machines.gpus else 0.0, f"{machines.gpus:g} GPUs there are")
    if gpus:
        if gpus > machines.gpus:
            raise ValueError(f"compute.gpus_per_classifier: {gpus:g} asked for, the cluster has {machines.gpus:g} GPUs")
        # an actor's share is of one GPU: two of 0.6 do not fit on one, nor does half of one on each of two
        room = int(machines.gpus) * int(1 / gpus + 1e-9) if gpus <= 1 else int(machines.gpus / gpus)
        classifiers = resolve("classifiers", room, f"{machines.gpus:g} GPUs, {gpus:g} each")
        spare = int(machines.cpus - classifiers - READER_CPUS - WRITER_CPUS)
        wanted = TOKENIZERS_PER_GPU * int(machines.gpus)
        if token_flops:
            wanted = tokenizers_for(GPU_FLOPS * classifiers * min(gpus, 1), token_flops)
        tokenizers = resolve("tokenizers", max(1, min(spare, wanted)), f"{wanted} cores keep the GPUs busy")
        if classifiers > room:
            raise ValueError(
                f"compute.classifiers: {classifiers} of {gpus:g} GPUs each, {machines.gpus:g} GPUs have room for {room}"
            )
    else:
        wanted = max(1, machines.cores // 8)
        if token_flops:  # far above it only for models that compute next to nothing
            wanted = min(max(wanted, tokenizers_for(CORE_FLOPS * machines.cores, token_flops)), machines.cores)
        tokenizers = resolve("tokenizers", wanted, f"{wanted} keep {machines.cores} cores busy")
        spare = int(machines.cpus - tokenizers - READER_CPUS - WRITER_CPUS)
        classifiers = resolve(
            "classifiers", max(1, min(machines.cores, spare)), f"a single thread on each of {machines.cores} cores"
        )
    needed = classifiers + tokenizers + READER_CPUS + WRITER_CPUS
    if needed > machines.cpus:
        raise ValueError(
            f"compute: {classifiers} classifiers and {tokenizers} tokenizers need {needed:g} CPUs with reading and writing,"
            f" the cluster has {machines.cpus:g}; lower compute.classifiers or compute.tokenizers"
        )
    on_cores = tokens_per_pass(token_flops) if token_flops else 2048
    batch_tokens = resolve("batch_tokens", None if gpus else on_cores, "the GPU's memory" if gpus else "the model's size")
    return Pools(tokenizers, classifiers, gpus, batch_tokens, sources)
