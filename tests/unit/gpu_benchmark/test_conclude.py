"""What made-up findings of a GPU say of the program's constants."""

from typing import Any

import pytest

from cluster.resources import GPU_FLOPS, TOKENS_PER_CORE
from jobs.gpu_benchmark.conclude import Conclusion, best_of, conclude
from pipeline_ops.loading.memory import MAX_BATCH_TOKENS, MIN_BATCH_TOKENS
from pipeline_ops.planning.forecast import MFU

Row = dict[str, Any]
DEVICE: Row = {"phase": "facts", "what": "device", "name": "NVIDIA H200"}


def found(*rows: Row) -> dict[str, Conclusion]:
    return {one.name: one for one in conclude(rows)}


def test_without_findings_there_is_nothing_to_change() -> None:
    assert conclude([]) == []


def test_gpus_that_only_torch_sees_are_named() -> None:
    row = {"phase": "facts", "what": "gpus", "proc": 0, "dev": 1, "nvml": 1, "torch": 1, "this_machine": 0}
    assert (found(row)["this_machine"].old, found(row)["this_machine"].new) == (0, 1)
    assert found({**row, "this_machine": 1}) == {}


@pytest.mark.parametrize(("first", "switch"), [(65.0, "off"), (0.5, "on")])
def test_cudnn_stays_off_where_new_shapes_cost_a_plan(first: float, switch: str) -> None:
    row = {"phase": "attention", "test": "new shapes", "kernel": "cudnn", "mask": "bool"}
    assert found({**row, "first_milliseconds": first, "later_milliseconds": 0.3})["cudnn attention"].new == switch
    assert found({**row, "error": "no such kernel"}) == {}


def test_fastest_attention_with_padding_is_named_where_it_is_another() -> None:
    rows = [
        {
            "phase": "attention",
            "length": 512,
            "kernel": "efficient",
            "milliseconds": {"none": 0.8, "bool": 1.2, "additive": 1.3},
        },
        {"phase": "attention", "length": 512, "kernel": "cudnn", "milliseconds": {"none": 0.1, "bool": 0.2}},
        {
            "phase": "attention",
            "length": 512,
            "kernel": "varlen",
            "milliseconds": {"none": 0.3, "seqused_k": 0.4, "packed": 0.35},
        },
    ]
    one = found(*rows)["attention with padding, width 512"]
    assert (one.old, one.new) == ("efficient (bool)", "varlen (seqused_k)")
    assert found(*rows[:2]) == {}


def test_rate_of_a_core_is_that_of_a_machine_at_work() -> None:
    rates = {1: 3 * TOKENS_PER_CORE, 8: 2.5 * TOKENS_PER_CORE, 16: 2 * TOKENS_PER_CORE}
    rows = [
        {"phase": "tokenizers", "processes": count, "niceness": 0, "tokens_per_second_per_core": rate}
        for count, rate in rates.items()
    ]
    assert found(*rows)["TOKENS_PER_CORE"].new == 2 * TOKENS_PER_CORE
    assert found({**rows[0], "processes": 8, "tokens_per_second_per_core": 1.05 * TOKENS_PER_CORE}) == {}


def test_speed_of_a_gpu_is_that_of_mixed_lengths() -> None:
    rows = [
        DEVICE,
        {"phase": "bert-base", "tokens": 65_536, "length": 512, "mfu": 0.9},
        {"phase": "bert-base", "tokens": 65_536, "length": "mixed", "cudnn": False, "mfu": 0.2},
        {"phase": "bert-base", "tokens": 65_536, "length": "mixed", "cudnn": True, "mfu": 0.8},
    ]
    changes = found(*rows)
    assert (changes["MFU"].old, changes["MFU"].new) == (MFU, 0.2)
    assert (changes["GPU_FLOPS"].old, changes["GPU_FLOPS"].new) == (GPU_FLOPS, 2e14)
    assert found(*rows[1:]) == {}, "of an unknown device no share of its peak is known"


def test_batches_begin_where_the_slowest_starter_is_nearly_at_its_best() -> None:
    rates = {
        "bert-base": {8192: 95, 16_384: 100, 32_768: 100, 65_536: 100},
        "22m": {8192: 40, 16_384: 80, 32_768: 96, 65_536: 100},
    }
    rows = [
        {"phase": phase, "tokens": tokens, "length": 100, "cudnn": False, "graph": False, "tokens_per_second": float(rate)}
        for phase, of_tokens in rates.items()
        for tokens, rate in of_tokens.items()
    ]
    others = [{**rows[-1], "tokens": 8192, "tokens_per_second": 1000.0, key: True} for key in ("graph", "cudnn")]
    changes = found(*rows, *others)
    assert (changes["MIN_BATCH_TOKENS"].old, changes["MIN_BATCH_TOKENS"].new) == (MIN_BATCH_TOKENS, 32_768)
    assert (changes["MAX_BATCH_TOKENS"].old, changes["MAX_BATCH_TOKENS"].new) == (MAX_BATCH_TOKENS, 65_536)


def test_compiling_becomes_the_default_where_it_pays_with_the_same_arithmetic() -> None:
    def variant(phase: str, name: str, rate: float, compiled: str | None = None, exact: bool = True) -> Row:
        return {"phase": phase, "variant": name, "documents_per_second": rate, "compiled": compiled, "exact": exact}

    rows = [
        variant("variants", "eager", 4000.0),
        variant("variants", "compile", 4100.0, "model"),
        variant("variants", "fp8 + compile layers", 7000.0, "layers", exact=False),
        {"phase": "variants", "variant": "compile layers", "exact": True, "compiled": "layers", "left_out": "no time"},
        variant("deberta", "eager", 1200.0),
        {**variant("deberta", "eager", 700.0), "tokens": 8192},
        variant("deberta", "compile", 2500.0, "model"),
    ]
    assert {name: one.new for name, one in found(*rows).items()} == {"default for bert": False, "default for deberta-v2": True}


def test_tokenizers_that_slow_the_launches_of_kernels_are_to_be_nicer() -> None:
    rows = [
        {"phase": "tokenizers", "processes": 0, "launch_microseconds": 4.0},
        {"phase": "tokenizers", "processes": 32, "niceness": 0, "launch_microseconds": 12.0},
        {"phase": "tokenizers", "processes": 32, "niceness": 4, "launch_microseconds": 8.0},
    ]
    assert found(*rows)["TOKENIZER_NICENESS"].old == 4
    assert found(*rows[:2], {**rows[2], "launch_microseconds": 4.1}) == {}


def test_gpu_that_waits_between_units_is_to_have_two() -> None:
    row = {"phase": "actor", "model": "22M", "unit": "all", "bubble_percent": 15.0, "bubble_seconds": 0.04}
    assert found(row, {**row, "model": "BERT-base", "bubble_percent": 1.0}).keys() == {"calls of a classifier at a time, 22M"}


def test_fastest_variant_is_one_that_keeps_the_labels() -> None:
    rows = [
        {"phase": "variants", "variant": name, "documents_per_second": rate, "label_agreement": agreement}
        for name, rate, agreement in (("eager", 4000.0, 0.999), ("fused", 5600.0, 0.998), ("fp8", 7000.0, 0.95))
    ]
    one = found(*rows)["BERT-base at a full batch"]
    assert one.new == "fused"
    assert one.because.startswith("1.40 times eager")


def test_what_is_not_right_on_a_gpu_is_a_conclusion() -> None:
    row = {"phase": "correctness", "check": "roberta, float16", "ok": False, "largest_difference": 0.5}
    assert found(row, {**row, "check": "bert", "ok": True}).keys() == {"roberta, float16"}


def test_best_rates_of_a_phase_are_those_of_its_findings_and_of_what_is_in_them() -> None:
    rows = [
        {"phase": "ceilings", "what": "copy", "tb_per_second": 4.2},
        {"phase": "ceilings", "what": "layer", "tflops": {"linear": 675.0, "float8 by row": 992.0}},
        {"phase": "22m", "tokens": 8192, "documents_per_second": 98_765.4},
    ]
    assert best_of(rows, "ceilings") == "4.2 TB/s, 992 TFLOP/s"
    assert best_of(rows, "22m") == "98,765 documents/s"
