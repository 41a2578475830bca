"""Tokenizers of the families in use, with vocabularies trained on the spot: what differs is how each splits and normalizes."""

import json
import struct
from collections.abc import Callable
from functools import cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AlbertTokenizer,
    BertTokenizer,
    DebertaV2Tokenizer,
    GemmaTokenizer,
    LlamaTokenizer,
    Qwen2Tokenizer,
    RobertaTokenizer,
    T5Tokenizer,
    XLMRobertaTokenizer,
)

from tests.support.corpora import EDGE_CASES, real_documents

LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT_4O = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ]
)
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
SPECIAL_OF_BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NORMAL_FORMS = {
    **{"\n": " ", "\t": " ", "\u00a0": " ", "\u3000": " ", "\u200b": "", "\ufeff": "", "\u200d": " "},
    **{"ﬁ": "fi", "①": "1", "！": "!", "，": ",", "u\u0308": "ü", "e\u0301": "é", "ﾊﾞ": "バ", "ﷺ": "صلى الله عليه وسلم"},
}


def texts() -> list[str]:
    return [text[:2000] for text in real_documents(120)] + list(EDGE_CASES) * 3


def charsmap(forms: dict[str, str]) -> Any:  # bytes, where transformers expects a str by its annotations
    """Normal forms as SentencePiece stores them: a double-array trie of the texts, and their forms, NUL-terminated.

    Source: Darts-clone's unit layout. Each node has a block of 256 units of its own, which is large but simple.
    """
    units, stored = [0] * 512, b""
    used: dict[bytes, int] = {b"": 0}  # prefix -> its unit
    bases: dict[bytes, int] = {b"": 256}
    units[0] = 256 << 10
    for text, form in forms.items():
        key = text.encode()
        for length in range(1, len(key) + 1):
            prefix = key[:length]
            if prefix not in used:
                used[prefix] = bases[prefix[:-1]] + prefix[-1]
                bases[prefix] = len(units)
                units += [0] * 256
                units[used[prefix]] = prefix[-1] | (bases[prefix] ^ used[prefix]) << 10
        units[used[key]] |= 1 << 8
        units[bases[key]] = len(stored) | 1 << 31
        stored += form.encode() + b"\0"
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + stored


@cache
def _byte_level() -> dict[str, Any]:
    """A vocabulary that would join anything with what is before and behind it, if it were in one piece."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts(), trainers.BpeTrainer(vocab_size=900, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    )
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary, merges = model["vocab"], [tuple(merge) for merge in model["merges"]]
    for byte in sorted(alphabet):
        for white in "ĠĊ":
            if byte + white not in vocabulary:
                vocabulary[byte + white] = len(vocabulary)
                merges.append((byte, white))
    return {"vocab": vocabulary, "merges": merges}


@cache
def _sentence_pieces(crossing: bool = True) -> list[tuple[str, float]]:
    """With `crossing`, one that would join the ends of words with the next word, if they were in one piece."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(texts(), trainers.UnigramTrainer(vocab_size=600, show_progress=False))
    pieces = [(piece, score) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"] if len(piece) > 0]
    ends = {text[-1] for text in (*texts(), *"etx.。人") if text.strip() == text != ""}
    return [*((name, 0.0) for name in SPECIAL), *pieces, *((character + "▁", -1.0) for character in sorted(ends) if crossing)]


@cache
def _sentence_merges() -> dict[str, Any]:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    names = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(texts(), trainers.BpeTrainer(vocab_size=1200, special_tokens=names, show_progress=False))
    model = json.loads(tokenizer.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(merge) for merge in model["merges"]]}


def _with_bert_names() -> list[tuple[str, float]]:
    return [*((name, 0.0) for name in SPECIAL_OF_BERT), *_sentence_pieces()[len(SPECIAL) :]]


def _bert(**settings: Any) -> Tokenizer:
    pieces = {character for text in texts() for character in text.lower()} | set("0123456789")
    words = {word for text in texts() for word in text.lower().split() if len(word) < 6}
    names = [*SPECIAL_OF_BERT, *sorted(pieces), *sorted("##" + piece for piece in pieces), *sorted(words - pieces)]
    return BertTokenizer(vocab={name: index for index, name in enumerate(names)}, **settings).backend_tokenizer


def _split_by(expression: str, normalizer: Any = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(**_byte_level(), ignore_merges=True))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(expression), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in SPECIAL])
    return tokenizer


def _modern_bert() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(**_byte_level()))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_tokens([AddedToken(" " * count, normalized=True) for count in range(2, 25)] + ["|||EMAIL|||"])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    return tokenizer


def _albert() -> Tokenizer:
    names = [("<pad>", 0.0), ("<unk>", 0.0), ("[CLS]", 0.0), ("[SEP]", 0.0), ("[MASK]", 0.0)]
    vocabulary = [*names, *_sentence_pieces()[len(SPECIAL) :]]
    return AlbertTokenizer(
        vocab=vocabulary, do_lower_case=True, _spm_precompiled_charsmap=charsmap(NORMAL_FORMS)
    ).backend_tokenizer


def _xlm_roberta_of_old() -> Tokenizer:
    """As its tokenizer.json on the hub."""
    tokenizer = XLMRobertaTokenizer(vocab=_sentence_pieces()).backend_tokenizer
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(charsmap(NORMAL_FORMS)), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def _deberta_of_old() -> Tokenizer:
    """As transformers 4 converts it."""
    tokenizer = DebertaV2Tokenizer(vocab=_with_bert_names()).backend_tokenizer
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Strip(),
            normalizers.Precompiled(charsmap(NORMAL_FORMS)),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    return tokenizer


def _unsplit_unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram(_sentence_pieces(crossing=False), unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    return tokenizer


def _llama_of_old() -> Tokenizer:
    """As transformers 4 converts it."""
    tokenizer = LlamaTokenizer(**_sentence_merges()).backend_tokenizer
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = None  # type: ignore[assignment]
    return tokenizer


def _with_words(tokenizer: Tokenizer) -> Tokenizer:
    """With added tokens that are words, or begin or end as one."""
    tokenizer.add_tokens(["zebra", AddedToken("Quux", single_word=True), AddedToken("end", lstrip=True), "ab-"])
    return tokenizer


FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    "bert": _bert,
    "bert_cased": lambda: _bert(do_lower_case=False),
    "bert_words": lambda: _with_words(_bert()),
    "roberta": lambda: RobertaTokenizer(**_byte_level()).backend_tokenizer,
    "roberta_prefix": lambda: RobertaTokenizer(**_byte_level(), add_prefix_space=True).backend_tokenizer,
    "modern_bert": _modern_bert,
    "llama_3": lambda: _split_by(LLAMA_3),
    "llama_3_words": lambda: _with_words(_split_by(LLAMA_3)),
    "llama_3_decomposing": lambda: _split_by(LLAMA_3, normalizers.NFD()),
    "gpt_4o": lambda: _split_by(GPT_4O, normalizers.NFD()),
    "qwen_2": lambda: Qwen2Tokenizer(**_byte_level()).backend_tokenizer,
    "xlm_roberta": lambda: (
        XLMRobertaTokenizer(vocab=_sentence_pieces(), _spm_precompiled_charsmap=charsmap(NORMAL_FORMS)).backend_tokenizer
    ),
    "xlm_roberta_of_old": _xlm_roberta_of_old,
    "t5": lambda: T5Tokenizer(vocab=_sentence_pieces(), unk_id=3).backend_tokenizer,
    "albert": _albert,
    "deberta": lambda: DebertaV2Tokenizer(vocab=_with_bert_names()).backend_tokenizer,
    "deberta_of_old": _deberta_of_old,
    "deberta_punctuation": lambda: DebertaV2Tokenizer(vocab=_with_bert_names(), split_by_punct=True).backend_tokenizer,
    "unsplit_unigram": _unsplit_unigram,
    "llama": lambda: LlamaTokenizer(**_sentence_merges()).backend_tokenizer,
    "llama_of_old": _llama_of_old,
    "gemma": lambda: GemmaTokenizer(**_sentence_merges()).backend_tokenizer,
}


@cache
def definition_of(family: str) -> str:
    """JSON of one of FAMILIES."""
    return FAMILIES[family]().to_str()
