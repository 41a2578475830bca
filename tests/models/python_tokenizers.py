"""Tokenizers that transformers has in Python alone, with tiny vocabularies, and classifiers that read with them."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import (
    AutoTokenizer,
    BertConfig,
    CanineConfig,
    FlaubertConfig,
    PreTrainedConfig,
    RobertaConfig,
    XLMConfig,
)

from tests.models import tiny
from tests.models.architectures import SHAPE
from tests.support.corpora import EDGE_CASES, real_documents

JAPANESE = "今日は天気がいいですね。東京都に住んでいる友達と、ﾊﾝﾊﾞｰｶﾞｰを食べました！"
TWEETS = ("@user I can't believe it!!! http://t.co/x 😀 :)", "cannot wait… it's 5 p.m. &amp; he'll be there #yes")
WORDS = ["the", "and", "ing", "is", "to", "are", "not", "今日", "東京", "天気", "です"]
FAMILIES = ("BERTweet", "PhoBERT", "BERT-Japanese", "BERT-Japanese, characters", "XLM", "FlauBERT", "CANINE")


def texts() -> list[str]:
    return [text[:900] for text in (*real_documents(25, seed=5), *TWEETS, JAPANESE, JAPANESE * 9, *EDGE_CASES) if text]


def save_tokenizer(folder: Path, family: str, max_length: int, **settings: Any) -> Any:
    """Writes a tokenizer's files as its authors have published theirs; returns it loaded.

    Args:
        settings: further ones of tokenizer_config.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    characters = sorted(character for character, _ in Counter("".join(texts())).most_common(600) if not character.isspace())
    if family in ("BERTweet", "PhoBERT"):
        pieces = [*characters, *(character + "@@" for character in characters), *WORDS, *(word + "@@" for word in WORDS)]
        (folder / "vocab.txt").write_text("".join(f"{piece} {index}\n" for index, piece in enumerate(pieces, 9)))
        (folder / "bpe.codes").write_text("".join(f"{merge} 1\n" for merge in _merges()))
        kind: dict[str, Any] = {"tokenizer_class": "PhobertTokenizer"}
        if family == "BERTweet":
            kind = {"tokenizer_class": "BertweetTokenizer", "normalization": True}
    elif family in ("XLM", "FlauBERT"):
        special = ["<s>", "</s>", "<pad>", "<unk>", *(f"<special{number}>" for number in range(10))]
        pieces = [*special, *characters, *(character + "</w>" for character in characters)]
        pieces += [merge.replace(" ", "") for merge in _merges()]
        (folder / "vocab.json").write_text(json.dumps({piece: index for index, piece in enumerate(dict.fromkeys(pieces))}))
        (folder / "merges.txt").write_text("".join(f"{merge}\n" for merge in _merges()))
        kind = {"tokenizer_class": "XLMTokenizer" if family == "XLM" else "FlaubertTokenizer"}
    elif family == "CANINE":
        kind = {"tokenizer_class": "CanineTokenizer"}
    else:
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        pieces = [*special, *characters, *("##" + character for character in characters), *WORDS]
        (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
        kind = {
            "tokenizer_class": "BertJapaneseTokenizer",
            "word_tokenizer_type": "mecab",
            "subword_tokenizer_type": "character" if "characters" in family else "wordpiece",
            "mecab_kwargs": {"mecab_dic": "unidic_lite" if "characters" in family else "ipadic"},
        }
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": max_length, **kind, **settings}))
    if not (folder / "config.json").exists():
        _config(family, 1000, max_length).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def make_classifier(folder: Path, family: str, labels: Sequence[str], max_length: int) -> Path:
    """Saves a tiny classifier of the architecture that such a tokenizer belongs to."""
    tokenizer = save_tokenizer(folder, family, max_length)
    config = _config(family, len(tokenizer), max_length)
    tiny.save_classifier(folder, config, tokenizer, labels, seed=0, texts=[text for text in texts() if len(text) > 1])
    save_tokenizer(folder, family, max_length)  # as published: saved again, BERTweet's merges lose their second halves
    return folder


def _merges() -> list[str]:
    return ["t h", "th e</w>", "i n", "in g</w>", "a n", "an d</w>", "i s</w>", "t o</w>"]


def _config(family: str, vocabulary: int, max_length: int) -> PreTrainedConfig:
    if family in ("BERTweet", "PhoBERT"):
        return RobertaConfig(**SHAPE, vocab_size=vocabulary, max_position_embeddings=max_length + 2, type_vocab_size=1)
    if family in ("XLM", "FlauBERT"):
        kind = XLMConfig if family == "XLM" else FlaubertConfig
        shape = {"emb_dim": 32, "n_layers": 2, "n_heads": 2, "n_langs": 1, "embed_init_std": 0.2, "init_std": 0.2}
        return kind(**shape, vocab_size=vocabulary, max_position_embeddings=max_length)
    if family == "CANINE":
        return CanineConfig(**SHAPE, max_position_embeddings=max_length, num_hash_buckets=128, type_vocab_size=2)
    return BertConfig(**SHAPE, vocab_size=vocabulary, max_position_embeddings=max_length)
