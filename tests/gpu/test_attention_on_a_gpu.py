"""Attention over padded batches on a GPU: FlashAttention's kernel for segments, and the answers of models that attend by it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline_ops.classifying.forward_pass import ForwardPasses
from pipeline_ops.loading.padded_attention import (
    MASKED,
    ON_A_GPU,
    SEGMENTED,
    attention_by_mask,
    bounds_of,
    segmented_attention,
    use,
)
from pipeline_ops.models.padding_side import pads_left
from tests.models.architectures import ARCHITECTURES, untrained_classifier
from tests.models.folders import load
from tests.support.random_rows import RandomRows

LENGTHS = (5, 130, 257, 400)  # over blocks of 128 tokens and their bounds
WAITING = ("BART", "PLBart")  # in their heads

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def make(architecture: str) -> Path:
        folder = tmp_path_factory.mktemp("classifier") / "model"
        untrained_classifier(architecture, max(LENGTHS)).save_pretrained(folder)
        return folder

    return make


def passes_of(model: Any, architecture: str) -> ForwardPasses:
    side = "left" if architecture.endswith("left") else "right"
    return ForwardPasses(model, pad_left=pads_left(model.config, side), embedding="mean")


def answers(passes: ForwardPasses, *, padded: bool) -> torch.Tensor:
    rows = RandomRows.for_model(passes.model, padded=padded, pad_left=passes.pad_left, lengths_padded=LENGTHS)
    return rows.through(passes)


@contextmanager
def no_synchronization() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    ("architecture", "dtype"),
    [*((architecture, "bfloat16") for architecture in ARCHITECTURES), ("BERT", "float16"), ("ModernBERT", "float16")],
)
def test_answers_are_as_near_to_float32_as_those_of_sdpa_and_no_pass_waits(
    architecture: str, dtype: str, folder_of: Callable[[str], Path]
) -> None:
    model = load(folder_of(architecture), dtype, "cuda")
    if model.config._attn_implementation == "eager":
        pytest.skip("its attention is its own")
    assert model.config._attn_implementation in (ON_A_GPU, MASKED)
    exact = passes_of(load(folder_of(architecture)), architecture)
    expected = {padded: answers(exact, padded=padded) for padded in (True, False)}
    errors: dict[tuple[str, bool], float] = {}
    for name in ("sdpa", MASKED, SEGMENTED):
        model.set_attn_implementation("sdpa")
        if name != "sdpa":
            use(model, name)
        passes = passes_of(model, architecture)
        for padded in (True, False):
            error = float((answers(passes, padded=padded).cpu() - expected[padded]).abs().max())
            errors[name, padded] = error
            assert error <= 3 * errors["sdpa", padded] + 0.01 * float(expected[padded].std()), errors
            # transformers asks decoders without a mask whether they got several texts in a row
            if name == SEGMENTED or (name == MASKED and padded):
                with no_synchronization() if architecture not in WAITING else nullcontext():
                    answers(passes, padded=padded)


@pytest.mark.parametrize("architecture", ["BERT", "ModernBERT", "Llama, padded left"])
def test_answers_in_float32_which_the_kernel_does_not_take_are_those_of_the_cpu(
    architecture: str, folder_of: Callable[[str], Path]
) -> None:
    exact = passes_of(load(folder_of(architecture)), architecture)
    on_gpu = passes_of(load(folder_of(architecture), "float32", "cuda"), architecture)
    for padded in (True, False):
        difference = (answers(on_gpu, padded=padded).cpu() - answers(exact, padded=padded)).abs().max()
        assert difference < 1e-3


@pytest.mark.parametrize("window", [(-1, -1), (16, 16), (-1, 0), (16, 0)], ids=str)
@pytest.mark.parametrize("pad_left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize(("heads", "key_heads", "size"), [(4, 4, 64), (4, 2, 64), (2, 2, 20), (2, 1, 256)])
def test_kernel_attends_within_segments(heads: int, key_heads: int, size: int, pad_left: bool, window: tuple[int, int]) -> None:
    torch.manual_seed(0)
    lengths, width = torch.tensor(LENGTHS, device="cuda")[:, None], max(LENGTHS)
    columns = torch.arange(width, device="cuda")
    bounds = bounds_of(columns >= width - lengths if pad_left else columns < lengths)
    query, key, value = (
        torch.randn(len(LENGTHS), width, count, size, dtype=torch.bfloat16, device="cuda").transpose(1, 2)
        for count in (heads, key_heads, key_heads)
    )
    found = segmented_attention(query, key, value, bounds, window, None)
    expected = attention_by_mask(query.float(), key.float(), value.float(), bounds, window, None)
    assert found.shape == (len(LENGTHS), width, heads, size)
    assert (found.float() - expected).abs().max() < 0.03


def test_as_many_segments_as_a_grid_has_room_for_and_more_are_attended(folder_of: Callable[[str], Path]) -> None:
    passes = passes_of(load(folder_of("BERT"), "bfloat16", "cuda"), "BERT")
    for rows in (32_767, 32_768):
        lengths = [8 if row % 2 else 5 for row in range(rows)]
        of_model = RandomRows.for_model(passes.model, padded=True, pad_left=False, lengths_padded=lengths)
        found = of_model.through(passes)
        first = RandomRows(of_model.ids[:64], None, of_model.lengths[:8], 8).through(passes)
        assert (found[:8] - first).abs().max() < 0.1
        assert found.isfinite().all()
