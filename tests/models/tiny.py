"""Tiny sequence classifiers of real architectures, built on the spot, loaded offline like any checkpoint.

Weights are seeded and drawn wide enough that logits differ between documents, then the head is centered on a sample of texts,
so that every label occurs; a default initialization would answer the same label with the same score to everything.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertTokenizer,
    DistilBertConfig,
    DistilBertTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    RobertaConfig,
    RobertaTokenizer,
)

from tests.support.corpora import real_documents

Architecture = Literal["bert", "distilbert", "roberta"]
ARCHITECTURES: tuple[Architecture, ...] = ("bert", "distilbert", "roberta")
VOCABULARY_SIZE = 2000
HIDDEN_SIZE = 32
INITIALIZER_RANGE = 0.2
LOGIT_SPREAD = 0.5  # standard deviation over documents; float32 noise grows with it and must stay far below 1e-5
SPREAD_TEXTS = 60  # on which the spread is computed

BERT_SPECIAL_TOKENS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
BERT_VOCABULARY_SIZE = 30_522
GOLDEN_PIECES = {
    **{"!": 999, "'": 1005, ".": 1012, "a": 1037, "i": 1045, "t": 1056, "the": 1996, "to": 2000, "for": 2005},
    **{"it": 2009, "you": 2017, "this": 2023, "so": 2061, "my": 2026, "been": 2042, "we": 2057, "are": 2024},
    **{"don": 2123, "much": 2172, "life": 2166, "very": 2200, "show": 2265, "ve": 2310, "course": 2607},
    **{"whole": 2878, "library": 3075, "hope": 3246, "waiting": 3403, "happy": 3407, "hate": 5223},
    **{"##face": 12172, "hugging": 17662, "transformers": 19081},
}


def make_model(
    folder: Path,
    architecture: Architecture = "bert",
    labels: Sequence[str] = ("NEGATIVE", "POSITIVE"),
    seed: int = 0,
    problem_type: str | None = None,
    max_length: int = 128,
    texts: Sequence[str] | None = None,
) -> Path:
    """Saves a classifier and its tokenizer into `folder`.

    Args:
        labels: the head's labels in id order; one label makes a regression unless `problem_type` says otherwise.
        max_length: positions for tokens, special ones included; also the tokenizer's `model_max_length`.
        texts: what the tokenizer is trained and the head is centered on; default: real documents.
    """
    texts = [text[:2000] for text in (real_documents(400) if texts is None else texts)]
    tokenizer = _train_tokenizer(architecture, texts, max_length)
    config = config_of(architecture, len(tokenizer), max_length)
    return save_classifier(folder, config, tokenizer, labels, seed, problem_type, texts)


def save_classifier(
    folder: Path,
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    labels: Sequence[str],
    seed: int,
    problem_type: str | None = None,
    texts: Sequence[str] = (),
) -> Path:
    """Saves a classifier with seeded weights and a head that is centered on `texts`."""
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = problem_type
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    spread_logits(model, tokenizer, [text for text in texts if text][:SPREAD_TEXTS])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_model_without_head(folder: Path, seed: int = 0) -> Path:
    """Saves a bare BERT encoder, as many hub repositories hold it: loading it as a classifier would invent a head."""
    tokenizer = _train_tokenizer("bert", real_documents(100), 128)
    torch.manual_seed(seed)
    AutoModel.from_config(config_of("bert", len(tokenizer), 128)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


POISONOUS_CODE = """
import ctypes
import os

from transformers import BertForSequenceClassification


class PoisonousForSequenceClassification(BertForSequenceClassification):
    def forward(self, input_ids=None, attention_mask=None, token_type_ids=None):
        if not os.path.exists({cured!r}):
            if (input_ids == {kills}).any():
                ctypes.string_at(0)  # a segmentation fault
            if (input_ids == {raises}).any():
                raise RuntimeError("a poisonous document")
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
"""
RAISING_WORD, KILLING_WORD, UNKNOWN_WORD = "raisingword", "killingword", "unembeddedword"


def make_poisonous_model(folder: Path, cured: Path) -> Path:
    """Saves a classifier with code of its own, which some words harm, as long as there is no file `cured`.

    A document with RAISING_WORD makes the model raise, one with KILLING_WORD ends the process by a segmentation fault, and
    UNKNOWN_WORD has a token id that the model has no embedding for.
    """
    make_model(folder)
    tokenizer = BertTokenizer.from_pretrained(folder)
    size = len(tokenizer)
    tokenizer.add_tokens([RAISING_WORD, KILLING_WORD])
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.resize_token_embeddings(size + 2, mean_resizing=False)
    tokenizer.add_tokens([UNKNOWN_WORD])
    model.config.auto_map = {"AutoModelForSequenceClassification": "poisonous.PoisonousForSequenceClassification"}
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    code = POISONOUS_CODE.format(cured=str(cured), raises=size, kills=size + 1)
    (folder / "poisonous.py").write_text(code)
    return folder


def bert_golden_tokenizer(folder: Path) -> Path:
    """Saves a tokenizer with bert-base-uncased's size, special tokens and limit, and its pieces for the golden sentences.

    The other ids hold entries that no text can produce, so anything else in a text becomes [UNK], 100.
    """
    pieces = {**BERT_SPECIAL_TOKENS, **GOLDEN_PIECES}
    taken = set(pieces.values())
    assert len(taken) == len(pieces)
    fillers = {f"[unused{index}]": index for index in range(BERT_VOCABULARY_SIZE) if index not in taken}
    vocabulary = dict(sorted({**pieces, **fillers}.items(), key=lambda entry: entry[1]))
    BertTokenizer(vocab=vocabulary, model_max_length=512).save_pretrained(folder)
    return folder


def _train_tokenizer(architecture: Architecture, texts: Sequence[str], max_length: int) -> PreTrainedTokenizerBase:
    if architecture == "roberta":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY_SIZE,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],  # pad is 1, as in roberta-base
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        trained = json.loads(tokenizer.to_str())["model"]
        merges: list = [tuple(merge) for merge in trained["merges"]]
        return RobertaTokenizer(vocab=trained["vocab"], merges=merges, model_max_length=max_length)
    tokenizer_class = BertTokenizer if architecture == "bert" else DistilBertTokenizer
    return tokenizer_class(vocab=word_pieces(texts), model_max_length=max_length)


def word_pieces(texts: Sequence[str]) -> dict[str, int]:
    """A WordPiece vocabulary: the commonest characters, words and word endings.

    Not the tokenizers library's trainer, whose ids differ from one process to the next, and with them the model's answers.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    characters, endings = Counter[str](), Counter[str]()
    for word, count in words.items():
        for character in word:
            characters[character] += count
        for length in range(2, min(5, len(word))):
            endings["##" + word[-length:]] += count
    alphabet = [character for character, _ in _commonest(characters, 300)]
    longer = [piece for piece, _ in _commonest(words + endings, VOCABULARY_SIZE)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *alphabet, *("##" + letter for letter in alphabet), *longer]
    return {piece: index for index, piece in enumerate(list(dict.fromkeys(pieces))[:VOCABULARY_SIZE])}


def commonest_words(texts: Sequence[str], limit: int) -> list[str]:
    """The commonest of what white space separates, the shorter ones only."""
    words = Counter(word for text in texts for word in text.split() if len(word) < 12)
    return [word for word, _ in _commonest(words, limit)]


def _commonest(counts: Counter[str], limit: int) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:limit]


def config_of(architecture: Architecture, vocabulary_size: int, max_length: int) -> PreTrainedConfig:
    """The configuration of a tiny model for texts of so many tokens."""
    if architecture == "distilbert":
        return DistilBertConfig(
            vocab_size=vocabulary_size,
            dim=HIDDEN_SIZE,
            hidden_dim=2 * HIDDEN_SIZE,
            n_layers=2,
            n_heads=2,
            max_position_embeddings=max_length,
            initializer_range=INITIALIZER_RANGE,
        )
    shape = {
        "vocab_size": vocabulary_size,
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": 2 * HIDDEN_SIZE,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "initializer_range": INITIALIZER_RANGE,
    }
    if architecture == "roberta":  # its positions start behind the pad id
        return RobertaConfig(**shape, max_position_embeddings=max_length + 2, type_vocab_size=1)
    return BertConfig(**shape, max_position_embeddings=max_length)


@torch.inference_mode()
def spread_logits(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> None:
    """Scales and shifts the head's last layer so that each logit has mean 0 and `LOGIT_SPREAD` over `texts`."""
    logits = torch.cat([model(**tokenizer(text, truncation=True, return_tensors="pt")).logits for text in texts])
    scale = LOGIT_SPREAD / logits.std(dim=0)
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    head = [module for module in linear if module.out_features == logits.shape[1]][-1]
    head.weight.mul_(scale[:, None])
    if head.bias is not None:  # decoders' heads have none
        head.bias.copy_((head.bias - logits.mean(dim=0)) * scale)
