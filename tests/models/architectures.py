"""Tiny classifiers of the architectures that people label with: real configurations, tokenizers of their own kind.

Their weights are as those of tests.models.tiny, which has the commonest three.
"""

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AlbertConfig,
    AlbertTokenizer,
    AutoModelForSequenceClassification,
    BartConfig,
    BertTokenizer,
    BigBirdConfig,
    BigBirdPegasusConfig,
    DebertaV2Config,
    DebertaV2Tokenizer,
    ElectraConfig,
    GPT2Config,
    LlamaConfig,
    LlamaTokenizer,
    LongformerConfig,
    ModernBertConfig,
    MPNetConfig,
    MPNetTokenizer,
    PegasusTokenizer,
    PLBartConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Tokenizer,
    RobertaTokenizer,
    XLMRobertaConfig,
    XLMRobertaTokenizer,
)

from tests.models import tiny
from tests.support.corpora import EDGE_CASES, real_documents

VOCABULARY_SIZE = 800
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": tiny.INITIALIZER_RANGE,
}
NAMES_OF_ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # pad is 1
NAMES_OF_BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@cache
def _texts() -> tuple[str, ...]:
    return (*(text[:2000] for text in real_documents(150)), *EDGE_CASES)


@cache
def _sentence_pieces(names: tuple[str, ...]) -> list[tuple[str, float]]:
    """A Unigram vocabulary: the commonest characters and words, each with a score of its own.

    Not the tokenizers library's trainer, whose pieces differ from one process to the next.
    """
    words = tiny.commonest_words(_texts(), VOCABULARY_SIZE)
    characters = sorted({character for text in _texts() for character in text if not character.isspace()})
    pieces = dict.fromkeys(["▁", *("▁" + word for word in words), *words, *characters])
    return [*((name, 0.0) for name in names), *((piece, -1.0 - 0.01 * rank) for rank, piece in enumerate(pieces))]


@cache
def _byte_level() -> dict[str, Any]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[*NAMES_OF_ROBERTA, "<|endoftext|>", "[CLS]", "[SEP]"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(merge) for merge in model["merges"]]}


@cache
def _sentence_merges() -> dict[str, Any]:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    names = [*NAMES_OF_ROBERTA, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY_SIZE, special_tokens=names, show_progress=False)
    tokenizer.train_from_iterator(_texts(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(merge) for merge in model["merges"]]}


def _modern_bert() -> PreTrainedTokenizerBase:
    tokenizer = Tokenizer(models.BPE(**_byte_level()))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=special
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "attention_mask"],
    )


def _bert(kind: type = BertTokenizer) -> PreTrainedTokenizerBase:
    return kind(vocab=tiny.word_pieces(_texts()))


def _mpnet() -> PreTrainedTokenizerBase:
    """As BERT's, with RoBERTa's names and ids for the special tokens."""
    pieces = [piece for piece in tiny.word_pieces(_texts()) if piece not in NAMES_OF_BERT]
    names = [*NAMES_OF_ROBERTA[:3], "[UNK]", "<mask>"]
    return MPNetTokenizer(vocab={piece: index for index, piece in enumerate([*names, *pieces])})


def _roberta() -> PreTrainedTokenizerBase:
    return RobertaTokenizer(**_byte_level())


def _llama(side: str) -> PreTrainedTokenizerBase:
    return LlamaTokenizer(**_sentence_merges(), pad_token="<pad>", padding_side=side)


def _qwen(side: str) -> PreTrainedTokenizerBase:
    return Qwen2Tokenizer(**_byte_level(), pad_token="<|endoftext|>", padding_side=side)


def _pegasus(side: str) -> PreTrainedTokenizerBase:
    return PegasusTokenizer(vocab=_sentence_pieces(("<pad>", "</s>", "<s>", "<unk>")), padding_side=side)


def _encoder_decoder(kind: type[PreTrainedConfig], length: int) -> PreTrainedConfig:
    one_side = {"layers": 2, "attention_heads": 2, "ffn_dim": 64}
    shape: dict[str, Any] = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in one_side.items()}
    shape |= {"d_model": 32, "init_std": tiny.INITIALIZER_RANGE, "max_position_embeddings": length}
    return kind(**shape)


def _deberta(length: int) -> PreTrainedConfig:
    of_version_3: dict[str, Any] = {"position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True}
    return DebertaV2Config(
        **SHAPE,
        **of_version_3,
        max_position_embeddings=length,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
    )


def _modern(length: int) -> PreTrainedConfig:
    layers: dict[str, Any] = {"global_attn_every_n_layers": 2}  # one of two sees only what is near
    return ModernBertConfig(
        **SHAPE,
        **layers,
        max_position_embeddings=length,
        local_attention=16,
        pad_token_id=1,
        bos_token_id=None,
        eos_token_id=None,
        cls_token_id=6,
        sep_token_id=7,
    )


Factory = tuple[Callable[[int], PreTrainedConfig], Callable[[], PreTrainedTokenizerBase]]
# name as people know it -> (its configuration for documents of so many tokens, its tokenizer)
MORE_ARCHITECTURES: dict[str, Factory] = {
    "XLM-RoBERTa": (
        lambda length: XLMRobertaConfig(**SHAPE, max_position_embeddings=length + 2, type_vocab_size=1),
        lambda: XLMRobertaTokenizer(vocab=_sentence_pieces(tuple(NAMES_OF_ROBERTA))),
    ),
    "ALBERT": (
        lambda length: AlbertConfig(**SHAPE, embedding_size=16, max_position_embeddings=length),
        lambda: AlbertTokenizer(vocab=_sentence_pieces(("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"))),
    ),
    "ELECTRA": (lambda length: ElectraConfig(**SHAPE, embedding_size=16, max_position_embeddings=length), _bert),
    "DeBERTa-v3": (_deberta, lambda: DebertaV2Tokenizer(vocab=_sentence_pieces(tuple(NAMES_OF_BERT)))),
    "ModernBERT": (_modern, _modern_bert),
    "MPNet": (lambda length: MPNetConfig(**SHAPE, max_position_embeddings=length + 2, pad_token_id=1), _mpnet),
    "Longformer": (
        lambda length: LongformerConfig(
            **SHAPE, attention_window=[16, 16], max_position_embeddings=length + 2, pad_token_id=1, type_vocab_size=1
        ),
        _roberta,
    ),
    "BigBird": (lambda length: BigBirdConfig(**SHAPE, max_position_embeddings=length), _bert),
    "Llama, padded right": (
        lambda length: LlamaConfig(**SHAPE, max_position_embeddings=length, pad_token_id=1),
        lambda: _llama("right"),
    ),
    "Llama, padded left": (
        lambda length: LlamaConfig(**SHAPE, max_position_embeddings=length, pad_token_id=1),
        lambda: _llama("left"),
    ),
    "Qwen2, no padding id": (
        lambda length: Qwen2Config(**SHAPE, num_key_value_heads=1, max_position_embeddings=length, pad_token_id=None),
        lambda: _qwen("right"),
    ),
    "GPT-2": (
        lambda length: GPT2Config(
            n_embd=32, n_layer=2, n_head=2, n_positions=length, initializer_range=tiny.INITIALIZER_RANGE, pad_token_id=5
        ),
        lambda: _qwen("right"),
    ),
    "BART": (lambda length: _encoder_decoder(BartConfig, length), _roberta),
    "PLBart": (lambda length: _encoder_decoder(PLBartConfig, length), _roberta),
    "BigBird-Pegasus": (lambda length: _encoder_decoder(BigBirdPegasusConfig, length), lambda: _pegasus("left")),
}
ARCHITECTURES = ("BERT", "DistilBERT", "RoBERTa", *MORE_ARCHITECTURES)


def untrained_classifier(architecture: str, max_length: int = 64, seed: int = 0) -> Any:
    """A classifier of one of ARCHITECTURES with three labels in memory, in eval mode; its tokens are VOCABULARY_SIZE ids."""
    if architecture in MORE_ARCHITECTURES:
        config = MORE_ARCHITECTURES[architecture][0](max_length)
        config.vocab_size = VOCABULARY_SIZE
    else:
        config = tiny.config_of(architecture.lower(), VOCABULARY_SIZE, max_length)  # type: ignore[arg-type]
    config.num_labels = 3
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_config(config).eval()


def make_classifier(folder: Path, architecture: str, labels: Sequence[str], max_length: int = 64, seed: int = 0) -> Path:
    """Saves a classifier of one of ARCHITECTURES and its tokenizer into `folder`."""
    if architecture not in MORE_ARCHITECTURES:
        return tiny.make_model(folder, architecture.lower(), labels, seed, max_length=max_length)  # type: ignore[arg-type]
    config_for, tokenizer_for = MORE_ARCHITECTURES[architecture]
    tokenizer = tokenizer_for()
    tokenizer.model_max_length = max_length
    config = config_for(max_length)
    config.vocab_size = len(tokenizer)
    return tiny.save_classifier(folder, config, tokenizer, labels, seed, texts=_texts())
