"""How many actors of each stage, with what share of a CPU or GPU; checked against what the cluster has, or can ever have."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

TOKENS_PER_CORE = 350_000  # that a core of a job tokenizes in a second in Rust: 1.5 MB of text; measured, 290,000 to 400,000
TOKENIZERS_AHEAD = 1.75  # times those that the GPUs need, where cores are free: texts and cores differ, and GPUs cost more
READ_WRITE_SHARE = 1 / 8  # of the cores beside GPUs: 0.4 µs per token, where tokenizing takes 2.9
TOKEN_FLOPS = 1.7e8  # of BERT-base, where the model's are not known
GPU_FLOPS = 5e14  # per second that a model gets out of a GPU, at half of an H200's peak in bfloat16
CORE_FLOPS = 1e11  # the same for a core, in float32 with AVX-512
OBJECT_STORE_BYTES = 2 * 2**30  # of a Ray on one machine, at least
TOKENIZED_OVER_TEXT = 2.2  # bytes of a unit with its token batches, over those of its text
OBJECT_STORE_SHARE = 0.3  # of the memory, at most
SHARED_MEMORY_SHARE = 0.95  # of what is free, at most, as Ray: it refuses a large store if less is free when it starts
BYTES_PER_TOKEN = 4  # of text, in a Latin alphabet
LEAST_UNIT_SECONDS = 1.0  # of a classifier, at the end of a run: they end so far apart, and a unit's way takes 0.1 of a core
UNIT_SECONDS_PER_CLASSIFIER = 0.03  # or so long, for each of them: the driver hands over some 40 units a second
LEAST_PASS_FLOPS = 2e9  # of a forward pass on a core: 20 ms, beside which what torch does per pass is little
READER_CPUS = 0.5  # of a logical CPU; differs from the tokenizers' so that Ray does not fuse reading into them:
WRITER_CPUS = 0.5  # one large file would then be tokenized by one actor


class PoolSize(BaseModel):
    """Actors of a pool that grows and shrinks with what there is to do, and with the cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: int = Field(gt=0, description="actors that are there from the start")
    max: int = Field(gt=0, description="actors at the most")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is more than max {self.max}")
        return self


class ComputeConfig(BaseModel):
    """How the work is spread. None of these changes results."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokenizers: Annotated[int, Field(gt=0)] | Literal["auto"] | PoolSize = Field(
        default="auto", description="tokenizing actors, a core each; a number, auto, or {min: 2, max: 16}"
    )
    classifiers: Annotated[int, Field(gt=0)] | Literal["auto"] | PoolSize = Field(
        default="auto", description="actors that hold the model; a number, auto, or {min: 1, max: 64}"
    )
    gpus_per_classifier: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        default="auto", description="a number or auto; fractions share a GPU; 0: CPU replicas"
    )
    accelerator_type: str | None = Field(
        default=None, description="GPUs to use where a cluster has several kinds, such as H100"
    )
    wait_for_nodes: Annotated[float, Field(ge=0)] | Literal["auto"] | None = Field(
        default="auto", description="seconds for a cluster to get what is asked for; null: as long as it takes"
    )
    batch_tokens: Annotated[int, Field(gt=0)] | Literal["auto"] = Field(
        default="auto", description="a number or auto: tokens of a forward pass, padding included"
    )
    unit_bytes: Annotated[int, Field(gt=0)] | Literal["auto"] = Field(
        default="auto", description="input per unit, about: read, labeled and committed as a whole"
    )
    max_failed_units: int | None = Field(
        default=100, ge=0, description="failed units at which a run stops early; null: it never does"
    )


@dataclass(frozen=True)
class Node:
    """A machine of a cluster."""

    cpus: float  # Ray's logical CPUs
    gpus: float = 0
    accelerator: str | None = None  # the GPUs' name as Ray has it; None: not known


@dataclass(frozen=True)
class Machines:
    """What there is to run on.

    `here`: Ray runs on this machine alone, for this job; then `cores` are physical, else they are Ray's CPUs.
    """

    cpus: float  # Ray's logical CPUs
    cores: int
    gpus: float
    here: bool = False
    one_process: bool = False  # does it all: each unit goes through all stages before the next is read
    nodes: tuple[Node, ...] = ()  # empty: a single one
    grows: bool = False  # nodes come when they are asked for; Ray does not report how many

    @property
    def whose(self) -> str:
        """For errors, before a number."""
        return "this machine has" if self.here else "the cluster has"

    @classmethod
    def of_nodes(cls, nodes: Iterable[Node], *, grows: bool = False) -> "Machines":
        nodes = tuple(nodes)
        cpus = sum(node.cpus for node in nodes)
        return cls(cpus, int(cpus), sum(node.gpus for node in nodes), nodes=nodes, grows=grows)

    def with_accelerator(self, accelerator: str) -> list[Node]:
        """The nodes whose GPUs have this name, or no known one."""
        return [node for node in self._nodes() if node.gpus and node.accelerator in (accelerator, None)]

    def room(self, gpus: float, accelerator: str | None) -> int:
        """Classifiers with so many GPUs that fit at the same time; none takes GPUs of two nodes, or halves of two GPUs."""
        nodes = self._nodes() if accelerator is None else self.with_accelerator(accelerator)
        return sum(
            int(node.gpus) * int(1 / gpus + 1e-9) if gpus <= 1 else int(node.gpus / gpus + 1e-9) for node in nodes if node.gpus
        )

    def _nodes(self) -> tuple[Node, ...]:
        return self.nodes or (Node(self.cpus, self.gpus),)


@dataclass(frozen=True)
class Pools:
    """The resolved numbers, and where each came from."""

    tokenizers: int  # at most
    classifiers: int  # at most
    gpus_per_classifier: float
    batch_tokens: int | None  # None: what a GPU's memory allows, which is known only where it is
    sources: dict[str, str]
    min_tokenizers: int
    min_classifiers: int
    accelerator_type: str | None = None
    here: bool = False  # all of them, in a Ray of this job's own (Machines.here)
    readers: int = 1  # tasks that read at the same time, at most
    units_in_flight: int = 1  # that each classifier is sent at a time, the one in work among them
    least_unit_bytes: int = 0  # of text; see least_unit_bytes()

    @property
    def use_gpu(self) -> bool:
        return self.gpus_per_classifier > 0


def tokenizers_for(flops: float, token_flops: float, tokens_per_core: float) -> int:
    """Cores of tokenizing that keep a model busy, rounded up: its tokens per second over those that a core tokenizes.

    Args:
        flops: per second, of all devices that hold the model.
        token_flops: of the model, per token.
        tokens_per_core: that a core tokenizes in a second.
    """
    return ceil(flops / token_flops / tokens_per_core)


def cores_beside_gpus(cores: int, classifiers: int) -> int:
    """Cores that tokenizers may fill, at least half of them all.

    The others are for the thread of each classifier that launches kernels, for the driver, and for reading and writing.
    """
    return max(ceil((cores - classifiers - 1) * (1 - READ_WRITE_SHARE)), cores // 2)


def object_store_bytes(machine: Machines, unit_bytes: int, *, memory: float, shared_memory: float) -> int:
    """Size of the object store of a Ray on one machine: three times the units in flight.

    Ray Data uses half of it, and keeps half of that for its four stages in equal parts: the others share what is left. With too
    little, it runs a few of many tokenizers and no more, whatever waits for them. Each tokenizer has two texts and its result,
    each classifier units_in_flight; as many wait for each (ray_settings.py).

    Args:
        memory: of the machine, in bytes.
        shared_memory: that are free in /dev/shm: Ray puts a larger store on a disk.
    """
    classifiers = int(machine.gpus) or machine.cores
    tokenizers = cores_beside_gpus(machine.cores, classifiers) if machine.gpus else ceil(machine.cores / 8)
    tokenized = tokenizers + 2 * units_in_flight(machine.gpus > 0) * classifiers
    wanted = 3 * unit_bytes * (2 * 2 * tokenizers + TOKENIZED_OVER_TEXT * tokenized)
    return max(OBJECT_STORE_BYTES, int(min(wanted, SHARED_MEMORY_SHARE * shared_memory, OBJECT_STORE_SHARE * memory)))


def units_in_flight(use_gpu: bool) -> int:
    """Units that each classifier is sent at a time, the one in work among them: it does not wait for the next."""
    return 4 if use_gpu else 2


def least_unit_bytes(classifiers: int, flops: float, token_flops: float) -> int:
    """Bytes of the smallest units that are worth to be handed over, at the end of a run, so that the classifiers end together.

    Args:
        flops: per second, of the devices of one classifier.
        token_flops: of the model, per token.
    """
    seconds = max(LEAST_UNIT_SECONDS, classifiers * UNIT_SECONDS_PER_CLASSIFIER)
    return round(seconds * flops / token_flops * BYTES_PER_TOKEN)


def tokens_per_pass(token_flops: float) -> int:
    """Tokens of a forward pass on a core: 2048, or 4096 for models so small that a pass would be over in no time.

    Not more: documents of more different lengths would share a batch, and need more padding.
    """
    return 4096 if 4096 * token_flops < LEAST_PASS_FLOPS else 2048


def resolve_pools(
    compute: ComputeConfig,
    machines: Machines,
    token_flops: float | None = None,
    tokens_per_core: float = TOKENS_PER_CORE,
    units: int | None = None,
) -> Pools:
    """Fills in what is `auto`.

    Where nodes come when they are asked for, what is given is taken, and what is not is what there is room for now; of
    tokenizers, which need CPUs alone, there may be more. Elsewhere a range ends at what there is room for.

    No more actors than units are started of what is `auto`. The number of units is an estimate: where there are more of them,
    the pool grows.

    Args:
        token_flops: of the model, per token, about; None: not known.
        tokens_per_core: that a core tokenizes in a second.
        units: to be labeled, about; None: many.

    Raises:
        ValueError: the cluster cannot hold what is asked for.
    """
    sources: dict[str, str] = {}

    def resolve(key: str, automatic, why: str):
        value = getattr(compute, key)
        sources[key] = why if value == "auto" else "job file"
        return automatic if value == "auto" else value

    def sizes(key: str, automatic: int, why: str, *, room: int, least: int | None = None) -> tuple[int, int]:
        automatic = max(1, automatic)
        smallest = least or automatic
        size = resolve(key, PoolSize(min=min(smallest, max(1, units or smallest)), max=automatic), why)
        if not isinstance(size, PoolSize):
            return size, size
        return size.min, size.max if machines.grows else max(size.min, min(size.max, room))

    gpus = resolve(
        "gpus_per_classifier",
        1.0 if machines.gpus else 0.0,
        f"{machines.gpus:g} GPUs found" if machines.gpus else "no GPU found",
    )
    if gpus:
        room = machines.room(gpus, compute.accelerator_type)
        if not room and not machines.grows:
            raise ValueError(_no_room(compute, machines, gpus))
        min_classifiers, classifiers = sizes("classifiers", room, f"{machines.gpus:g} GPUs, {gpus:g} each", room=room)
        if min_classifiers > room and not machines.grows:
            raise ValueError(
                f"compute.classifiers: {min_classifiers} of {gpus:g} GPUs each, {machines.whose} {machines.gpus:g} GPUs,"
                f" room for {room}; lower it, or add nodes"
            )
        busy = tokenizers_for(GPU_FLOPS * classifiers * min(gpus, 1), token_flops or TOKEN_FLOPS, tokens_per_core)
        wanted = ceil(TOKENIZERS_AHEAD * busy)
        spare = int(machines.cpus - classifiers - READER_CPUS - WRITER_CPUS)
        if machines.grows:
            why = f"more than the {busy} cores that keep the GPUs busy"
            min_tokenizers, tokenizers = sizes("tokenizers", wanted, why, room=spare, least=1)
        else:
            wanted = min(spare, cores_beside_gpus(machines.cores, classifiers), wanted)
            why = f"{'more than' if wanted > busy else 'of'} the {busy} cores that keep the GPUs busy"
            min_tokenizers, tokenizers = sizes("tokenizers", wanted, why, room=spare)
    else:
        if compute.accelerator_type is not None:
            raise ValueError(
                f"compute.accelerator_type: {compute.accelerator_type!r} asked for, but"
                f" {'there is no GPU' if not machines.gpus else 'compute.gpus_per_classifier is 0'};"
                f" set compute.gpus_per_classifier, or leave this out"
            )
        wanted = max(1, machines.cores // 8)
        if token_flops:  # far above it only for models that compute next to nothing, or slow tokenizers
            busy = tokenizers_for(CORE_FLOPS * machines.cores, token_flops, tokens_per_core)
            wanted = max(1, min(max(wanted, busy), machines.cores))
        given = compute.classifiers
        least = 1 if given == "auto" else given.min if isinstance(given, PoolSize) else given
        spare = int(machines.cpus - least - READER_CPUS - WRITER_CPUS)
        why = f"enough to keep {machines.cores} cores busy"
        min_tokenizers, tokenizers = sizes("tokenizers", min(wanted, spare), why, room=spare)
        spare = int(machines.cpus - tokenizers - READER_CPUS - WRITER_CPUS)
        min_classifiers, classifiers = sizes(
            "classifiers", min(machines.cores, spare), f"a single thread on each of {machines.cores} cores", room=spare
        )
    needed = classifiers + tokenizers + READER_CPUS + WRITER_CPUS
    if needed > machines.cpus and not machines.grows:
        raise ValueError(
            f"compute: {classifiers} classifiers and {tokenizers} tokenizers need {needed:g} CPUs with reading and writing,"
            f" {machines.whose} {machines.cpus:g}; lower compute.classifiers or compute.tokenizers, or add nodes"
        )
    beside = machines.cpus - classifiers - tokenizers - WRITER_CPUS
    flops = GPU_FLOPS * min(gpus, 1) if gpus else CORE_FLOPS
    on_cores = tokens_per_pass(token_flops) if token_flops else 2048
    batch_tokens = resolve("batch_tokens", None if gpus else on_cores, "the GPU's memory" if gpus else "the model's size")
    return Pools(
        tokenizers=tokenizers,
        classifiers=classifiers,
        gpus_per_classifier=gpus,
        batch_tokens=batch_tokens,
        sources=sources,
        min_tokenizers=min_tokenizers,
        min_classifiers=min_classifiers,
        accelerator_type=compute.accelerator_type if gpus else None,
        here=machines.here,
        readers=max(int(beside / READER_CPUS), 1),
        units_in_flight=1 if machines.one_process else units_in_flight(gpus > 0),
        least_unit_bytes=least_unit_bytes(classifiers, flops, token_flops or TOKEN_FLOPS),
    )


def _no_room(compute: ComputeConfig, machines: Machines, gpus: float) -> str:
    """What is missing for a single classifier."""
    wanted = compute.accelerator_type
    if wanted is not None and machines.gpus and not machines.with_accelerator(wanted):
        kinds = sorted({node.accelerator for node in machines.nodes if node.gpus and node.accelerator})
        return f"compute.accelerator_type: no node has {wanted!r} GPUs; there are {', '.join(kinds)}"
    largest = max((node.gpus for node in machines.nodes), default=machines.gpus)
    return (
        f"compute.gpus_per_classifier: {gpus:g} asked for, {machines.whose} {machines.gpus:g} GPUs"
        + (f", {largest:g} on a node at most" if machines.gpus >= gpus else "")
        + "; lower it, add nodes, or set it to 0 for CPUs"
    )
