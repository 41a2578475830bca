"""Heads in float32 behind models in bfloat16: logits in steps of float32, for all architectures."""

import numpy as np
import pytest
import torch

from pipeline_ops.classifying.forward_pass import ForwardPasses
from pipeline_ops.loading.float32_head import keep_head_in_float32
from pipeline_ops.loading.load import prepare_for_batches
from pipeline_ops.models.padding_side import pads_left
from tests.models.architectures import ARCHITECTURES, untrained_classifier
from tests.support.random_rows import RandomRows

torch.set_num_threads(1)


def logits_of(architecture: str, dtype: torch.dtype, *, converted: bool) -> torch.Tensor:
    model = untrained_classifier(architecture).to(dtype)
    prepare_for_batches(model)
    if converted:
        keep_head_in_float32(model)
    passes = ForwardPasses(model, pad_left=pads_left(model.config, "right"))
    return RandomRows.for_model(model, padded=True, pad_left=passes.pad_left).through(passes)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_have_the_steps_of_float32_and_are_as_near_to_those_of_float32(architecture: str) -> None:
    exact, low, mixed = (
        logits_of(architecture, dtype, converted=converted)
        for dtype, converted in ((torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True))
    )
    assert torch.equal(low, low.bfloat16().float())
    assert not torch.equal(mixed, mixed.bfloat16().float())
    np.testing.assert_allclose(mixed, low, rtol=0, atol=0.05 * float(exact.std()) + 2 * float((low - exact).abs().max()))


def test_model_in_float32_is_as_it_was() -> None:
    model = untrained_classifier("RoBERTa")
    before = [parameter.data_ptr() for parameter in model.parameters()]
    keep_head_in_float32(model)
    assert [parameter.data_ptr() for parameter in model.parameters()] == before
