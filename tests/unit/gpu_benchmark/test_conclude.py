"""What made-up findings of a GPU say of the program's constants."""

from typing import Any

from cluster.resources import GPU_FLOPS, TOKENS_PER_CORE
from jobs.gpu_benchmark.conclude import Conclusion, best_of, conclude
from pipeline_ops.loading.memory import MAX_BATCH_TOKENS, MIN_BATCH_TOKENS
from pipeline_ops.planning.forecast import MFU

Row = dict[str, Any]
DEVICE: Row = {"phase": "facts", "what": "device", "name": "NVIDIA H200"}


def found(*rows: Row) -> dict[str, Conclusion]:
    return {one.name: one for one in conclude(rows)}


def changes(*rows: Row) -> dict[str, Any]:
    """The new values of what is to change."""
    return {name: one.new for name, one in found(*rows).items() if one.new != one.old}


def test_without_findings_there_are_no_conclusions() -> None:
    assert conclude([]) == []


def test_gpus_that_only_torch_sees_are_counted() -> None:
    row = {"phase": "facts", "what": "gpus", "proc": 0, "dev": 1, "nvml": None, "torch": 1, "this_machine": 0}
    assert changes(row) == {"this_machine().gpus": 1}
    assert changes({**row, "this_machine": 1}) == {}


def attention(kernel: str, **milliseconds: float) -> Row:
    return {"phase": "attention", "length": 512, "kernel": kernel, "milliseconds": milliseconds}


def test_cudnn_is_used_from_where_its_plan_has_paid() -> None:
    plan = {"phase": "attention", "test": "new shapes", "kernel": "cudnn", "mask": "none", "later_milliseconds": 0.3}
    kernels = [attention("flash", none=0.38), attention("cudnn", none=0.255)]
    usual = {**plan, "first_milliseconds": 65.3}
    assert changes(*kernels, usual) == {}
    assert changes(*kernels, {**plan, "first_milliseconds": 450.3}) == {"PASSES_OF_A_PLAN": 300}
    assert changes(kernels[0], attention("cudnn", none=0.4), {**plan, "first_milliseconds": 65.3}) == {
        "PASSES_OF_A_PLAN": "never"
    }
    assert "PASSES_OF_A_PLAN" not in found(*kernels, {**plan, "error": "no such kernel"})


def test_fastest_attention_with_padding_is_named_where_it_is_another() -> None:
    rows = [attention("efficient", none=0.8, bool=1.2), attention("cudnn", bool=0.2), attention("varlen", none=0.3, packed=0.3)]
    assert changes(*rows, attention("varlen", segments=0.4, seqused_k=0.5)) == {}
    assert changes(*rows, attention("varlen", segments=1.4)) == {"ON_A_GPU, width 512": "efficient (bool)"}


def test_rate_of_a_core_is_that_of_a_machine_at_work() -> None:
    def rates(*factors: float) -> list[Row]:
        return [
            {
                "phase": "tokenizers",
                "processes": count,
                "niceness": 0,
                "tokens_per_second_per_core": factor * TOKENS_PER_CORE,
            }
            for count, factor in zip((1, 8, 16), factors, strict=True)
        ]

    assert changes(*rates(3, 2.5, 2)) == {"TOKENS_PER_CORE": 2 * TOKENS_PER_CORE}
    alike = rates(3, 2.5, 1.1)
    assert found(*alike).keys() == {"TOKENS_PER_CORE"}
    assert changes(*alike) == {}


def test_speed_of_a_gpu_is_that_of_mixed_lengths() -> None:
    rows = [
        DEVICE,
        {"phase": "bert-base", "tokens": 65_536, "length": 512, "mfu": 0.9},
        {"phase": "bert-base", "tokens": 65_536, "length": "mixed", "cudnn": False, "mfu": 0.2},
        {"phase": "bert-base", "tokens": 65_536, "length": "mixed", "cudnn": True, "mfu": 0.8},
    ]
    assert changes(*rows) == {"MFU": 0.2, "GPU_FLOPS": 2e14}
    assert found(*rows).keys() == {"MFU", "GPU_FLOPS"}
    assert (found(*rows)["MFU"].old, found(*rows)["GPU_FLOPS"].old) == (MFU, GPU_FLOPS)
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
    assert (MIN_BATCH_TOKENS, MAX_BATCH_TOKENS) != (32_768, 65_536)
    assert changes(*rows, *others) == {"MIN_BATCH_TOKENS": 32_768, "MAX_BATCH_TOKENS": 65_536}


def variant(phase: str, name: str, rate: float, agreement: float | None = None) -> Row:
    return {"phase": phase, "variant": name, "documents_per_second": rate, "label_agreement": agreement}


def test_kinds_are_compiled_where_that_beats_what_it_replaces() -> None:
    name = "compile layers by width"
    bert = [variant("variants", "eager", 4000.0), variant("variants", "fused layers", 4800.0)]
    assert changes(*bert, variant("variants", name, 5000.0)) == {}
    assert changes(*bert, variant("variants", name, 5800.0)) == {"GAINS['bert']": True}
    deberta = [variant("deberta", "eager", 800.0), {**variant("deberta", "eager", 700.0), "tokens": 8192}]
    assert changes(*deberta, variant("deberta", name, 1600.0)) == {}
    assert changes(*deberta, variant("deberta", name, 850.0)) == {"GAINS['deberta-v2']": False}
    assert found(*deberta, {"phase": "deberta", "variant": name, "left_out": "no time"}) == {}


def test_fastest_variant_is_one_that_keeps_the_labels_and_is_worth_it() -> None:
    rows = [
        variant("variants", "eager", 4000.0, 0.999),
        variant("variants", "fused layers", 5000.0, 0.998),
        variant("variants", "fp8", 7000.0, 0.95),
    ]
    assert changes(*rows, variant("variants", "a little faster", 5100.0, 0.999)) == {}
    assert changes(*rows, variant("variants", "faster", 6000.0, 0.999)) == {"BERT-base": "faster"}
    wrong = {**rows[1], "label_agreement": 0.5}
    assert changes(rows[0], wrong, rows[2]) == {"BERT-base": "eager"}


def test_tokenizers_that_slow_the_launches_of_kernels_are_to_be_nicer() -> None:
    rows = [
        {"phase": "tokenizers", "processes": 0, "launch_microseconds": 4.0},
        {"phase": "tokenizers", "processes": 32, "niceness": 0, "launch_microseconds": 12.0},
        {"phase": "tokenizers", "processes": 32, "niceness": 4, "launch_microseconds": 8.0},
    ]
    assert changes(*rows) == {"TOKENIZER_NICENESS": "more"}
    assert changes(*rows[:2], {**rows[2], "launch_microseconds": 4.1}) == {}


def test_gpu_that_does_not_wait_between_units_needs_one_call_at_a_time() -> None:
    row = {"phase": "actor", "model": "BERT-base", "unit": "all", "bubble_percent": 0.4}
    assert changes(row) == {"GPU_CALLS": 1}
    assert changes(row, {**row, "model": "22M", "bubble_percent": 15.0}) == {}


def test_what_is_not_right_on_a_gpu_is_a_conclusion() -> None:
    row = {"phase": "correctness", "check": "roberta, float16", "ok": False, "largest_difference": 0.5}
    assert changes(row, {**row, "check": "bert", "ok": True}) == {"roberta, float16": "wrong"}


def test_best_rates_of_a_phase_are_those_of_its_findings_and_of_what_is_in_them() -> None:
    rows = [
        {"phase": "ceilings", "what": "copy", "tb_per_second": 4.2},
        {"phase": "ceilings", "what": "layer", "tflops": {"linear": 675.0, "float8 by row": 992.0}},
        {"phase": "22m", "tokens": 8192, "documents_per_second": 98_765.4},
    ]
    assert best_of(rows, "ceilings") == "4.2 TB/s, 992 TFLOP/s"
    assert best_of(rows, "22m") == "98,765 documents/s"
