"""The memory of a pass, measured on tensors without data: against what torch allocates, and what was measured on a GPU."""

from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BartConfig,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    LongformerConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedConfig,
    Qwen2Config,
    RobertaConfig,
    T5Config,
    XLMRobertaConfig,
    XLNetConfig,
)

from pipeline_ops.loading.memory import (
    MAX_BATCH_TOKENS,
    MIN_BATCH_TOKENS,
    bytes_per_token,
    estimated_bytes_per_token,
    token_budget,
)

GIB = 2**30
VOCABULARY: dict[str, Any] = {"vocab_size": 500, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SMALL: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
} | VOCABULARY
RELATIVE: dict[str, Any] = {
    **{"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "share_att_key": True, "max_relative_positions": -1},
    **{"norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0, "position_buckets": 256},
}
FEW_POSITIONS: dict[str, Any] = {**RELATIVE, "position_buckets": 64}
OF_EACH_SIDE: dict[str, Any] = {
    f"{side}_{what}": size
    for side in ("encoder", "decoder")
    for what, size in (("layers", 2), ("ffn_dim", 512), ("attention_heads", 4))
}
OF_T5: dict[str, Any] = {**VOCABULARY, "decoder_start_token_id": 0}
CONFIGS: dict[str, PreTrainedConfig] = {
    "BERT": BertConfig(**SMALL),
    "DeBERTa-v3": DebertaV2Config(**SMALL, **FEW_POSITIONS),
    "GPT-2": GPT2Config(n_embd=128, n_layer=2, n_head=4, **VOCABULARY),
    "ALBERT": AlbertConfig(**SMALL),
    "BART": BartConfig(d_model=128, **OF_EACH_SIDE, **VOCABULARY),
    "DistilBERT": DistilBertConfig(dim=128, hidden_dim=512, n_layers=2, n_heads=4, **VOCABULARY),
    "ELECTRA": ElectraConfig(**SMALL),
    "ModernBERT": ModernBertConfig(**SMALL),
    "MPNet": MPNetConfig(**SMALL),
    "Qwen2": Qwen2Config(**SMALL, num_key_value_heads=2),
    "RoBERTa": RobertaConfig(**SMALL),
    "T5": T5Config(d_model=128, d_ff=512, num_layers=2, num_heads=4, d_kv=32, **OF_T5),
    "XLM-RoBERTa": XLMRobertaConfig(**SMALL),
    "XLNet": XLNetConfig(d_model=128, n_layer=2, n_head=4, d_inner=512, **VOCABULARY),
}
QUICK = ("BERT", "DeBERTa-v3", "BART")
DEBERTA_V3_BASE = DebertaV2Config(
    hidden_size=768,
    num_attention_heads=12,
    intermediate_size=3072,
    num_hidden_layers=12,  # it keeps the output of each
    **RELATIVE,
)
TWO_LAYERS = BertConfig(num_hidden_layers=2)  # of the base size: others take the same memory again
TWO_LARGE_LAYERS = BertConfig(num_hidden_layers=2, hidden_size=1024, intermediate_size=4096, num_attention_heads=16)


def without_data(config: PreTrainedConfig, dtype: torch.dtype = torch.bfloat16) -> Any:
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config, dtype=dtype).to(dtype).eval()


def allocated_per_token(config: PreTrainedConfig, rows: int, length: int) -> float:
    """The peak of what torch's allocator on the CPU has handed out at once in a pass; its events are in order."""
    model = AutoModelForSequenceClassification.from_config(config).eval()
    ids = torch.randint(5, 500, (rows, length), generator=torch.Generator().manual_seed(0))
    ids[:, -1] = 2  # an end of text
    inputs: dict[str, Any] = {"input_ids": ids}
    if model.config._attn_implementation == "eager":
        inputs["attention_mask"] = torch.ones_like(ids)
        inputs["attention_mask"][0, -8:-1] = 0  # one that masks nothing would be left out
    if config.model_type in ("gpt2", "qwen2", "bart", "t5"):
        inputs["use_cache"] = False
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        model(**inputs)
    allocated = peak = 0
    for event in profiled.profiler.kineto_results.events():  # pyright: ignore[reportOptionalMemberAccess]
        if event.name() == "[memory]":
            allocated += event.nbytes()
            peak = max(peak, allocated)
    return peak / (rows * length)


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS])
def test_memory_of_a_pass_is_what_torch_allocates(name: str) -> None:
    measured = bytes_per_token(without_data(CONFIGS[name], torch.float32), 128)
    assert measured == pytest.approx(allocated_per_token(CONFIGS[name], 16, 128), rel=0.05)


def test_memory_of_bert_is_its_inner_layer_before_and_behind_the_activation() -> None:
    """Beside embeddings, the layer's input and its attention's output."""
    assert bytes_per_token(without_data(BertConfig()), 512) == pytest.approx(2 * (2 * 3072 + 3 * 768), rel=0.01)


def test_memory_of_deberta_v3_is_what_a_gpu_took() -> None:
    """On an H200 a token took 117 kB in passes of 16,384 and 98 kB of 65,536, what is the same for both included: 91.7 kB."""
    assert bytes_per_token(without_data(DEBERTA_V3_BASE), 512) == pytest.approx(91_700, rel=0.05)


def test_memory_of_attention_that_is_not_fused_grows_with_the_length() -> None:
    fused, scored = without_data(CONFIGS["BERT"]), without_data(CONFIGS["MPNet"])
    assert bytes_per_token(fused, 512) == pytest.approx(bytes_per_token(fused, 64), rel=0.05)
    assert (bytes_per_token(scored, 512) or 0) > 3 * (bytes_per_token(scored, 64) or 0)


def test_memory_of_what_cannot_be_run_without_data_is_estimated() -> None:
    longformer = without_data(LongformerConfig(**SMALL, attention_window=32))
    assert bytes_per_token(longformer, 128) is None
    assert estimated_bytes_per_token(longformer, 128) == 2 * (8 * 128 + 3 * 512) + 4 * 128 * 10
    assert token_budget([longformer], [128], 24 * GIB) == MAX_BATCH_TOKENS


@pytest.mark.parametrize("gibibytes", [0.1, 1, 5, 15, 24, 79, 140])
def test_token_budget_is_a_power_of_two_within_its_bounds_and_the_memory(gibibytes: float) -> None:
    tokens = token_budget([without_data(TWO_LAYERS)], [512], gibibytes * GIB)
    assert tokens & (tokens - 1) == 0
    assert MIN_BATCH_TOKENS <= tokens <= MAX_BATCH_TOKENS
    taken = 2 * 38.6e6 + 2 * tokens * 16_900  # half of what the weights leave is left, too
    assert tokens == MIN_BATCH_TOKENS or taken <= gibibytes * GIB
    assert tokens == MAX_BATCH_TOKENS or taken + 2 * tokens * 16_900 > gibibytes * GIB


def test_token_budget_follows_the_memory_the_models_and_their_attention() -> None:
    base, large = without_data(TWO_LAYERS), without_data(TWO_LARGE_LAYERS)

    def budget(gibibytes: float, *models: Any, length: int = 512) -> int:
        return token_budget(models, [length] * len(models), gibibytes * GIB)

    assert [budget(gibibytes, base) for gibibytes in (0.3, 5, 15)] == [8192, 131_072, MAX_BATCH_TOKENS]
    assert budget(5, without_data(TWO_LAYERS, torch.float32)) == budget(5, base) // 2
    assert budget(5, large) < budget(5, base)
    assert budget(5, base, large) == budget(5, large), "they run one after another"
    assert budget(0.7, base) == 2 * budget(0.7, *[base] * 4), "the weights of all are there"
    assert budget(15, without_data(CONFIGS["MPNet"]), length=8192) < budget(15, without_data(CONFIGS["BERT"]), length=8192)
