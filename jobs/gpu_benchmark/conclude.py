"""What the findings of `benchmark --gpu` mean for the program: the constants and defaults that they contradict.

Functions over the rows; each returns nothing where its phases did not run, or found nothing else than the program has.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.resources import GPU_FLOPS, TOKENS_PER_CORE
from pipeline_ops.loading.memory import MAX_BATCH_TOKENS, MIN_BATCH_TOKENS
from pipeline_ops.models.flops import peak_flops
from pipeline_ops.planning.forecast import MFU

Row = dict[str, Any]

ALIKE = 0.15  # a constant that differs by less from what is measured stays
NEARLY_BEST = 0.95  # of the best rate, which the least batch is to have
AS_GOOD = 0.99  # of the best rate, which the largest batch needs not exceed
WORTH_COMPILING = 1.15  # times as fast
LABELS_LOST = 0.002  # share of documents whose labels a faster way may change beside what the dtype changes
PLAN_MILLISECONDS = 5.0  # that a first call takes longer than later ones: a plan is built
FULL_BATCH = 65_536  # tokens
SLOWED = 1.25  # times the time that a launch takes alone
BUBBLE_PERCENT = 3.0  # of a unit's time
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
    """A change that the measurements ask for, or with `new` equal to `old` a doubt that they settle."""

    place: str  # file
    name: str  # constant or switch
    old: Any
    new: Any
    because: str


def conclude(rows: Sequence[Row]) -> list[Conclusion]:
    """All conclusions, by the rows of all phases, each with its `phase`."""
    functions: tuple[Callable[[Sequence[Row]], Iterable[Conclusion]], ...] = (
        count_of_gpus,
        cudnn_switch,
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
        if row["torch"] and row["this_machine"] != row["torch"]:
            ways = {name: row[name] for name in ("proc", "dev", "nvml", "torch")}
            yield Conclusion(
                "cluster/session.py", "this_machine", row["this_machine"], row["torch"], f"GPUs by each way: {ways}"
            )


def cudnn_switch(rows: Sequence[Row]) -> Iterable[Conclusion]:
    """cuDNN's attention is worth having only if new shapes cost no plans."""
    shapes = _of(rows, "attention", test="new shapes", kernel="cudnn")
    plans = {
        row["mask"]: row["first_milliseconds"] - row["later_milliseconds"] for row in shapes if "first_milliseconds" in row
    }
    if plans:
        slow = max(plans.values()) > PLAN_MILLISECONDS
        said = ", ".join(f"{milliseconds:.4g} ms ({mask})" for mask, milliseconds in plans.items())
        yield Conclusion(
            "torch.backends.cuda.enable_cudnn_sdp", "cudnn attention", "on in torch", "off" if slow else "on",
            f"a new shape's first call takes {said} longer than the next ones",
        )  # fmt: skip


def attention_kind(rows: Sequence[Row]) -> Iterable[Conclusion]:
    """The fastest way to attend with padding at a full batch, cuDNN apart, and what it is worth."""
    for length in USUAL_LENGTHS:
        times = {
            f"{row['kernel']} ({mask})": milliseconds
            for row in _of(rows, "attention", length=length)
            if row["kernel"] in ("efficient", "varlen", "flash")
            for mask, milliseconds in row["milliseconds"].items()
            if mask not in ("none", "packed")
        }
        if len(times) < 2:
            continue
        best, usual = min(times, key=lambda name: times[name]), "efficient (bool)"
        if best != usual and usual in times:
            yield Conclusion(
                "pipeline_ops/classifying", f"attention with padding, width {length}", usual, best,
                f"{times[best]:.4g} ms per layer in place of {times[usual]:.4g}, {FULL_BATCH:,} tokens",
            )  # fmt: skip


def tokens_per_core(rows: Sequence[Row]) -> Iterable[Conclusion]:
    rates = {
        row["processes"]: row["tokens_per_second_per_core"]
        for row in _of(rows, "tokenizers", niceness=0)
        if "tokens_per_second_per_core" in row
    }
    measured = [rates[count] for count in FEEDING if count in rates]
    if measured:
        rate = _two_digits(min(measured))
        yield from _changed(
            "cluster/resources.py",
            "TOKENS_PER_CORE",
            TOKENS_PER_CORE,
            rate,
            f"tokens/s per core, by processes: {_short(rates)}",
        )


def gpu_speed(rows: Sequence[Row]) -> Iterable[Conclusion]:
    """GPU_FLOPS and MFU, by BERT-base on batches of mixed lengths, as the program runs it."""
    device = next((row["name"] for row in _of(rows, "facts", what="device")), None)
    peak = peak_flops(device, "bfloat16")
    mixed = [row["mfu"] for row in _of(rows, "bert-base", length="mixed", cudnn=False) if row.get("mfu")]
    if peak and mixed:
        measured = max(mixed)
        because = f"BERT-base reaches {measured:.0%} of {device}'s peak"
        yield from _changed("cluster/resources.py", "GPU_FLOPS", GPU_FLOPS, _two_digits(measured * peak), because)
        yield from _changed("pipeline_ops/planning/forecast.py", "MFU", MFU, round(measured, 2), because)


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
        yield from _changed(
            place, "MIN_BATCH_TOKENS", MIN_BATCH_TOKENS, max(least), f"{NEARLY_BEST:.0%} of the best rate from there on"
        )
        yield from _changed(
            place, "MAX_BATCH_TOKENS", MAX_BATCH_TOKENS, max(most), f"{AS_GOOD:.0%} of the best rate there already"
        )


def compile_table(rows: Sequence[Row]) -> Iterable[Conclusion]:
    """Whether compiling alone pays: the best compiled variant beside the best eager one, none of them with other arithmetic."""
    for phase, model in (("variants", "bert"), ("deberta", "deberta-v2")):
        eager = _rates_of_variants(_of(rows, phase, exact=True, compiled=None))
        compiled = _rates_of_variants([row for row in _of(rows, phase, exact=True) if row.get("compiled")])
        if eager and compiled:
            name = max(compiled, key=lambda name: compiled[name])
            factor = compiled[name] / max(eager.values())
            new = factor >= WORTH_COMPILING
            yield Conclusion(
                "model.compile", f"default for {model}", False, new, f"{name}: {factor:.2f} times the best eager one"
            )


def fastest_variant(rows: Sequence[Row]) -> Iterable[Conclusion]:
    """The fastest way to run BERT-base whose labels are those of plain eager passes about as often as these are float32's."""
    agreement = {row["variant"]: row["label_agreement"] for row in _of(rows, "variants") if row.get("label_agreement")}
    rates = _rates_of_variants(_of(rows, "variants"))
    if "eager" in agreement:
        least = agreement["eager"] - LABELS_LOST
        right = {name: rate for name, rate in rates.items() if agreement.get(name, 0) >= least}
        name = max(right, key=lambda name: right[name])
        because = (
            f"{right[name] / rates['eager']:.2f} times eager; labels as float32: {agreement[name]}, eager {agreement['eager']}"
        )
        yield Conclusion("pipeline_ops/classifying", "BERT-base at a full batch", "eager", name, because)


def _rates_of_variants(rows: Sequence[Row]) -> dict[str, float]:
    """documents/s of each variant, at its best number of tokens per pass."""
    rates: dict[str, float] = {}
    for row in rows:
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
        if niceness and alone and plain and nice > SLOWED * alone:
            because = (
                f"µs of a launch beside {processes} tokenizers: {_shown(nice)}, {_shown(plain)} where they are not nice;"
                f" {_shown(alone)} alone"
            )
            yield Conclusion("jobs/run/chain.py", "TOKENIZER_NICENESS", niceness, "more", because)


def bubbles(rows: Sequence[Row]) -> Iterable[Conclusion]:
    """What a classifier that works on one unit at a time loses between them."""
    for row in _of(rows, "actor", unit="all"):
        if row.get("bubble_percent", 0) > BUBBLE_PERCENT:
            because = f"{row['bubble_percent']:.3g} % of a unit's time the GPU waits, {row['bubble_seconds']:.3g} s"
            yield Conclusion("jobs/run/chain.py", f"calls of a classifier at a time, {row['model']}", 1, 2, because)


def checks(rows: Sequence[Row]) -> Iterable[Conclusion]:
    """What is wrong on this GPU."""
    for row in _of(rows, "correctness"):
        if row.get("ok") is False:
            values = {key: value for key, value in row.items() if key not in ("phase", "check", "ok")}
            yield Conclusion("correctness", str(row.get("check")), "right", "wrong", _short(values)[:REASON_CHARACTERS])


def _changed(place: str, name: str, old: float, new: float, because: str) -> Iterable[Conclusion]:
    if abs(new - old) > ALIKE * old:
        yield Conclusion(place, name, old, new, because)


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")


def _shown(value: Any) -> str:
    """Of a number its first digits, and no exponent from a thousand on."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _short(values: dict[Any, Any]) -> str:
    return ", ".join(f"{key}: {_shown(value)}" for key, value in values.items() if value is not None)
