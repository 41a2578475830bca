"""What the findings of `benchmark --gpu` mean for the program: which of its constants and defaults they confirm or contradict.

Functions over the rows; each returns nothing where its phases did not run, or found nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.resources import GPU_FLOPS, TOKENS_PER_CORE
from jobs.executors.ray_executor import GPU_CALLS, TOKENIZER_NICENESS
from pipeline_ops.classifying.compiled import GAINS
from pipeline_ops.loading.memory import MAX_BATCH_TOKENS, MIN_BATCH_TOKENS
from pipeline_ops.loading.padded_attention import PASSES_OF_A_PLAN
from pipeline_ops.models.flops import peak_flops
from pipeline_ops.planning.forecast import MFU

Row = dict[str, Any]

ALIKE = 0.15  # a constant that differs by less from what is measured stays
NEARLY_BEST = 0.95  # of the best rate, which the least batch is to have
AS_GOOD = 0.99  # of the best rate, which the largest batch needs not exceed
WORTH_COMPILING = 1.15  # times as fast
LABELS_LOST = 0.002  # share of documents whose labels a faster way may change beside what the dtype changes
BERT_LAYERS = 12
FULL_BATCH = 65_536  # tokens
SLOWED = 1.25  # times the time that a launch takes alone
BUBBLE_PERCENT = 1.0  # of a unit's time
WORTH_A_CHANGE = 1.05  # times as fast
COMPILED = "compile layers by width"  # the variant that model.compile chooses
REASON_CHARACTERS = 200
RATES = {  # key of a finding, or of several in it -> unit
    "tb_per_second": "TB/s",
    "tflops": "TFLOP/s",
    "documents_per_second": "documents/s",
    "mfu": "MFU",
    "tokens_per_second_per_core": "tokens/s per core",
}
USUAL_LENGTHS = (512, 128, 104)
FEEDING = (8, 16)  # processes of a machine that feeds a GPU


@dataclass(frozen=True)
class Conclusion:
    """What the measurements say of a constant or switch; `new` is equal to `old` where they confirm it."""

    place: str  # file
    name: str  # constant or switch
    old: Any
    new: Any
    because: str


def conclude(rows: Sequence[Row]) -> list[Conclusion]:
    """All conclusions, by the rows of all phases, each with its `phase`."""
    functions: tuple[Callable[[Sequence[Row]], Iterable[Conclusion]], ...] = (
        count_of_gpus,
        passes_of_a_plan,
        attention_kind,
        tokens_per_core,
        gpu_speed,
        batch_tokens,
        compile_table,
        fastest_variant,
        tokenizer_niceness,
        bubbles,
        checks,
    )
    return [one for function in functions for one in function(rows)]


def best_of(rows: Sequence[Row], phase: str) -> str:
    """The highest rates among a phase's findings, for a table; empty where it has none."""
    found = []
    for key, unit in RATES.items():
        values = [row[key] for row in _of(rows, phase) if row.get(key) is not None]
        numbers = [number for value in values for number in (value.values() if isinstance(value, dict) else [value])]
        if numbers:
            found.append(f"{_shown(max(numbers))} {unit}")
    return ", ".join(found)


def _of(rows: Sequence[Row], phase: str, **values: Any) -> list[Row]:
    return [row for row in rows if row["phase"] == phase and all(row.get(key) == value for key, value in values.items())]


def count_of_gpus(rows: Sequence[Row]) -> Iterable[Conclusion]:
    for row in _of(rows, "facts", what="gpus"):
        ways = {name: row[name] for name in ("proc", "dev", "nvml", "torch")}
        yield Conclusion("cluster/session.py", "this_machine().gpus", row["this_machine"], row["torch"], _short(ways))


def passes_of_a_plan(rows: Sequence[Row]) -> Iterable[Conclusion]:
    """The passes of BERT-base at a full batch in which cuDNN's attention gains what its plan for the shape costs."""
    place = "pipeline_ops/loading/padded_attention.py"
    times = {row["kernel"]: row["milliseconds"].get("none") for row in _of(rows, "attention", length=USUAL_LENGTHS[0])}
    for row in _of(rows, "attention", test="new shapes", kernel="cudnn", mask="none"):
        if "first_milliseconds" in row and times.get("flash") and times.get("cudnn"):
            plan, gain = row["first_milliseconds"] - row["later_milliseconds"], BERT_LAYERS * (times["flash"] - times["cudnn"])
            because = f"a plan takes {_shown(plan)} ms, a pass {_shown(gain)} ms less than with flash"
            if gain > 0:
                yield _compared(place, "PASSES_OF_A_PLAN", PASSES_OF_A_PLAN, round(max(plan, 0.0) / gain), because, alike=0.5)
            else:
                yield Conclusion(place, "PASSES_OF_A_PLAN", PASSES_OF_A_PLAN, "never", because)


def attention_kind(rows: Sequence[Row]) -> Iterable[Conclusion]:
    """The fastest way to attend with padding at a full batch that torch has for every shape without a plan."""
    for length in USUAL_LENGTHS:
        times = {
            f"{row['kernel']} ({mask})": milliseconds
            for row in _of(rows, "attention", length=length)
            if row["kernel"] in ("efficient", "varlen", "flash")
            for mask, milliseconds in row["milliseconds"].items()
            if mask not in ("none", "packed")
        }
        usual = "varlen (segments)"
        if times:
            best = min(times, key=lambda name: times[name])
            because = f"ms per layer of BERT-base, {FULL_BATCH:,} tokens: {_short(times)}"
            yield Conclusion("pipeline_ops/loading/padded_attention.py", f"ON_A_GPU, width {length}", usual, best, because)


def tokens_per_core(rows: Sequence[Row]) -> Iterable[Conclusion]:
    rates = {
        row["processes"]: row["tokens_per_second_per_core"]
        for row in _of(rows, "tokenizers", niceness=0)
        if "tokens_per_second_per_core" in row
    }
    measured = [rates[count] for count in FEEDING if count in rates]
    if measured:
        rate = _two_digits(min(measured))
        because = f"tokens/s per core, by processes: {_short(rates)}"
        yield _compared("cluster/resources.py", "TOKENS_PER_CORE", TOKENS_PER_CORE, rate, because)


def gpu_speed(rows: Sequence[Row]) -> Iterable[Conclusion]:
    """GPU_FLOPS and MFU, by BERT-base on batches of mixed lengths, as the program runs it."""
    device = next((row["name"] for row in _of(rows, "facts", what="device")), None)
    peak = peak_flops(device, "bfloat16")
    mixed = [row["mfu"] for row in _of(rows, "bert-base", length="mixed", cudnn=False) if row.get("mfu")]
    if peak and mixed:
        measured = max(mixed)
        because = f"BERT-base reaches {measured:.0%} of {device}'s peak"
        yield _compared("cluster/resources.py", "GPU_FLOPS", GPU_FLOPS, _two_digits(measured * peak), because)
        yield _compared("pipeline_ops/planning/forecast.py", "MFU", MFU, round(measured, 2), because)


def batch_tokens(rows: Sequence[Row]) -> Iterable[Conclusion]:
    """The least and the largest batch that auto takes, by the models whose rate was measured over batch sizes."""
    least, most = [], []
    for phase in ("bert-base", "22m"):
        rates: dict[int, float] = {}
        for row in _of(rows, phase):
            if "tokens_per_second" in row and row.get("length") != "mixed" and not (row.get("cudnn") or row.get("graph")):
                rates[row["tokens"]] = row["tokens_per_second"]
        if len(rates) > 2:
            best = max(rates.values())
            least.append(min(tokens for tokens, rate in rates.items() if rate >= NEARLY_BEST * best))
            most.append(min(tokens for tokens, rate in rates.items() if rate >= AS_GOOD * best))
    if least:
        place = "pipeline_ops/loading/memory.py"
        because = f"least tokens with {NEARLY_BEST:.0%} of the best rate"
        yield _compared(place, "MIN_BATCH_TOKENS", MIN_BATCH_TOKENS, max(least), because)
        because = f"least tokens with {AS_GOOD:.0%} of the best rate"
        yield _compared(place, "MAX_BATCH_TOKENS", MAX_BATCH_TOKENS, max(most), because)


def compile_table(rows: Sequence[Row]) -> Iterable[Conclusion]:
    """Whether layers compiled by width, as model.compile does, are faster than what they would replace.

    That is the fused layers; of DeBERTa the plain ones, as it is compiled only where its attention could not be fused.
    """
    for phase, kind, usual in (("variants", "bert", "fused layers"), ("deberta", "deberta-v2", "eager")):
        rates = _rates_of_variants(rows, phase)
        if usual in rates and COMPILED in rates:
            factor = rates[COMPILED] / rates[usual]
            because = f"{COMPILED}: {factor:.2f} times {usual}"
            new = factor >= WORTH_COMPILING
            yield Conclusion("pipeline_ops/classifying/compiled.py", f"GAINS[{kind!r}]", GAINS[kind], new, because)


def fastest_variant(rows: Sequence[Row]) -> Iterable[Conclusion]:
    """The fastest way to run a model whose labels are those of float32 about as often as plain eager passes' are."""
    for phase, model in (("variants", "BERT-base"), ("deberta", "DeBERTa-v3-base")):
        agreement = {row["variant"]: row["label_agreement"] for row in _of(rows, phase) if row.get("label_agreement")}
        rates = _rates_of_variants(rows, phase)
        if "eager" not in agreement:
            continue
        least = agreement["eager"] - LABELS_LOST
        right = {name: rate for name, rate in rates.items() if agreement.get(name, 0) >= least}
        best = max(right, key=lambda name: right[name])
        usual = "fused layers" if "fused layers" in rates else "eager"
        because = (
            f"{rates[best] / rates[usual]:.2f} times {usual}; labels as float32: {agreement[best]}, eager {agreement['eager']}"
        )
        new = usual if rates[best] < WORTH_A_CHANGE * rates[usual] and usual in right else best
        yield Conclusion("pipeline_ops/loading/fused_layers.py", model, usual, new, because)


def _rates_of_variants(rows: Sequence[Row], phase: str) -> dict[str, float]:
    """documents/s of each variant, at its best number of tokens per pass."""
    rates: dict[str, float] = {}
    for row in _of(rows, phase):
        if "documents_per_second" in row:
            rates[row["variant"]] = max(row["documents_per_second"], rates.get(row["variant"], 0))
    return rates


def tokenizer_niceness(rows: Sequence[Row]) -> Iterable[Conclusion]:
    """Whether tokenizers leave the cores to the thread that launches kernels."""
    found = {
        (row["processes"], row.get("niceness", 0)): row["launch_microseconds"]
        for row in _of(rows, "tokenizers")
        if row.get("launch_microseconds")
    }
    for (processes, niceness), nice in found.items():
        alone, plain = found.get((0, 0)), found.get((processes, 0))
        if niceness and alone and plain:
            because = (
                f"µs of a launch beside {processes} tokenizers: {_shown(nice)}, {_shown(plain)} where they are not nice;"
                f" {_shown(alone)} alone"
            )
            new = "more" if nice > SLOWED * alone else TOKENIZER_NICENESS
            yield Conclusion("jobs/executors/ray_executor.py", "TOKENIZER_NICENESS", TOKENIZER_NICENESS, new, because)


def bubbles(rows: Sequence[Row]) -> Iterable[Conclusion]:
    """What a classifier loses between units that takes one after the other, which more calls at a time hide."""
    percents = {row["model"]: row["bubble_percent"] for row in _of(rows, "actor", unit="all") if "bubble_percent" in row}
    if percents:
        because = f"% of a unit's time that the GPU waits with one call at a time: {_short(percents)}"
        new = GPU_CALLS if max(percents.values()) >= BUBBLE_PERCENT else 1
        yield Conclusion("jobs/executors/ray_executor.py", "GPU_CALLS", GPU_CALLS, new, because)


def checks(rows: Sequence[Row]) -> Iterable[Conclusion]:
    """What is wrong on this GPU."""
    for row in _of(rows, "correctness"):
        if row.get("ok") is False:
            values = {key: value for key, value in row.items() if key not in ("phase", "check", "ok")}
            yield Conclusion("correctness", str(row.get("check")), "right", "wrong", _short(values)[:REASON_CHARACTERS])


def _compared(place: str, name: str, old: float, measured: float, because: str, alike: float = ALIKE) -> Conclusion:
    new = measured if abs(measured - old) > alike * old else old
    return Conclusion(place, name, old, new, f"{_shown(measured)}: {because}")


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")


def _shown(value: Any) -> str:
    """Of a number its first digits, and no exponent from a thousand on."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _short(values: dict[Any, Any]) -> str:
    return ", ".join(f"{key}: {_shown(value)}" for key, value in values.items() if value is not None)
