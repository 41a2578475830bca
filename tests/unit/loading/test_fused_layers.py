"""Layers that run as one kernel on a GPU: the same answers on the CPU, where the kernels are torch's plain ones."""

import copy
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, DebertaV2Config

from pipeline_ops.loading import disentangled_attention
from pipeline_ops.loading.disentangled_attention import fuse_disentangled_attention, has_fused_attention
from pipeline_ops.loading.fused_layers import fuse_layers
from tests.models.architectures import SHAPE, VOCABULARY_SIZE


def deberta(**settings: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    config = DebertaV2Config(
        **SHAPE, vocab_size=VOCABULARY_SIZE, relative_attention=True, position_biased_input=False, type_vocab_size=0, **settings
    )
    return AutoModelForSequenceClassification.from_config(config).eval()


def answers(model: torch.nn.Module, length: int, rows: int = 3) -> torch.Tensor:
    """Logits of rows of which two are padded."""
    ids = torch.randint(5, VOCABULARY_SIZE, (rows, length), generator=torch.Generator().manual_seed(length))
    mask = torch.ones_like(ids)
    mask[1, length // 2 :], mask[2, -1:] = 0, 0
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=mask).logits


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("buckets", [256, 16, -1])
@pytest.mark.parametrize("of_version_3", [True, False])
def test_fused_attention_of_deberta_gives_the_same_logits_at_any_length(buckets: int, of_version_3: bool) -> None:
    settings = {"norm_rel_ebd": "layer_norm", "share_att_key": True} if of_version_3 else {"conv_kernel_size": 3}
    model = deberta(position_buckets=buckets, pos_att_type=["p2c", "c2p"], max_position_embeddings=64, **settings)
    fused = copy.deepcopy(model)
    fuse_disentangled_attention(fused)
    assert (has_fused_attention(fused), has_fused_attention(model)) == (True, False)
    for length in (3, 30, 100, 600):  # 600: more than the model has positions, and than the table has
        expected = answers(model, length)
        torch.testing.assert_close(answers(fused, length), expected, atol=1e-5, rtol=1e-5)
    # it is another computation: in bfloat16, whose scores transformers rounds and this one does not, answers differ
    assert not torch.equal(answers(model.bfloat16(), 30), answers(fused.bfloat16(), 30))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_more_rows_than_the_kernel_can_count_the_places_of_are_several_calls_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = deberta(position_buckets=16, pos_att_type=["p2c", "c2p"])
    fused, attend, products = copy.deepcopy(model), disentangled_attention._attend, []

    def counting(*tensors: torch.Tensor) -> torch.Tensor:
        products.append(tensors[3].numel())
        return attend(*tensors)

    fuse_disentangled_attention(fused)
    monkeypatch.setattr(disentangled_attention, "_attend", counting)
    limit = 2 * SHAPE["num_attention_heads"] * 30 * 32  # two rows of 30 tokens, 2 * 16 relative positions
    monkeypatch.setattr(disentangled_attention, "MAX_PRODUCT", limit)
    torch.testing.assert_close(answers(fused, 30, rows=5), answers(model, 30, rows=5), atol=1e-5, rtol=1e-5)
    assert max(products) == limit


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_kernels_of_many_tables_and_models_are_compiled_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch itself would go on without compiling after the eighth."""
    graphs = []

    def count(graph: Any, examples: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(disentangled_attention._attend, backend=count)
    monkeypatch.setattr(disentangled_attention, "_compiled", lambda: compiled)
    states, terms, mask = torch.randn(3, 2, 10, 8), torch.randn(2, 3, 10, 4), torch.ones(3, 10).bool()
    for size in range(10, 20):
        table = torch.zeros(2 * size - 1, dtype=torch.int32)
        torch._dynamo.mark_static(table)
        disentangled_attention._compiled_attend(states, states, states, terms, terms, table, mask)
    assert len(graphs) == 10


def test_attention_of_deberta_with_other_terms_stays_as_it_is() -> None:
    model = deberta(pos_att_type=["c2p"])
    fused = copy.deepcopy(model)
    fuse_disentangled_attention(fused)
    assert not has_fused_attention(fused)
    assert torch.equal(answers(fused, 30), answers(model, 30))


@pytest.mark.slow  # compiles a kernel for the CPU
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
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
