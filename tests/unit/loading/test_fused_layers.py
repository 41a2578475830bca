"""Layers that run as one kernel on a GPU: the same answers on the CPU, where the kernels are torch's plain ones."""

import copy
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from pipeline_ops.loading.fused_layers import fuse_layers
from tests.models.architectures import SHAPE, VOCABULARY_SIZE


def answers(model: torch.nn.Module, length: int, rows: int = 3) -> torch.Tensor:
    """Logits of rows of which two are padded."""
    ids = torch.randint(5, VOCABULARY_SIZE, (rows, length), generator=torch.Generator().manual_seed(length))
    mask = torch.ones_like(ids)
    mask[1, length // 2 :], mask[2, -1:] = 0, 0
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=mask).logits


@pytest.mark.slow  # compiles a kernel for the CPU
@pytest.mark.parametrize("name", ["bert", "roberta", "electra", "albert", "distilbert", "mpnet", "deberta-v2", "modernbert"])
def test_fused_layers_are_as_near_to_float32_as_bfloat16_is(name: str) -> None:
    from transformers import AutoConfig

    torch.manual_seed(0)
    config = AutoConfig.for_model(name)
    for key, value in {**SHAPE, "vocab_size": VOCABULARY_SIZE}.items():
        setattr(config, key, value)
    if name == "deberta-v2":
        config.relative_attention, config.pos_att_type, config.position_buckets = True, ["c2p", "p2c"], 16
        config.pooler_hidden_size = SHAPE["hidden_size"]
    for token in ("pad_token_id", "cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id"):
        setattr(config, token, 0)
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.bfloat16).eval()
    exact, fused = copy.deepcopy(model).float(), copy.deepcopy(model)
    names = list(dict(fused.named_parameters()))
    fuse_layers(fused)
    assert list(dict(fused.named_parameters())) == names
    expected = answers(exact, 60, rows=40)
    assert (answers(fused, 60, rows=40) - expected).abs().mean() <= 1.5 * (answers(model, 60, rows=40) - expected).abs().mean()


class Scaled(torch.nn.Module):
    """Has the modules of a layer's end, and does something else with them."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.dropout = torch.nn.Linear(16, 16), torch.nn.Dropout()
        self.LayerNorm = torch.nn.LayerNorm(16)
        self.dtype = torch.float32

    def forward(self, states: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(self.dense(states) + 2 * residual)


class ScaledTwice(Scaled):
    """Has a residual more."""

    def forward(self, states: torch.Tensor, residual: torch.Tensor, another: torch.Tensor) -> torch.Tensor:
        return super().forward(states, residual) + another


def test_modules_that_take_something_else_stay_as_they_are() -> None:
    module = ScaledTwice().eval()
    inputs = torch.randn(3, 8, 16)
    expected = module(*inputs)
    fuse_layers(module)
    assert torch.equal(module(*inputs), expected)


@pytest.mark.slow
def test_modules_that_compute_something_else_stay_as_they_are() -> None:
    module = Scaled().eval()
    states, residual = torch.randn(2, 8, 16)
    expected = module(states, residual)
    fuse_layers(module)
    assert torch.equal(module(states, residual), expected)


def test_modules_whose_kernels_do_not_run_stay_as_they_are_and_a_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasLtMatmul`")

    monkeypatch.setattr(torch, "_addmm_activation", refuse)
    monkeypatch.setattr("pipeline_ops.loading.fused_layers._compiled_add_and_norm", lambda: refuse)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(BertConfig(**SHAPE, vocab_size=VOCABULARY_SIZE)).bfloat16().eval()
    expected = answers(model, 20)
    fuse_layers(model)
    torch.testing.assert_close(answers(model, 20), expected, rtol=0, atol=0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3, "one for each class of modules"
    assert all("CUBLAS_STATUS_NOT_SUPPORTED" in line for line in lines)
