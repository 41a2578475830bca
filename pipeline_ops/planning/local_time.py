"""How long labeling takes on the cores of this machine: from an earlier run, or from the model's FLOPs and a short measurement.

Without torch, whose import takes longer than all of `plan`.
"""

import time
from dataclasses import dataclass
from functools import cache
from math import sqrt

import numpy as np

from pipeline_ops.loading.device import cpu_flags, resolve_dtype
from pipeline_ops.output.run_records import RunRecord
from pipeline_ops.planning.forecast import READ_WRITE_SECONDS_PER_BYTE, STARTUP_SECONDS, UNIT_CPU_SECONDS, makespan

ONE_PROCESS_STARTUP_SECONDS = 5.0  # as forecast.STARTUP_SECONDS, without Ray
MEASURED_SECONDS = 0.1  # of CPU
SMALL_MATRIX = 64  # rows; OpenBLAS multiplies larger ones with several threads, which wait for each other on a busy machine
# Measured on 2 cores of an AMD EPYC (Milan), with BERTs of 2 to 6 layers of 32 to 768, one thread, texts of 23 and 128 tokens:
LARGE_OVER_SMALL = 1.75  # FLOP/s of products of large matrices, over those of SMALL_MATRIX
HALF_SPEED_FLOPS = 1350**2  # FLOPs per token of a model that computes half as fast as products of large matrices
PADDING = 1.1  # tokens with padding, over those without
# The same on an AMD EPYC with AVX512-BF16 (Genoa), layers up to 1024, texts up to 512 tokens, CPU time of both dtypes in turn:
LARGE_OVER_SMALL_AVX512 = 1.1  # there OpenBLAS has kernels for small matrices
BFLOAT16_OVER_FLOAT32 = 1.9  # 1.7 to 2.2 from layers of 128 on, 1.4 with 32; not measured with AMX, which is faster


@dataclass(frozen=True)
class Speed:
    """What a run takes: start and end, and the tokens that each of its classifiers labels in a second."""

    startup_seconds: float
    tokens_per_second: float

    def seconds(self, tokens: float, units: int, classifiers: int) -> float:
        """The wall-clock seconds of a run over so much."""
        if not units:
            return 0.0
        return self.startup_seconds + makespan(units, classifiers, tokens / units / self.tokens_per_second)


def recorded_speed(record: RunRecord) -> Speed | None:
    """The speed of an earlier run of the same model; None if it ended before its numbers were known."""
    result = record.result or {}
    at_work = sum(seconds for part, seconds in result.get("classify_seconds", {}).items() if part != "waiting")
    if not at_work or not result.get("tokens_run") or result.get("startup_seconds") is None:
        return None
    return Speed(result["startup_seconds"] + (result["finish_seconds"] or 0.0), result["tokens_run"] / at_work)


def estimated_speed(
    token_flops: float,
    tokens_per_core: float,
    *,
    classifiers: int,
    tokenizers: int,
    cores: int,
    bytes_per_token: float,
    tokens_per_unit: float,
    dtype_speed: float = 1.0,
    one_process: bool = False,
) -> Speed:
    """The speed on the cores of this machine, which do everything else as well.

    Args:
        token_flops: of the models together, per token.
        tokens_per_core: that a core tokenizes in a second.
        bytes_per_token: of the texts.
        dtype_speed: see there.
        one_process: each classifier is a thread that does all else for its units as well, and there is no Ray.
    """
    flops = core_flops() * dtype_speed * sqrt(token_flops) / (sqrt(token_flops) + sqrt(HALF_SPEED_FLOPS))
    computing = PADDING * token_flops / flops
    tokenizing = 1 / tokens_per_core
    beside = tokenizing + bytes_per_token * READ_WRITE_SECONDS_PER_BYTE + UNIT_CPU_SECONDS / max(tokens_per_unit, 1)
    if one_process:
        return Speed(ONE_PROCESS_STARTUP_SECONDS, 1 / (computing + beside))
    # seconds of all classifiers together
    per_token = max(computing / classifiers, tokenizing / tokenizers, (computing + beside) / cores)
    return Speed(STARTUP_SECONDS, 1 / per_token / classifiers)


def dtype_speed(dtype: str) -> float | None:
    """How many times as fast as in float32 a core of this machine computes; None: not known, such as of what it emulates."""
    if dtype == "float32":
        return 1.0
    return BFLOAT16_OVER_FLOAT32 if dtype == resolve_dtype("auto", False) else None


@cache
def core_flops() -> float:
    """FLOP/s of a core in products of large float32 matrices, by some of small ones.

    Per second of CPU: what others compute changes it little.
    """
    matrix = np.ones((SMALL_MATRIX, SMALL_MATRIX), np.float32)
    result = np.empty_like(matrix)
    products, began = 0, time.process_time()
    while (spent := time.process_time() - began) < MEASURED_SECONDS:
        for _ in range(100):
            np.matmul(matrix, matrix, out=result)
        products += 100
    large_over_small = LARGE_OVER_SMALL_AVX512 if "avx512f" in cpu_flags() else LARGE_OVER_SMALL
    return large_over_small * 2 * SMALL_MATRIX**3 * products / spent
