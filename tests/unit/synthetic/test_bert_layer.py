"""BertLayerVariant against transformers' BertLayer, in float32 on the CPU."""

from typing import Any

import pytest
import torch
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertLayer

from pipeline_ops.synthetic.bert_layer import BertLayerVariant

SHAPE: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "attn_implementation": "sdpa"}


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        ({}, 1e-5),
        ({"fused_qkv": True}, 1e-5),
        ({"varlen": True}, 1e-5),
        ({"gelu_in_gemm": True, "fused_qkv": True}, 2e-3),  # an approximation of GELU
        ({"fp8": "feed-forward"}, 0.2),
        ({"fp8": "all", "fused_qkv": True}, 0.3),
    ],
)
def test_variant_of_a_layer_computes_the_same_but_for_its_rounding(settings: dict[str, Any], tolerance: float) -> None:
    torch.manual_seed(0)
    layer = BertLayer(BertConfig(**SHAPE)).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    states = torch.randn(3, 7, 32)
    with torch.inference_mode():
        expected = layer(states)
        found = BertLayerVariant(layer, **settings)(states)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def test_variant_of_a_layer_masks_padding() -> None:
    torch.manual_seed(0)
    layer = BertLayer(BertConfig(**SHAPE)).eval()
    variant = BertLayerVariant(layer, fused_qkv=True)
    states, mask = torch.randn(2, 7, 32), torch.ones(2, 1, 1, 7, dtype=torch.bool)
    mask[1, ..., 5:] = False
    with torch.inference_mode():
        found = variant(states, mask)
        torch.testing.assert_close(found, layer(states, mask))
        torch.testing.assert_close(found[1:, :5], variant(states[1:, :5]))
