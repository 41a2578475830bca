"""What a run takes on a cluster, against figures worked out by hand."""

from dataclasses import replace

import pytest

from cluster.resources import TOKENS_PER_CORE
from pipeline_ops.planning.forecast import (
    DRIVER_BYTES,
    DRIVER_BYTES_PER_CLASSIFIER,
    DRIVER_BYTES_PER_UNIT,
    MFU,
    Hardware,
    Workload,
    driver_bytes,
    forecast,
    makespan,
    packs,
    run_requests,
)
from pipeline_ops.planning.work_plan import automatic_unit_bytes

# 1.2e12 tokens in 40,000 units, on 64 devices of a million tokens per second: 18,750 s
WORKLOAD = Workload(
    text_bytes=5e12,
    tokens=1.2e12,
    tokenize_seconds=2e6,
    units=40_000,
    files=100_000,
    files_per_unit=2.5,
    reads=120_000,
)
HARDWARE = Hardware(devices=64, tokens_per_second=1e6, price=2.5)


def test_devices_that_are_the_bottleneck_take_the_tokens_by_their_rate() -> None:
    found = forecast(WORKLOAD, HARDWARE)
    assert found.bottleneck == "classifiers"
    assert found.device_seconds == pytest.approx(1.2e12 / 1e6)
    assert found.unit_seconds == pytest.approx(30)
    # 25 s, and 30 million tokens of the first unit at 600,000 per second
    assert found.startup_seconds == pytest.approx(25 + 50)
    # 625 units for each device: nothing is left over
    assert found.seconds == pytest.approx(75 + 625 * 30)
    assert found.tail_seconds == pytest.approx(0)
    assert found.device_hours == pytest.approx(64 * 18_825 / 3600)
    assert found.cost == pytest.approx(2.5 * 64 * 18_825 / 3600)
    assert found.jobs == 1
    assert found.one_job_seconds == pytest.approx(found.seconds)


def test_shares_say_how_busy_each_part_is_while_the_devices_are() -> None:
    found = forecast(WORKLOAD, HARDWARE)
    # 13 ms per unit, and for 18,825 s of the clock its loop, with 64 classifiers 0.1988 of a core
    assert found.driver_cpu_seconds == pytest.approx(520 + 18_825 * 0.1988)
    assert found.shares["driver"] == pytest.approx(520 / 18_750)
    # 2,000,000 s of tokenizing, 450,000 of reading and writing, 2,880 for handing on, of 64 times 12 cores
    assert found.shares["tokenizers"] == pytest.approx(2_452_880 / 18_750 / 768)
    assert found.tokenizer_cores == pytest.approx(2e6 / 18_750)
    assert found.cores_per_node == 17  # 130.9 on 8 nodes
    assert found.shares["requests"] == pytest.approx(140_000 / 3500 / 18_750)
    assert found.driver_bytes == DRIVER_BYTES + 64 * DRIVER_BYTES_PER_CLASSIFIER + 40_000 * DRIVER_BYTES_PER_UNIT


def test_tail_is_what_the_last_round_of_units_leaves_idle() -> None:
    found = forecast(replace(WORKLOAD, units=40_001), HARDWARE)
    # one unit more than 625 for each: a round in which all but one have nothing
    assert found.tail_seconds == pytest.approx(626 * 1.2e12 / 1e6 / 40_001 - 18_750)
    assert makespan(65, 64, 30) == 60
    assert makespan(64, 64, 30) == 30
    assert makespan(0, 64, 30) == 0


@pytest.mark.parametrize(
    ("work", "bottleneck", "factor"),
    [
        (replace(WORKLOAD, tokenize_seconds=2e7), "tokenizers", 20_452_880 / 18_750 / 768),
    ],
)
def test_whatever_is_busier_than_the_devices_holds_them_back(work: Workload, bottleneck: str, factor: float) -> None:
    found = forecast(work, HARDWARE)
    assert found.bottleneck == bottleneck
    assert found.shares[bottleneck] == pytest.approx(factor)
    assert found.seconds - found.startup_seconds == pytest.approx(18_750 * factor)


def test_driver_that_is_too_busy_asks_for_several_jobs() -> None:
    # 1,000,000 units: 13,000 s of the driver in 4,687.5: 2.77 cores, and 0.11 for 64 classifiers; each job has 0.7 less 0.09
    found = forecast(replace(WORKLOAD, units=1_000_000), replace(HARDWARE, tokens_per_second=4e6))
    assert found.bottleneck == "driver"
    assert found.jobs == 5
    assert found.shares["driver"] == pytest.approx(13_000 / 4_687.5)
    # 12 devices each, which are then what bounds: 200,000 units of 0.3 s
    assert found.seconds - found.startup_seconds == pytest.approx(16_667 * 0.3)
    assert found.one_job_seconds - found.startup_seconds == pytest.approx(13_000)
    assert found.driver_bytes == DRIVER_BYTES + 64 / 5 * DRIVER_BYTES_PER_CLASSIFIER + 200_000 * DRIVER_BYTES_PER_UNIT


def test_driver_of_many_classifiers_is_split_for_its_loop() -> None:
    # 640 s of the driver in 12,500: 0.05 cores; 1.74 for 1,024 classifiers
    many = replace(WORKLOAD, units=50_000, tokens=1.28e13)
    assert forecast(many, replace(HARDWARE, devices=1024)).jobs == 3
    assert forecast(replace(many, units=40_000), replace(HARDWARE, devices=1024)).jobs == 1  # little is not split


def test_requests_beyond_the_stores_limit_ask_for_several_jobs() -> None:
    found = forecast(replace(WORKLOAD, files_per_unit=4921.875 - 1), HARDWARE)
    assert found.bottleneck == "requests"
    assert found.shares["requests"] == pytest.approx(3)
    assert found.jobs == 3
    assert found.one_job_seconds - found.startup_seconds == pytest.approx(3 * 18_750)
    # 21 devices each, of 64
    assert found.seconds - found.startup_seconds == pytest.approx(18_750, rel=0.02)


def test_driver_waits_with_slower_classifiers_and_is_enough() -> None:
    # 6,500 s of the driver, in 6,250 s or in 187,500
    many = replace(WORKLOAD, units=500_000)
    assert forecast(many, replace(HARDWARE, tokens_per_second=3e6)).jobs == 2
    assert forecast(many, replace(HARDWARE, tokens_per_second=1e5)).jobs == 1


def test_memory_asks_for_several_jobs_too_and_earlier_commits_count() -> None:
    slow = replace(HARDWARE, tokens_per_second=1e4)
    # (8 GiB - 280 MiB - 64 * 1.5 MiB) / 13,300 bytes are 616,215 units
    assert forecast(replace(WORKLOAD, units=616_215), slow).jobs == 1
    assert forecast(replace(WORKLOAD, units=616_216), slow).jobs == 2
    assert forecast(replace(WORKLOAD, units=400_000), slow, units_before=300_000).jobs == 2


def test_little_work_is_not_split_and_waits_for_its_driver() -> None:
    # 100 units that the devices are done with at once: the driver takes 1.3 s
    found = forecast(replace(WORKLOAD, units=100, tokens=64e3, tokenize_seconds=0, text_bytes=0, reads=0), HARDWARE)
    assert found.jobs == 1
    assert found.bottleneck == "driver"
    assert 1.3 <= found.seconds - found.startup_seconds < 3


def test_nothing_left_takes_nothing() -> None:
    nothing = Workload(0, 0, 0, units=0, files=10, files_per_unit=1, reads=0)
    found = forecast(nothing, HARDWARE)
    assert (found.seconds, found.device_hours, found.cost, found.jobs) == (0, 0, 0, 1)


def test_requests_follow_from_the_protocol() -> None:
    requests = run_requests(units=5_000, files=20_000, seconds=3_600, files_per_unit=3, reads=15_000)
    renewals = 3_600 * 4 / 60 + 4 + 4  # every 15 s, around each of 4 packs, and at both ends
    assert requests["put"] == 15_000 + 5_000 + 4 + renewals + 4
    assert requests["get"] == 15_000 + 4
    assert requests["list"] == 20 + 6 + renewals + 20
    assert requests["delete"] == renewals + 5 + 2


def test_packs_are_made_after_a_thousand_records_then_after_a_tenth() -> None:
    assert [packs(units) for units in (1_000, 1_001, 10_000, 11_000, 100_000)] == [0, 1, 9, 11, 34]


def test_memory_of_a_driver_grows_with_its_commits() -> None:
    assert driver_bytes(0, 0) == 280 * 2**20
    # 280 + 96 + 1,268 MiB
    assert driver_bytes(100_000, 64) == pytest.approx(1644 * 2**20, rel=0.001)


def web_text(tokens: float, read_share: float) -> Workload:
    """Web text of that many tokens, 4.4 bytes each, compressed to a third, of which a model reads a
    share; five labels; only labels are written."""
    text_bytes = 4.4 * tokens
    return Workload(
        text_bytes=text_bytes,
        tokens=tokens * read_share,
        tokenize_seconds=tokens * read_share / TOKENS_PER_CORE,
        units=int(text_bytes / automatic_unit_bytes(int(text_bytes))),
        files=int(text_bytes / 3 / 2**29),
        files_per_unit=5,
        reads=2 * text_bytes / 2**25,
    )


@pytest.mark.parametrize(
    ("layers", "hidden", "read_share", "gpus", "hours", "bottleneck", "jobs"),
    [
        # BERT-base, 170 MFLOP per token: 2.33 million tokens/s of an H100 at 40 % of its peak
        (12, 768, 0.41, 64, 11.4, "classifiers", 4),
        (12, 768, 1.0, 64, 28.0, "classifiers", 4),
        (12, 768, 1.0, 1024, 1.75, "driver", 10),
        # 22 million parameters, 21 MFLOP: six times what twelve cores read, tokenize and write beside each GPU
        (6, 384, 0.41, 64, 8.6, "tokenizers", 4),
    ],
)
def test_fifteen_trillion_tokens(
    layers: int, hidden: int, read_share: float, gpus: int, hours: float, bottleneck: str, jobs: int
) -> None:
    flops = layers * (8 * hidden**2 + 4 * hidden * 4 * hidden)
    found = forecast(web_text(15e12, read_share), Hardware(gpus, MFU * 989e12 / flops, price=2.5))
    assert found.seconds / 3600 == pytest.approx(hours, rel=0.03)
    assert (found.bottleneck, found.jobs) == (bottleneck, jobs)
    assert found.cost == pytest.approx(2.5 * gpus * hours, rel=0.03)
    assert found.requests["put"] == pytest.approx(6 * 66e12 / 2**25, rel=0.01)
