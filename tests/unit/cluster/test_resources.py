"""How many actors of each stage, for a machine or a cluster."""

from typing import Any

import pytest
from pydantic import ValidationError

from cluster.resources import (
    GPU_FLOPS,
    READER_CPUS,
    TOKENS_PER_CORE,
    WRITER_CPUS,
    ComputeConfig,
    Machines,
    Node,
    Pools,
    object_store_bytes,
    resolve_pools,
)


def pools_of(machines: Machines, **compute: Any) -> Pools:
    return resolve_pools(ComputeConfig(**compute), machines)


def cpu_machine(cores: int) -> Machines:
    """Slots are offered twice: readers and writers wait for storage."""
    return Machines(cpus=max(4, 2 * cores), cores=cores, gpus=0)


@pytest.mark.parametrize("cores", [1, 2, 4, 8, 16, 64])
def test_pools_on_cpus_fill_the_cores_with_classifiers_and_fit(cores: int) -> None:
    pools = pools_of(cpu_machine(cores))
    assert not pools.use_gpu
    assert pools.classifiers == cores
    assert 1 <= pools.tokenizers <= max(1, cores // 8)
    assert pools.classifiers + pools.tokenizers + READER_CPUS + WRITER_CPUS <= cpu_machine(cores).cpus


BERT_BASE = 12 * (8 * 768**2 + 4 * 768 * 3072)  # FLOPs per token


SMALL_BERT = 6 * (8 * 384**2 + 4 * 384 * 1536)  # 22 million parameters


def gpu_machine(cores: int, gpus: int) -> Machines:
    return Machines(cpus=2 * cores, cores=cores, gpus=gpus, here=True)


@pytest.mark.parametrize(
    ("cores", "gpus", "token_flops", "tokenizers"),
    [
        (16, 1, BERT_BASE, 13),
        (64, 1, BERT_BASE, 16),
        (200, 1, BERT_BASE, 16),
        (200, 8, BERT_BASE, 119),
        (64, 1, BERT_BASE * 10, 2),
        (200, 1, SMALL_BERT, 119),
        # too few cores
        (64, 8, BERT_BASE, 49),
        (16, 8, BERT_BASE, 8),
        (4, 1, BERT_BASE, 2),
        (16, 1, SMALL_BERT, 13),
        (64, 1, SMALL_BERT, 55),
    ],
)
def test_gpus_get_more_tokenizers_than_they_take_where_there_are_cores(
    cores: int, gpus: int, token_flops: float, tokenizers: int
) -> None:
    """One and a half times what the GPUs take, or all cores but those of classifiers, driver, reading and writing."""
    for machines in (gpu_machine(cores, gpus), Machines.of_nodes([Node(cores, gpus)])):
        pools = resolve_pools(ComputeConfig(), machines, token_flops)
        assert (pools.classifiers, pools.tokenizers) == (
            gpus,
            tokenizers if machines.here else min(tokenizers, cores - gpus - 1),
        )
        taken = gpus * GPU_FLOPS / token_flops
        left = cores - pools.tokenizers
        assert pools.tokenizers * TOKENS_PER_CORE >= 1.5 * taken or left <= gpus + 1 + cores // 8


def test_slow_tokenizers_are_as_many_more_on_a_gpu_and_on_cpus() -> None:
    pools = resolve_pools(ComputeConfig(), Machines(cpus=128, cores=128, gpus=1), BERT_BASE, 60_000)
    assert (pools.tokenizers, pools.classifiers) == (88, 1)
    fast, slow = (resolve_pools(ComputeConfig(), cpu_machine(32), BERT_BASE / 100, rate) for rate in (600_000, 200_000))
    assert (fast.tokenizers, slow.tokenizers) == (4, 10)


GIB = 2**30


@pytest.mark.parametrize(
    ("cores", "gpus", "gibibytes"),
    [(16, 1, 9.2), (64, 1, 33.6), (200, 1, 102.8), (16, 8, 17.8), (64, 8, 41.7), (200, 8, 110.8), (2, 0, 2.2), (64, 0, 57.4)],
)
def test_object_store_has_room_for_the_units_in_flight(cores: int, gpus: int, gibibytes: float) -> None:
    machine = Machines(cpus=2 * cores, cores=cores, gpus=gpus)
    found = object_store_bytes(machine, 32 * 2**20, memory=1024 * GIB, shared_memory=512 * GIB)
    assert found / GIB == pytest.approx(gibibytes, abs=0.1)
    # a third of it: two texts and a result for each tokenizer, and four units of text and tokens for each GPU, twice
    pools = resolve_pools(ComputeConfig(), machine, BERT_BASE)
    assert not gpus or found / 3 >= 32 * 2**20 * (4.2 * pools.tokenizers + 8.8 * gpus)


def test_object_store_takes_neither_more_than_shared_memory_nor_most_of_the_memory() -> None:
    machine, unit = gpu_machine(200, 8), 32 * 2**20
    assert object_store_bytes(machine, unit, memory=1024 * GIB, shared_memory=8 * GIB) < 7.7 * GIB
    assert object_store_bytes(machine, unit, memory=20 * GIB, shared_memory=512 * GIB) == 6 * GIB
    # Ray puts what does not fit on a disk, and says so
    assert object_store_bytes(machine, unit, memory=4 * GIB, shared_memory=2**26) == 2 * GIB
    assert object_store_bytes(machine, 2 * unit, memory=1024 * GIB, shared_memory=512 * GIB) > 200 * GIB


def test_pools_on_cpus_are_for_tokenizing_where_the_model_computes_next_to_nothing() -> None:
    pools = resolve_pools(ComputeConfig(), cpu_machine(2), 3000)
    assert (pools.tokenizers, pools.classifiers, pools.batch_tokens) == (2, 1, 4096)
    pools = resolve_pools(ComputeConfig(), cpu_machine(2), BERT_BASE)
    assert (pools.tokenizers, pools.classifiers, pools.batch_tokens) == (1, 2, 2048)


@pytest.mark.parametrize("cpus", [3, 4, 6, 8, 64])
@pytest.mark.parametrize("token_flops", [3000, BERT_BASE])
def test_pools_fit_into_a_cluster_that_offers_each_cpu_once(cpus: int, token_flops: float) -> None:
    cluster = Machines(cpus=cpus, cores=cpus, gpus=0)
    pools = resolve_pools(ComputeConfig(), cluster, token_flops)
    assert pools.classifiers + pools.tokenizers + READER_CPUS + WRITER_CPUS <= cpus
    if cpus >= 4:
        pools = resolve_pools(ComputeConfig(classifiers=2), cluster, token_flops)
        assert pools.classifiers == 2
        assert pools.tokenizers >= 1


@pytest.mark.parametrize(("cpus", "gpus"), [(16, 1), (64, 8), (8, 1), (4, 1), (96, 4)])
def test_pools_on_gpus_have_a_classifier_each_and_tokenizers_to_feed_it(cpus: int, gpus: int) -> None:
    pools = pools_of(Machines(cpus=cpus, cores=cpus, gpus=gpus))
    assert pools.use_gpu
    assert (pools.classifiers, pools.gpus_per_classifier) == (gpus, 1.0)
    assert min(8 * gpus, cpus // 2) <= pools.tokenizers <= 16 * gpus
    assert pools.classifiers + pools.tokenizers + READER_CPUS + WRITER_CPUS <= cpus


@pytest.mark.parametrize(("share", "expected"), [(0.5, 4), (0.25, 8), (1, 2), (2, 1), (0.3, 6)])
def test_pools_on_shared_gpus_have_as_many_classifiers_as_fit(share: float, expected: int) -> None:
    assert pools_of(Machines(cpus=64, cores=64, gpus=2), gpus_per_classifier=share).classifiers == expected


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.7])
@pytest.mark.parametrize("gpus", [1, 2, 3, 7])
def test_pools_on_shared_gpus_never_ask_for_more_gpus_than_there_are(share: float, gpus: int) -> None:
    pools = pools_of(Machines(cpus=256, cores=256, gpus=gpus), gpus_per_classifier=share)
    assert pools.classifiers >= 1
    assert pools.classifiers * share <= gpus + 1e-9


@pytest.mark.parametrize("share", [0.6, 0.7])
def test_pools_on_shared_gpus_count_what_fits_on_each_gpu(share: float) -> None:
    """Of two GPUs, 0.6 each fits twice, not three times: a share is of one GPU."""
    assert pools_of(Machines(cpus=64, cores=64, gpus=2), gpus_per_classifier=share).classifiers == 2


def test_pools_with_gpus_set_to_0_run_on_cpus() -> None:
    pools = pools_of(Machines(cpus=16, cores=8, gpus=2), gpus_per_classifier=0)
    assert not pools.use_gpu
    assert pools.classifiers == 8


def test_pools_batch_tokens_are_left_to_the_gpu_unless_given() -> None:
    gpu_machine = Machines(cpus=16, cores=16, gpus=1)
    assert pools_of(cpu_machine(4)).batch_tokens == 2048
    assert pools_of(gpu_machine).batch_tokens is None
    assert "GPU" in pools_of(gpu_machine).sources["batch_tokens"]
    assert [pools_of(machine, batch_tokens=77).batch_tokens for machine in (cpu_machine(4), gpu_machine)] == [77, 77]


def test_pools_that_are_given_are_taken_and_say_so() -> None:
    pools = pools_of(cpu_machine(8), tokenizers=3, classifiers=2)
    assert (pools.tokenizers, pools.classifiers) == (3, 2)
    assert pools.sources["tokenizers"] == pools.sources["classifiers"] == "job file"
    assert pools.sources["batch_tokens"] != "job file"
    assert all(pools.sources.values())


@pytest.mark.parametrize("machine", [cpu_machine(64), gpu_machine(64, 8), Machines(cpus=64, cores=64, gpus=8, grows=True)])
def test_pools_start_no_more_actors_than_there_are_units(machine: Machines) -> None:
    """Their number is an estimate: where there are more, Ray Data lets the pool grow to what the machine has room for."""
    many, few = (resolve_pools(ComputeConfig(), machine, BERT_BASE, units=units) for units in (None, 3))
    assert (few.min_classifiers, few.min_tokenizers) == (3, min(3, many.min_tokenizers))
    assert (few.classifiers, few.tokenizers) == (many.classifiers, many.tokenizers)
    assert resolve_pools(ComputeConfig(), machine, BERT_BASE, units=10_000) == many
    given = resolve_pools(ComputeConfig(classifiers=4, tokenizers=4), machine, units=1)
    assert (given.min_classifiers, given.min_tokenizers) == (4, 4)


@pytest.mark.parametrize(
    ("machines", "compute", "named"),
    [
        (cpu_machine(4), {"gpus_per_classifier": 1}, "gpus_per_classifier"),
        (Machines(16, 16, 1), {"gpus_per_classifier": 2}, "gpus_per_classifier"),
        (Machines(16, 16, 1), {"classifiers": 2}, "classifiers"),
        (Machines(16, 16, 1), {"classifiers": 3, "gpus_per_classifier": 0.5}, "classifiers"),
        (cpu_machine(4), {"classifiers": 8}, "compute"),
        (cpu_machine(4), {"tokenizers": 8}, "compute"),
        (Machines(2, 2, 1), {"tokenizers": 4}, "compute"),
        (Machines(1, 1, 0), {}, "compute"),
    ],
)
def test_pools_that_never_fit_are_refused_by_key(machines: Machines, compute: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named) as caught:
        pools_of(machines, **compute)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "compute", [{"tokenizers": 0}, {"classifiers": -1}, {"gpus_per_classifier": -0.5}, {"batch_tokens": 0}, {"unit_bytes": 0}]
)
def test_numbers_that_make_no_sense_are_refused(compute: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ComputeConfig(**compute)


MIXED = Machines.of_nodes([Node(0), Node(32, 4, "A100"), Node(32, 2, "H100"), Node(16)])


def test_classifiers_do_not_take_gpus_of_two_nodes() -> None:
    nodes = [Node(16, 3), Node(16, 3)]
    assert pools_of(Machines.of_nodes(nodes), gpus_per_classifier=2).classifiers == 2, "six GPUs, but one is left over on each"
    with pytest.raises(ValueError, match="3 on a node at most"):
        pools_of(Machines.of_nodes(nodes), gpus_per_classifier=4)


def test_classifiers_of_a_kind_of_gpu_count_that_kind_alone() -> None:
    assert pools_of(MIXED).classifiers == 6
    pools = pools_of(MIXED, accelerator_type="H100")
    assert (pools.classifiers, pools.accelerator_type) == (2, "H100")
    with pytest.raises(ValueError, match=r"accelerator_type.*'L4'.*A100, H100"):
        pools_of(MIXED, accelerator_type="L4")
    with pytest.raises(ValueError, match="accelerator_type"):
        pools_of(MIXED, accelerator_type="H100", gpus_per_classifier=0)


def test_pools_that_are_given_as_a_range_grow_within_it() -> None:
    pools = pools_of(MIXED, classifiers={"min": 1, "max": 4}, tokenizers={"min": 2, "max": 8})
    assert (pools.min_classifiers, pools.classifiers, pools.min_tokenizers, pools.tokenizers) == (1, 4, 2, 8)
    assert pools_of(MIXED, classifiers={"min": 1, "max": 64}).classifiers == 6, "no more than there is room for"
    pools = pools_of(cpu_machine(4), classifiers={"min": 1, "max": 64}, tokenizers={"min": 1, "max": 2})
    assert (pools.classifiers, pools.tokenizers) == (5, 2)
    with pytest.raises(ValueError, match="classifiers: 7"):
        pools_of(MIXED, classifiers={"min": 7, "max": 64})
    with pytest.raises(ValidationError, match="min 3 is more than max 2"):
        ComputeConfig.model_validate({"classifiers": {"min": 3, "max": 2}})


def test_pools_where_nodes_come_when_asked_for_take_what_is_given() -> None:
    head = Machines.of_nodes([Node(0)], grows=True)
    pools = pools_of(head, gpus_per_classifier=1, classifiers={"min": 1, "max": 64})
    assert (pools.min_classifiers, pools.classifiers) == (1, 64)
    assert pools.min_tokenizers == 1
    assert pools.tokenizers > 64, "several cores for each GPU"
    assert pools_of(head, gpus_per_classifier=1).classifiers == 1, "nothing says how many there could be"
