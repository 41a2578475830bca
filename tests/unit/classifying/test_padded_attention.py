"""Attention over padded batches without a look at values: the answers of SDPA, and where a pass would still wait for a GPU."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from pipeline_ops.classifying.forward_pass import ForwardPasses
from pipeline_ops.loading import padded_attention
from pipeline_ops.loading.float32_head import keep_head_in_float32
from pipeline_ops.loading.load import prepare_for_batches
from pipeline_ops.loading.padded_attention import (
    MASKED,
    PASSES_OF_A_PLAN,
    SEGMENTED,
    RecurringShapes,
    attend_without_waiting,
    attention_by_mask,
    bounds_of,
    use,
)
from pipeline_ops.models.padding_side import pads_left
from tests.models.architectures import ARCHITECTURES, untrained_classifier
from tests.support.random_rows import RandomRows
from tests.support.synchronizations import synchronizations

torch.set_num_threads(1)

# Where passes of the other architectures wait, with padding and without, in {module.function: times}. Those of eager attention
# read the mask as transformers does for all; the heads of encoder-decoders look for the end of the text.
LOOKS_AT_THE_MASK = {"masking_utils._ignore_bidirectional_mask_sdpa": 1}
WAITS: dict[str, dict[str, int]] = {
    "DeBERTa-v3": {"modeling_deberta_v2.make_log_bucket_position": 1},
    "MPNet": LOOKS_AT_THE_MASK,
    "BigBird": LOOKS_AT_THE_MASK,
    "BART": {"modeling_bart.forward": 2},
    "PLBart": {"modeling_plbart.forward": 2},
    "BigBird-Pegasus": {"masking_utils._ignore_bidirectional_mask_sdpa": 2, "modeling_bigbird_pegasus.forward": 2},
}
MANY_IN_ITS_OWN_CODE = "Longformer"
ITS_OWN_ATTENTION = {"DeBERTa-v3", "MPNet", "BigBird", "BigBird-Pegasus", "Longformer"}
# transformers asks whether several texts are in one row if a decoder gets no mask; GPT-2 looks for padding as well
PACKED = {"masking_utils.find_packed_sequence_indices": 1}
WAITS_WITHOUT_MASK: dict[str, dict[str, int]] = {
    "Llama, padded right": PACKED,
    "Llama, padded left": PACKED,
    "Qwen2, no padding id": PACKED,
    "GPT-2": {**PACKED, "modeling_utils.warn_if_padding_and_no_attention_mask": 1},
}


@pytest.fixture(autouse=True)
def segments_by_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the kernel, which needs a GPU and a lower dtype."""
    monkeypatch.setattr(padded_attention, "has_kernel", lambda device, dtype: True)
    monkeypatch.setattr(padded_attention, "segmented_attention", attention_by_mask)


@cache
def passes_of(architecture: str, attention: str | None) -> ForwardPasses:
    model = untrained_classifier(architecture)
    prepare_for_batches(model)
    if attention is not None:
        use(model, attention)
    side = "left" if architecture.endswith("left") else "right"
    # the mean of all tokens: heads read a single one
    return ForwardPasses(model, pad_left=pads_left(model.config, side), embedding="mean")


@pytest.mark.parametrize("padded", [True, False], ids=["padded", "unpadded"])
@pytest.mark.parametrize("attention", [MASKED, SEGMENTED])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_are_those_of_sdpa_and_a_pass_waits_where_the_table_says(
    architecture: str, attention: str, padded: bool
) -> None:
    expected, passes = passes_of(architecture, None), passes_of(architecture, attention)
    rows = RandomRows.for_model(passes.model, padded=padded, pad_left=passes.pad_left)
    with synchronizations() as found:
        answers = rows.through(passes)
    assert answers[:, :3].std() > 0.1
    np.testing.assert_allclose(answers, rows.through(expected), rtol=0, atol=1e-5)
    own = passes.model.config._attn_implementation == "eager"
    assert own == (architecture in ITS_OWN_ATTENTION)
    if architecture == MANY_IN_ITS_OWN_CODE:
        assert found.total() > 40
        assert all(place.startswith("modeling_longformer.") for place in found)
        return
    no_mask = WAITS_WITHOUT_MASK.get(architecture, {}) if attention == MASKED and not padded else {}
    assert found == {**WAITS.get(architecture, {}), **no_mask}


def test_the_same_with_sdpa_would_wait_for_each_batch_with_padding() -> None:
    passes = passes_of("BERT", None)
    with synchronizations() as found:
        RandomRows.for_model(passes.model, padded=True, pad_left=False).through(passes)
    assert found == LOOKS_AT_THE_MASK


@pytest.mark.parametrize(
    ("wrong", "architecture"),
    [
        (lambda query, key, value, bounds, window, scaling: (bounds[::2], window), "BERT"),  # padding is no segment
        (lambda query, key, value, bounds, window, scaling: (bounds, (window[0] - 1, window[1])), "ModernBERT"),
        (lambda query, key, value, bounds, window, scaling: (bounds, (window[0], window[1] + 1)), "ModernBERT"),
    ],
    ids=["no padding", "narrower window", "wider window"],
)
def test_other_segments_or_windows_would_give_other_answers(
    monkeypatch: pytest.MonkeyPatch, wrong: Callable[..., Any], architecture: str
) -> None:
    def attend(*arguments: Any) -> torch.Tensor:
        query, key, value, *_, scaling = arguments
        bounds, window = wrong(*arguments)
        return attention_by_mask(query, key, value, bounds, window, scaling)

    passes, expected = passes_of(architecture, SEGMENTED), passes_of(architecture, None)
    rows = RandomRows.for_model(passes.model, padded=True, pad_left=False)
    monkeypatch.setattr(padded_attention, "segmented_attention", attend)
    assert (rows.through(passes) - rows.through(expected)).abs().max() > 1e-3


def too_old(*arguments: Any) -> torch.Tensor:
    raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.\nException raised from run")


def without_bounds(query: Any, key: Any, value: Any, bounds: Any, window: Any, scaling: Any) -> torch.Tensor:
    return attention_by_mask(query, key, value, bounds[::2], window, scaling)


def wider(query: Any, key: Any, value: Any, bounds: Any, window: Any, scaling: Any) -> torch.Tensor:
    return attention_by_mask(query, key, value, bounds, (window[0], window[1] + 1 if window[1] > 0 else window[1]), scaling)


@pytest.mark.parametrize("architecture", ["BERT", "Qwen2, no padding id"])
@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (attention_by_mask, None),
        (too_old, "does not run here (FlashAttention only supports Ampere GPUs or newer."),
        (without_bounds, "answers otherwise than SDPA, with window (-1, -1)"),
        (wider, "answers otherwise than SDPA, with window (16, 16)"),
    ],
)
def test_kernel_that_does_not_run_or_answers_otherwise_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kernel: Callable[..., Any],
    expected: str | None,
    architecture: str,
) -> None:
    monkeypatch.setattr(padded_attention, "segmented_attention", kernel)
    model = untrained_classifier(architecture).to(torch.bfloat16)
    attend_without_waiting(model)
    assert model.config._attn_implementation == (SEGMENTED if expected is None else MASKED)
    assert capsys.readouterr().err.count(expected or "attention has a mask") == (expected is not None)


def test_models_whose_code_is_their_own_keep_their_attention() -> None:
    model = untrained_classifier("BERT")
    model.__class__ = type("Own", (type(model),), {"__module__": "transformers_modules.own"})
    attend_without_waiting(model)
    assert model.config._attn_implementation == "sdpa"


def test_kernel_is_tried_in_the_encoders_dtype_where_a_head_in_float32_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong_in_bfloat16(query: Any, *others: Any) -> Any:
        return (without_bounds if query.dtype == torch.bfloat16 else attention_by_mask)(query, *others)

    monkeypatch.setattr(padded_attention, "segmented_attention", wrong_in_bfloat16)
    model = untrained_classifier("XLM-RoBERTa").to(torch.bfloat16)
    keep_head_in_float32(model)
    attend_without_waiting(model)
    assert model.config._attn_implementation == MASKED


def test_bounds_are_of_two_segments_per_row_on_either_side() -> None:
    mask = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1]]).bool()
    bounds = bounds_of(mask)
    assert bounds.tolist() == [0, 2, 4, 5, 8, 12, 12]
    assert bounds.dtype == torch.int32


def test_mask_of_bidirectional_attention_has_one_row_for_all_tokens() -> None:
    mask = padded_attention.additive_mask(
        2,
        3,
        3,
        attention_mask=torch.tensor([[True, True, False], [True, True, True]]),
        dtype=torch.bfloat16,
        device="cpu",
        allow_is_causal_skip=False,
        allow_is_bidirectional_skip=True,
    )
    assert (mask.shape, mask.dtype) == ((2, 1, 1, 3), torch.bfloat16)
    assert (mask == 0).squeeze().tolist() == [[True, True, False], [True, True, True]]
    assert mask.isfinite().all()


def test_cudnn_attends_where_a_plan_for_the_shape_pays() -> None:
    def allowed_after(passes: int, rows: int, width: int, *, padded: bool) -> bool:
        for _ in range(passes):
            shapes.choose(rows, width, padded=padded)
        return torch.backends.cuda.cudnn_sdp_enabled()

    shapes, before = RecurringShapes(), torch.backends.cuda.cudnn_sdp_enabled()
    try:
        assert not allowed_after(PASSES_OF_A_PLAN, 128, 512, padded=False)
        assert allowed_after(1, 128, 512, padded=False)
        assert not allowed_after(1, 128, 512, padded=True)
        assert not allowed_after(1, 127, 512, padded=False)
        assert not allowed_after(2 * PASSES_OF_A_PLAN, 640, 100, padded=False)
        assert allowed_after(1, 128, 512, padded=False)
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
