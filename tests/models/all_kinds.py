"""A tiny classifier of every kind that transformers has, made by shrinking the kind's own configuration, and the table of them.

`python -m tests.models.all_kinds` prints the table that stands in pipeline_ops/README.md.
"""

from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from pipeline_ops.models.padding_side import DEPENDS_ON_PADDING, is_decoder
from pipeline_ops.models.resolve import REFUSED_KINDS
from tests.models import tiny
from tests.models.architectures import MORE_ARCHITECTURES
from tests.support.corpora import EDGE_CASES, real_documents

KINDS = tuple(sorted(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES))
LABELS = ("art", "law", "maths")
# of 1 to 500 characters, so that documents of a batch differ in length, and some are longer than the models read
TEXTS = [text for text in (*(text[:70] for text in EDGE_CASES), *real_documents(60, seed=5)) if text.strip()]
TEXTS = [text[: max(70, 8 * number)] if len(text) > 70 else text for number, text in enumerate(TEXTS)]

# Attributes of configurations -> a tiny value. Windows and blocks are shorter than texts, so that what is beyond them matters.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim"), 32),
    **dict.fromkeys(("embedding_size", "word_embed_proj_dim", "input_embedding_size", "output_embedding_size"), 32),
    **dict.fromkeys(("true_hidden_size", "intra_bottleneck_size", "out_hidden_size"), 32),
    **dict.fromkeys(("pooler_hidden_size", "prediction_head_size", "entity_emb_size", "pronunciation_embed_dim"), 32),
    **dict.fromkeys(("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim", "ffn_hidden_size"), 64),
    **dict.fromkeys(("hidden_dim", "d_ff", "dff", "d_inner", "n_inner", "feed_forward_size", "shape_embed_dim"), 64),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("head_dim", "d_head", "d_kv", "attention_head_size", "kv_channels", "rotary_dim"), 8),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "qk_rope_head_dim", "v_head_dim", "qk_nope_head_dim"), 8),
    **dict.fromkeys(("index_topk", "index_head_dim", "keep_window_size", "gated_norm_rank"), 8),
    **dict.fromkeys(("sliding_window", "local_attention", "window_size", "attention_window", "block_size"), 8),
    **dict.fromkeys(("local_transformer_stride", "chunk_size", "adapter_rank"), 8),
    **dict.fromkeys(("num_landmarks", "segment_means_seq_len"), 4),
    **dict.fromkeys(("n_routed_experts", "num_experts", "num_local_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "n_group", "topk_group"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("mamba_d_state", "mamba_dt_rank", "n_mamba_heads"), 4),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2),
    **dict.fromkeys(("attn_layer_period", "expert_layer_period"), 2),
    **dict.fromkeys(("attn_layer_offset", "expert_layer_offset"), 1),
    **dict.fromkeys(("entity_vocab_size", "pronunciation_vocab_size", "shape_vocab_size", "num_hash_buckets"), 100),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 66),
    **dict.fromkeys(("initializer_range", "init_std"), tiny.INITIALIZER_RANGE),
}
NUMBERS_OF_LAYERS = {"num_hidden_layers", "n_layer", "n_layers", "num_layers"}
TYPES_OF_LAYERS = ("layer_types", "layers_block_type", "mlp_layer_types")
KEY_VALUE_HEADS = {"num_key_value_heads", "num_kv_heads"}
SIZES_OF_KIND: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {  # its defaults have no sliding attention, and no parameters of any
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0}, "full_attention": None},
    },
    "esmc": {"num_key_value_heads": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "mobilebert": {"initializer_range": 0.05},  # without normalization, float32 noise grows with the weights
    "xmod": {"default_language": "en_XX"},
    "zamba": {"layers_block_type": ["linear_attention", "hybrid", "hybrid"], "num_hidden_layers": 3},
}


def tiny_config(kind: str, **values: Any) -> PreTrainedConfig:
    """The configuration of a kind of model that is 32 wide, with two layers, or one of each type if there are more types.

    Args:
        values: attributes that sub-configurations get as well, such as the size of the vocabulary.
    """
    config_class = CONFIG_MAPPING[kind]
    return config_class(**{**_shrunk(config_class(), values), **SIZES_OF_KIND.get(kind, {})})


def _shrunk(config: PreTrainedConfig, values: dict[str, Any]) -> dict[str, Any]:
    """The values of those attributes of a default configuration that have to be others."""
    names = {field.name for field in fields(type(config))}
    shrunk = {name: value for name, value in (SIZES | values).items() if name in names}
    types = {name: list(dict.fromkeys(getattr(config, name))) for name in TYPES_OF_LAYERS if name in names}
    layers = max([2, *map(len, types.values())])
    shrunk |= dict.fromkeys(names & NUMBERS_OF_LAYERS, layers)
    shrunk |= {name: (distinct * layers)[:layers] for name, distinct in types.items()}
    for name in names & KEY_VALUE_HEADS:  # shared by queries where they are by default
        shared = (getattr(config, name) or config.num_attention_heads) < config.num_attention_heads
        shrunk[name] = 2 if shared else 4
    for name in config.sub_configs:
        if (part := getattr(config, name, None)) is not None:
            shrunk[name] = {"model_type": part.model_type, **_shrunk(part, values)}
    return shrunk


def make_kind(folder: Path, kind: str) -> PreTrainedConfig:
    """Saves a tiny classifier of a kind of model, and a tokenizer without a limit, into `folder`; its configuration."""
    tokenizer = _tokenizer_for(kind)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos", "cls", "sep")}
    known = {name: value for name, value in ids.items() if value is not None}
    config = tiny_config(kind, vocab_size=len(tokenizer), **known)
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = tokenizer.pad_token_id
    texts = [text for text in TEXTS if 24 < len(text.encode()) < 60]
    tiny.save_classifier(folder, config, tokenizer, LABELS, seed=0, texts=texts)
    return config


def _tokenizer_for(kind: str) -> PreTrainedTokenizerBase:
    """For decoders one without special tokens, for encoder-decoders with an end of text, else as BERT's or RoBERTa's."""
    config = CONFIG_MAPPING[kind]()
    classifier = AutoModelForSequenceClassification._model_mapping[type(config)]
    takes_types = "token_type_ids" in signature(classifier.forward).parameters
    if is_decoder(config):
        like = "GPT-2"
    elif takes_types and getattr(config, "type_vocab_size", 0) > 1:
        like = "ELECTRA"
    else:
        like = "BART"
    return MORE_ARCHITECTURES[like][1]()


def treatment_of(kind: str) -> str:
    """What the product does with a kind of model; what it does with the ones that it has no table for is the default."""
    if kind in REFUSED_KINDS:
        return f"refused: {REFUSED_KINDS[kind]}"
    return "equal, in batches without padding" if kind in DEPENDS_ON_PADDING else "equal"


def table_of_kinds() -> str:
    """All kinds by treatment, a Markdown table."""
    kinds: dict[str, list[str]] = {"equal": []}
    for kind in KINDS:
        kinds.setdefault(treatment_of(kind), []).append(kind)
    lines = [f"| {treatment} | {len(names)} | {', '.join(names)} |" for treatment, names in kinds.items()]
    return "\n".join(["| answers | kinds | `model_type` |", "|---|---|---|", *lines])


if __name__ == "__main__":
    print(table_of_kinds())
