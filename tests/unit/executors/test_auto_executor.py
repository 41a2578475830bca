"""Which work one process of a machine does, and which Ray."""

from typing import Any

import pytest

from cluster import session
from cluster.resources import BYTES_PER_TOKEN, CORE_FLOPS, GPU_FLOPS, ComputeConfig, Machines
from jobs.executors.auto_executor import in_one_process
from jobs.executors.executor import Work

TOKEN_FLOPS = 2e8
FAST_TOKENIZER = 1e12


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "has_ray", lambda: False)


@pytest.mark.parametrize(
    ("cores", "gpus", "flops", "seconds", "expected"),
    [
        (2, 0, 2 * CORE_FLOPS, 500, True),
        (2, 0, 2 * CORE_FLOPS, 700, False),
        (4, 0, 4 * CORE_FLOPS, 500, True),
        (16, 0, 4 * CORE_FLOPS, 15, True),
        (16, 0, 4 * CORE_FLOPS, 30, False),  # twelve cores would have nothing to do
        (2, 1, GPU_FLOPS, 15, True),
        (2, 1, GPU_FLOPS, 30, False),
    ],
)
def test_work_goes_to_ray_where_that_is_faster_or_there_is_much(
    cores: int, gpus: int, flops: float, seconds: float, expected: bool
) -> None:
    text_bytes = round(seconds * flops / TOKEN_FLOPS * BYTES_PER_TOKEN)
    work = Work(text_bytes=text_bytes, token_flops=TOKEN_FLOPS, tokens_per_core=FAST_TOKENIZER)
    assert in_one_process(work, ComputeConfig(), Machines(2 * cores, cores, gpus)) is expected


@pytest.mark.parametrize("settings", [{"classifiers": 2}, {"tokenizers": 1}, {"accelerator_type": "H100"}])
def test_job_that_names_its_pools_goes_to_ray(settings: dict[str, Any]) -> None:
    assert in_one_process(Work(), ComputeConfig(), Machines(4, 2, 0))
    assert not in_one_process(Work(), ComputeConfig(**settings), Machines(4, 2, 0))
