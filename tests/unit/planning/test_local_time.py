"""The time of a run on this machine's cores."""

from dataclasses import asdict

import pytest

from pipeline_ops.loading import device
from pipeline_ops.output.run_records import RunRecord
from pipeline_ops.planning import local_time
from pipeline_ops.planning.local_time import core_flops, dtype_speed, estimated_speed, recorded_speed


def record_of(**result: object) -> RunRecord:
    return RunRecord("run", 1, "2026-11-29T10:00:00Z", "", "here", 8, 0, 0, result={**result})


def test_run_that_was_like_an_earlier_one_takes_as_long() -> None:
    """4 classifiers at work for 100 s each, of which 10 s are waiting for input."""
    seconds = {"waiting": 40.0, "copying": 10.0, "computing": 340.0, "writing": 10.0}
    speed = recorded_speed(
        record_of(tokens_run=720_000, startup_seconds=20.0, finish_seconds=2.0, classify_seconds=seconds, classifiers=4)
    )
    assert speed is not None
    assert speed.tokens_per_second == 2000
    assert speed.seconds(720_000, units=400, classifiers=4) == pytest.approx(22 + 90)
    assert speed.seconds(1_440_000, units=800, classifiers=8) == pytest.approx(22 + 90)
    assert speed.seconds(0, units=0, classifiers=4) == 0


@pytest.mark.parametrize(
    "result",
    [None, {}, {"tokens_run": 0, "startup_seconds": 1.0, "finish_seconds": None, "classify_seconds": {"computing": 1}}],
)
def test_run_that_measured_nothing_gives_no_speed(result: dict | None) -> None:
    record = RunRecord(**{**asdict(record_of()), "result": result})
    assert recorded_speed(record) is None


def test_speed_follows_from_flops_and_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a core of an EPYC with 75 GFLOP/s for large products: 6 layers of 768 ran at 71 GFLOP/s, 2 layers of 128 at 28."""
    monkeypatch.setattr(local_time, "core_flops", lambda: 75e9)
    for flops, measured in ((85e6, 66e9), (21.2e6, 60e9), (0.786e6, 28e9)):
        speed = estimated_speed(flops, 1e12, classifiers=1, tokenizers=1, cores=1, bytes_per_token=0, tokens_per_unit=1e9)
        assert speed.tokens_per_second * flops * local_time.PADDING == pytest.approx(measured, rel=0.15)
    one, two = (
        estimated_speed(85e6, 600_000, classifiers=count, tokenizers=count, cores=count, bytes_per_token=4, tokens_per_unit=1e5)
        for count in (1, 2)
    )
    assert two.seconds(1e6, 10, 2) - two.startup_seconds == pytest.approx((one.seconds(1e6, 10, 1) - one.startup_seconds) / 2)


def test_core_is_measured_in_a_moment() -> None:
    assert 1e8 < core_flops() < 1e13


@pytest.mark.parametrize(
    ("dtype", "measured"),
    [("float32", (80e9, 81e9, 64e9, 44e9)), ("bfloat16", (175e9, 156e9, 118e9, 82e9))],
)
def test_bfloat16_is_faster_where_it_is_native(
    dtype: str, measured: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a core of an EPYC with AVX512-BF16, 99 GFLOP/s for large float32 products."""
    monkeypatch.setattr(local_time, "core_flops", lambda: 99e9)
    monkeypatch.setattr(device, "cpu_flags", lambda: {"avx512f", "avx512_bf16"})
    speed = dtype_speed(dtype)
    assert speed is not None
    for (layers, hidden), expected in zip(((2, 1024), (2, 768), (4, 256), (2, 128)), measured, strict=True):
        flops = 24 * layers * hidden**2
        found = estimated_speed(
            flops,
            1e12,
            classifiers=1,
            tokenizers=1,
            cores=1,
            bytes_per_token=0,
            tokens_per_unit=1e9,
            dtype_speed=speed,
        )
        assert found.tokens_per_second * flops * local_time.PADDING == pytest.approx(expected, rel=0.15)


def test_speed_of_what_a_cpu_emulates_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cpu_flags", lambda: {"avx2"})
    assert [dtype_speed(dtype) for dtype in ("float32", "bfloat16", "float16")] == [1.0, None, None]


def test_run_takes_as_long_as_its_tokenizers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow tokenizer, 10,000 tokens per second, before a model that computes next to nothing on one of four cores."""
    monkeypatch.setattr(local_time, "core_flops", lambda: 43e9)
    for tokenizers, seconds in ((1, 100), (2, 50)):
        speed = estimated_speed(
            1e3, 10_000, classifiers=1, tokenizers=tokenizers, cores=4, bytes_per_token=4, tokens_per_unit=1e5
        )
        assert speed.seconds(1e6, 10, 1) - speed.startup_seconds == pytest.approx(seconds)
