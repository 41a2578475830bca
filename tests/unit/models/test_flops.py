"""FLOPs of real architectures against their closed forms, and the peaks of devices."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    LongformerConfig,
    ModernBertConfig,
    PreTrainedConfig,
    Qwen3Config,
    RobertaConfig,
    XLNetConfig,
)

from pipeline_ops.models.flops import (
    DocumentFlops,
    document_flops,
    peak_flops,
    utilization,
)

SMALL: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 2}


def traced(config: PreTrainedConfig, max_length: int = 128) -> DocumentFlops | None:
    with torch.device("meta"):
        model: Any = AutoModelForSequenceClassification.from_config(config)
    return document_flops(model.eval(), max_length)


def of_one(flops: DocumentFlops | None, length: int) -> float:
    assert flops is not None
    return flops.total(np.array([length], np.int32))


def encoder(length: int, layers: int, hidden: int, inner: int, other: int) -> int:
    """The closed form: per layer four projections, two layers between, scores and their use; then what is there once."""
    return layers * (length * (8 * hidden**2 + 4 * hidden * inner) + 4 * hidden * length**2) + other


@pytest.mark.parametrize("length", [1, 7, 128, 512])
def test_flops_of_bert_equal_the_closed_form(length: int) -> None:
    flops = traced(BertConfig(**SMALL, id2label={index: f"label {index}" for index in range(5)}), max_length=512)
    pooler_and_head = 2 * 32 * 32 + 2 * 32 * 5
    assert of_one(flops, length) == pytest.approx(encoder(length, 3, 32, 96, pooler_and_head), rel=1e-12)


@pytest.mark.parametrize(("length", "millions_per_token"), [(128, 174.6), (384, 184.0), (512, 188.7)])
def test_flops_of_bert_base_are_those_that_others_publish(length: int, millions_per_token: float) -> None:
    assert of_one(traced(BertConfig(), max_length=512), length) / length == pytest.approx(millions_per_token * 1e6, rel=1e-3)


def test_flops_of_shared_layers_count_as_often_as_they_run() -> None:
    flops = traced(AlbertConfig(**SMALL, embedding_size=16))
    others = 2 * 32 * 32 + 2 * 32 * 2  # pooler and head
    assert of_one(flops, 100) == pytest.approx(encoder(100, 3, 32, 96, others) + 100 * 2 * 16 * 32, rel=1e-12)


def test_flops_of_deberta_leave_out_what_a_pass_does_once() -> None:
    """Its projections of relative positions cost a batch what they cost a document; eager attention counts like any other."""
    relative: dict[str, Any] = {
        "relative_attention": True,
        "position_buckets": 16,
        "pos_att_type": "c2p|p2c",
        "share_att_key": True,
    }
    flops = traced(DebertaV2Config(**SMALL, **relative, max_relative_positions=-1))
    positions = 3 * 100 * 2 * (2 * 16) * 32 * 2  # each token's scores with each of the 32 positions, in both directions
    others = 2 * 32 * 32 + 2 * 32 * 2
    assert of_one(flops, 100) == pytest.approx(encoder(100, 3, 32, 96, others) + positions, rel=1e-3)


@pytest.mark.parametrize(
    "config",
    [
        DistilBertConfig(dim=32, hidden_dim=96, n_layers=3, n_heads=2),
        RobertaConfig(**SMALL),
        ModernBertConfig(**SMALL),
        Qwen3Config(**SMALL, num_key_value_heads=1, head_dim=16, pad_token_id=0),
    ],
    ids=lambda config: config.model_type,
)
def test_flops_of_other_architectures_grow_with_the_square_of_the_length(config: PreTrainedConfig) -> None:
    flops = traced(config)
    assert flops is not None
    assert flops.linear > 0
    assert flops.quadratic == pytest.approx(3 * 4 * 32, rel=1e-3)


def test_flops_of_weights_that_are_made_in_memory_take_none_for_the_trace() -> None:
    """Of the rows that are traced, a product with XLNet's position weights takes gigabytes, if they are in memory."""
    flops = traced(XLNetConfig(vocab_size=100, d_model=32, d_inner=96, n_layer=3, n_head=2))
    assert flops is not None
    assert flops.quadratic == pytest.approx(3 * (4 * 32 + 2 * 2 * 32), rel=1e-3)  # also with 2n positions


def test_flops_of_what_cannot_be_traced_are_not_known() -> None:
    assert traced(LongformerConfig(**SMALL, attention_window=32)) is None
    assert traced(BertConfig(**SMALL), max_length=3) is None


def test_flops_of_documents_add_up() -> None:
    flops = DocumentFlops(5.0, 3.0, 2.0)
    lengths = np.array([1, 10, 512], np.int32)
    assert flops.total(lengths) == sum(5 + 3 * length + 2 * length**2 for length in (1, 10, 512))
    assert flops.total(lengths[:0]) == 0


@pytest.mark.parametrize(
    ("device", "dtype", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989),
        ("NVIDIA H100 PCIe", "bfloat16", 756),
        ("NVIDIA H100 NVL", "float16", 835),
        ("NVIDIA H200", "bfloat16", 989),
        ("NVIDIA GH200 480GB", "bfloat16", 989),
        ("NVIDIA B200", "bfloat16", 2250),
        ("NVIDIA A100-SXM4-40GB", "bfloat16", 312),
        ("NVIDIA A100 80GB PCIe", "float16", 312),
        ("NVIDIA L4", "bfloat16", 121),
        ("NVIDIA L40", "bfloat16", 181),
        ("NVIDIA L40S", "bfloat16", 362),
        ("NVIDIA A10G", "bfloat16", 70),
        ("NVIDIA A10", "bfloat16", 125),
        ("Tesla T4", "float16", 65),
        ("Tesla V100-SXM2-16GB", "float16", 125),
        ("Tesla T4", "bfloat16", None),  # emulated
        ("NVIDIA A100-SXM4-40GB", "float32", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bfloat16", None),
        ("NVIDIA A1000", "bfloat16", None),
        ("NVIDIA GeForce RTX 4090", "bfloat16", None),
        (None, "bfloat16", None),
    ],
)
def test_peak_of_a_device_is_that_of_its_name(device: str | None, dtype: str, teraflops: int | None) -> None:
    assert peak_flops(device, dtype) == (teraflops and teraflops * 1e12)


def test_utilization_is_not_known_without_a_peak_or_flops_or_time() -> None:
    assert utilization(50e12, 2, 100e12) == 0.25
    assert utilization(None, 2, 100e12) is None
    assert utilization(50e12, 2, None) is None
    assert utilization(50e12, 0, 100e12) is None
