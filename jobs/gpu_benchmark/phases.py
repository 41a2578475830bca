"""The phases of `benchmark --gpu`, in their order, and what each is given. No torch is imported here: the parent does without.

A phase is a function of a Bench that reports each finding as soon as it has it, by `bench.row(...)`: a phase that is cut off,
or whose process dies, keeps what it has found. It imports torch and transformers when it runs.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TextIO

DIGITS = 4  # of a number that is shown
MARGIN_SECONDS = 0.5  # that a repetition of a measurement leaves before the phase's deadline


@dataclass(frozen=True)
class Phase:
    """A part of the benchmark. `function`: MODULE.FUNCTION, of this package unless the module's name has a dot.

    A module is imported when its phase runs: one that cannot be costs no other phase.
    """

    name: str
    seconds: float  # budget; the phase is cut off some seconds later
    function: str

    def load(self) -> Callable[["Bench"], None]:
        module, _, name = self.function.rpartition(".")
        return getattr(import_module(module if "." in module else f"{__package__}.{module}"), name)


PHASES = (
    Phase("facts", 10, "machine.facts"),
    Phase("ceilings", 20, "machine.ceilings"),
    Phase("attention", 50, "attention.measure"),
    Phase("correctness", 70, "correctness.measure"),
    Phase("bert-base", 60, "eager.bert_base"),
    Phase("variants", 100, "variants.measure"),
    Phase("deberta", 50, "variants.deberta"),
    Phase("22m", 30, "eager.small"),
    Phase("actor", 40, "actor.measure"),
    Phase("tokenizers", 30, "tokenizer_rates.measure"),
)


def rounded(value: Any) -> Any:
    """With every float in it rounded to DIGITS significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


@dataclass
class Bench:
    """What a phase knows and how it reports.

    Attributes:
        phase: its name.
        device: "cuda", or "cpu" in a rehearsal without a GPU.
        tiny: a rehearsal: the smallest sizes that run through all of the code, a few seconds per phase on a slow CPU.
        deadline: of time.monotonic; what is left out for it is reported as a row with `left_out`.
        gpu: torch.cuda.get_device_name(); None on a CPU.
    """

    phase: str
    device: str
    tiny: bool
    deadline: float
    gpu: str | None = None
    lines: TextIO | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def row(self, finding: dict[str, Any]) -> None:
        """Reports a finding: an object that JSON can hold, its numbers in the units that their keys name; they are rounded."""
        finding = rounded(finding)
        self.rows.append(finding)
        if self.lines is not None:
            print(json.dumps({"phase": self.phase, **finding}), file=self.lines, flush=True)

    def has_time(self, seconds: float = 0) -> bool:
        """Whether what takes so many seconds ends before the deadline."""
        return time.monotonic() + seconds < self.deadline

    def synchronize(self) -> None:
        """Waits for the device."""
        if self.on_gpu:
            import torch

            torch.cuda.synchronize()

    def seconds(self, function: Callable[[], Any]) -> float:
        """Wall-clock seconds of one call, the device waited for before and after it."""
        self.synchronize()
        begin = time.perf_counter()
        function()
        self.synchronize()
        return time.perf_counter() - begin

    def milliseconds(self, function: Callable[[], Any], warmup: int = 3, repeat: int = 10) -> float:
        """Median of the device's milliseconds per call: CUDA events around each, or the clock on a CPU.

        Events include the device's idling where the host is slower; compare with seconds(). Ends early, after one call at the
        least, before the deadline. A rehearsal calls it once.
        """
        if self.tiny:
            warmup, repeat = min(warmup, 1), 1
        for _ in range(warmup):
            function()
        if not self.on_gpu:
            return 1000 * statistics.median(self.seconds(function) for _ in range(repeat))
        import torch

        torch.cuda.synchronize()
        pairs = []
        for _ in range(repeat):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            function()
            end.record()
            pairs.append((begin, end))
            if not self.has_time(MARGIN_SECONDS):
                break
        torch.cuda.synchronize()
        return statistics.median(begin.elapsed_time(end) for begin, end in pairs)
