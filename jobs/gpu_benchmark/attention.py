"""Attention of BERT-base's shape at a full batch: torch's kernels by mask, and what they take for shapes they have not seen."""

import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from jobs.gpu_benchmark.phases import Bench
from pipeline_ops.schema.errors import one_line

TOKENS = 65_536
HEADS, HEAD_SIZE = 12, 64
LENGTHS = (512, 128, 104, 100, 2048)  # 104: what the tokenizers pad documents of 100 tokens to
SHORTEST = 7 / 8  # of the width, for all but the first rows: batches are sorted by length
NEW_SHAPES = 20
CHECKED_ROWS = 3  # which are compared with float32
KERNELS = {"default": None, "cudnn": "CUDNN_ATTENTION", "flash": "FLASH_ATTENTION", "efficient": "EFFICIENT_ATTENTION"}
VARLEN = "varlen"  # flash attention over flat tokens, in sequences that it is given the beginnings of
MESSAGE_CHARACTERS = 160


@dataclass(frozen=True)
class Batch:
    """Queries, keys and values as a model has them, (rows, heads, width, head size) with the heads' stride inside the token's.

    lengths: int32 (rows,) on the device.
    """

    queries: Any
    keys: Any
    values: Any
    lengths: Any

    @property
    def rows(self) -> int:
        return self.queries.shape[0]

    @property
    def width(self) -> int:
        return self.queries.shape[2]


def measure(bench: Bench) -> None:
    """A row per length and kernel: milliseconds by mask, masks that it refuses, largest difference from float32; new shapes."""
    for length in (16, 24) if bench.tiny else LENGTHS:
        batch = next(_batches(bench, [(_rows(bench, length), length)]))
        expected = _expected(batch)
        for kernel in KERNELS:
            _measure(bench, {"length": length, "kernel": kernel}, _ways(batch, kernel), batch, expected)
        _measure(bench, {"length": length, "kernel": VARLEN}, _varlen_ways(batch), batch, expected)
    for kernel, mask in (
        *(("efficient", "none"), ("efficient", "bool"), ("flash", "none"), (VARLEN, "seqused_k")),
        *(("cudnn", "none"), ("cudnn", "bool"), ("cudnn", "additive")),
    ):
        _new_shapes(bench, kernel, mask)


def _rows(bench: Bench, length: int) -> int:
    return 4 if bench.tiny else TOKENS // length


def _batches(bench: Bench, shapes: list[tuple[int, int]]) -> Iterator[Batch]:
    """Batches of (rows, width), views of the same memory: no time of an allocation is in what is measured."""
    import torch

    heads, size = (2, 16) if bench.tiny else (HEADS, HEAD_SIZE)
    dtype = torch.bfloat16 if bench.on_gpu else torch.float32
    torch.manual_seed(0)
    cells = max(rows * width for rows, width in shapes)
    flat = [torch.randn(cells, heads, size, dtype=dtype, device=bench.device) for _ in range(3)]
    for rows, width in shapes:
        lengths = torch.randint(int(width * SHORTEST), width + 1, (rows,), dtype=torch.int32)
        lengths[:CHECKED_ROWS] = torch.tensor([1, width // 2, width])[:rows]
        parts = [one[: rows * width].view(rows, width, heads, size).transpose(1, 2) for one in flat]
        yield Batch(*parts, lengths=lengths.to(bench.device))


def _masks(batch: Batch) -> dict[str, Any]:
    """The padding mask of the keys in each form, True or 0 where there is a token."""
    import torch

    columns = torch.arange(batch.width, device=batch.lengths.device)
    allowed = (columns < batch.lengths[:, None])[:, None, None]
    lowest = torch.finfo(batch.queries.dtype).min
    additive = torch.zeros(allowed.shape, dtype=batch.queries.dtype, device=allowed.device).masked_fill_(~allowed, lowest)
    full = (batch.rows, batch.queries.shape[1], batch.width, batch.width)
    return {"none": None, "bool": allowed, "additive": additive, "additive, expanded": additive.expand(full)}


def _ways(batch: Batch, kernel: str) -> dict[str, Callable[[], Any]]:
    from torch.nn.functional import scaled_dot_product_attention

    def attend(mask: Any) -> Any:
        with _only(kernel):
            return scaled_dot_product_attention(batch.queries, batch.keys, batch.values, attn_mask=mask)

    return {name: lambda mask=mask: attend(mask) for name, mask in _masks(batch).items()}


def _only(kernel: str) -> AbstractContextManager[Any]:
    """Within the block torch has no other kernel."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    name = KERNELS[kernel]
    return nullcontext() if name is None else sdpa_kernel(getattr(SDPBackend, name))


def _varlen_ways(batch: Batch) -> dict[str, Callable[[], Any]]:
    """Over the padded tokens: all of them, each row's own (seqused_k), and these and its padding as two sequences, as the
    program does (segments); and over the rows' own tokens alone, as a packed batch has them.
    """
    import torch

    rows, width = batch.rows, batch.width
    padded = [part.transpose(1, 2).flatten(0, 1) for part in (batch.queries, batch.keys, batch.values)]
    starts = torch.arange(0, (rows + 1) * width, width, dtype=torch.int32, device=padded[0].device)
    kept = (torch.arange(width, device=padded[0].device) < batch.lengths[:, None]).flatten()
    segments = torch.cat([torch.stack([starts[:-1], starts[:-1] + batch.lengths], dim=1).flatten(), starts[-1:]])
    packed = [part[kept] for part in padded]
    packed_starts = torch.cat([starts[:1], batch.lengths.cumsum(0, dtype=torch.int32)])

    def call(parts: list[Any], begins: Any, used: Any) -> Any:
        return torch.ops.aten._flash_attention_forward(
            *parts, begins, begins, width, width, 0.0, False, False, scale=None, seqused_k=used
        )[0]

    def as_batch(flat: Any) -> Any:
        return flat.view(rows, width, *flat.shape[1:]).transpose(1, 2)

    return {
        "none": lambda: as_batch(call(padded, starts, None)),
        "seqused_k": lambda: as_batch(call(padded, starts, batch.lengths)),
        "segments": lambda: as_batch(call(padded, segments, None)),
        "packed": lambda: call(packed, packed_starts, None),
    }


def _expected(batch: Batch) -> Any:
    """Attention of the first rows in float32, (CHECKED_ROWS, heads, width, head size)."""
    import torch

    queries, keys, values = (part[:CHECKED_ROWS].float() for part in (batch.queries, batch.keys, batch.values))
    allowed = torch.arange(batch.width, device=queries.device) < batch.lengths[:CHECKED_ROWS, None]
    scores = queries @ keys.transpose(2, 3) / queries.shape[3] ** 0.5
    return scores.masked_fill(~allowed[:, None, None], -torch.inf).softmax(dim=3) @ values


def _difference(actual: Any, batch: Batch, expected: Any) -> float:
    """The largest, over the queries that are no padding."""
    import torch

    real = torch.arange(batch.width, device=expected.device) < batch.lengths[:CHECKED_ROWS, None]
    return float((actual[:CHECKED_ROWS].float() - expected).abs().amax(dim=(1, 3))[real].max())


def _measure(bench: Bench, row: dict[str, Any], ways: Mapping[str, Callable[[], Any]], batch: Batch, expected: Any) -> None:
    milliseconds, differences, refused = {}, {}, {}
    for mask, attend in ways.items():
        if not bench.has_time(1):
            refused.setdefault("no time left", []).append(mask)
            continue
        try:
            with warnings.catch_warnings(record=True) as reasons:
                warnings.simplefilter("always")
                actual = attend()
                milliseconds[mask] = bench.milliseconds(attend)
            if mask not in ("none", "packed"):  # which attend to the padding, or have none
                differences[mask] = _difference(actual, batch, expected)
        except Exception as error:
            refused.setdefault(_reason(error, reasons), []).append(mask)
    bench.row({**row, "rows": batch.rows, "milliseconds": milliseconds, "difference": differences, "refused": refused})


def _reason(error: Exception, reasons: list[warnings.WarningMessage]) -> str:
    """Why there is no kernel: torch warns of each condition that is not met, and then raises that there is none."""
    said = [" ".join(str(one.message).split()) for one in reasons if "kernel not used because" not in str(one.message)]
    return "; ".join([one_line(error), *said])[:MESSAGE_CHARACTERS]


def _new_shapes(bench: Bench, kernel: str, mask: str) -> None:
    """The first call of a kernel for a shape against the later ones, wall-clock, for shapes that were not there before."""
    count = 2 if bench.tiny else NEW_SHAPES
    widths = [16 + 8 * (3 * number % 59) for number in range(1, count + 1)]
    shapes = [(_rows(bench, width) - 1, width) for width in widths]
    first, later = [], []
    row = {"test": "new shapes", "kernel": kernel, "mask": mask}
    try:
        for batch in _batches(bench, shapes):
            attend = (_varlen_ways(batch) if kernel == VARLEN else _ways(batch, kernel))[mask]
            first.append(1000 * bench.seconds(attend))
            later.append(1000 * statistics.median(bench.seconds(attend) for _ in range(3)))
            if not bench.has_time(2):
                break
    except Exception as error:
        bench.row({**row, "error": one_line(error)[:MESSAGE_CHARACTERS]})
        return
    bench.row(
        {
            **row,
            "shapes": len(first),
            "first_milliseconds": statistics.median(first),
            "most_milliseconds": max(first),
            "later_milliseconds": statistics.median(later),
        }
    )
