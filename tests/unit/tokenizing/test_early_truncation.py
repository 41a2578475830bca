"""Long texts are cut before they are tokenized, and nobody can tell: against tokenizing them whole, family by family."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from pipeline_ops.tokenizing.early_truncation import EarlyTruncation, early_truncation_of
from pipeline_ops.tokenizing.encoding import Encodings, encode
from tests.models.harmful import KNOWN_WORDS, UNKNOWN_WORD
from tests.models.tokenizer_families import FAMILIES, GPT_4O, definition_of
from tests.support.corpora import real_documents
from tests.support.tiers import mostly_slow

# Cut from the left, they see a beginning that is none, or a rounding that differs: nothing is cut.
ONLY_FROM_THE_RIGHT = {"deberta_of_old", "unsplit_unigram", "llama", "llama_of_old", "gemma"}
CASES = [(family, "right") for family in FAMILIES]
CASES += [(family, "left") for family in FAMILIES if family not in ONLY_FROM_THE_RIGHT]
QUICK = [(family, direction) for family in ("bert", "roberta", "llama_3") for direction in ("right", "left")]

WORDS = [
    *(
        "the",
        "a",
        "I",
        "x",
        "zebra",
        "Quux",
        "end",
        "ab-",
        "12345",
        "3.14",
        "1,000",
        "it's",
        "don't",
        "'LL",
        "x" * 120,
        "aGVs" * 30,
    ),
    *(
        "café",
        "cafe\u0301",
        "Zürich",
        "Zu\u0308rich",
        "İstanbul",
        "Σίσυφος",
        "ΟΔΟΣ",
        "наука",
        "й",
        "ᾳ",
        "ﬁne",
        "①",
        "½",
        "٣",
        "ªº",
    ),
    *(
        "日本語",
        "すべて",
        "か\u3099",
        "ﾊﾞ",
        "ﾊ",
        "人",
        "中华人民共和国",
        "한국어",
        "\u1112\u1161\u11ab",
        "ภาษาไทย",
        "น้ำ",
        "ำ",
        "हिन्दी",
        "क्ष",
        "ज़",
    ),
    *("صلى", "ﷺ", "ﹰ", "ـ", "مرحبا", "\u0d4e", "ͺ", "ʰ", "👩\u200d👩\u200d👧", "🇺🇳", "🤗", "\ufe0f", "\u0301", "\U0001f1fa"),
    *(
        "[MASK]",
        "[SEP]",
        "<mask>",
        "<s>",
        "</s>",
        "<unk>",
        "|||EMAIL|||",
        "<0x41>",
        "``",
        "''",
        "...",
        "▁",
        "▁▁",
        "Ġ",
        "_",
        "#",
    ),
]
SPACES = [
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\r\n",
    "\r",
    "\t",
    "\u00a0",
    "\u3000",
    "\u2028",
    "\x85",
    "\x0b",
    "\u200b",
    "\ufeff",
    "\x00",
]
MARKS = [".", ",", "!", "?", ")", "'", "-", "/", "、", "。", "，", "！", "？", "」", "（", "…"]
TEXTS = st.one_of(
    st.lists(st.sampled_from([*WORDS, *SPACES, *MARKS]), max_size=30).map("".join),
    st.lists(st.sampled_from(WORDS), min_size=2, max_size=30).map(" ".join),
    st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from([" ", " ", "\n", *MARKS])), max_size=20).map(
        lambda pairs: "".join(part for pair in pairs for part in pair)
    ),
    st.text(max_size=60),
    st.lists(st.text(st.characters(categories=["L", "N", "M", "Zs"]), min_size=1, max_size=3), max_size=12).map(" ".join),
)
BRIEF = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@cache
def tokenizer_of(family: str) -> Tokenizer:
    tokenizer = Tokenizer.from_str(definition_of(family))
    tokenizer.no_padding()
    return tokenizer


def truncating(family: str, direction: str, max_length: int) -> tuple[Tokenizer, EarlyTruncation]:
    tokenizer = tokenizer_of(family)
    tokenizer.enable_truncation(max_length, direction=direction)
    truncation = early_truncation_of(tokenizer.to_str(), tokenizer)
    assert truncation is not None
    return tokenizer, truncation


def as_lists(encodings: Encodings) -> dict[str, list[Any]]:
    """All but the windows, which there are none of."""
    return {name: values.tolist() for name, values in vars(encodings).items() if values is not None}


def of_whole(texts: list[str], tokenizer: Tokenizer, max_length: int, direction: str) -> dict[str, list[Any]]:
    """What the tokenizer gives for whole texts, which are truncated afterwards, one by one."""
    ids, type_ids, lengths, truncated = [], [], [], []
    for text in texts:
        tokenizer.no_truncation()
        whole = tokenizer.encode(text)
        cut = len(whole) > max_length
        tokenizer.enable_truncation(max_length, direction=direction)
        encoding = tokenizer.encode(text)
        ids += encoding.ids
        type_ids += encoding.type_ids
        lengths.append(len(encoding))
        truncated.append(cut)
    return {"ids": ids, "type_ids": type_ids, "lengths": lengths, "truncated": truncated}


@pytest.mark.parametrize(("family", "direction"), mostly_slow(CASES, quick=QUICK))
def test_texts_that_are_cut_as_short_as_can_be_have_the_tokens_of_whole_ones(family: str, direction: str) -> None:
    @BRIEF
    @given(st.lists(TEXTS, max_size=3), st.integers(4, 128), st.integers(1, 40))
    def check(texts: list[str], max_length: int, characters: int) -> None:
        tokenizer, truncation = truncating(family, direction, max_length)
        found = encode(
            texts, tokenizer, with_type_ids=True, early_truncation=replace(truncation, initial_characters=characters)
        )
        assert as_lists(found) == of_whole(texts, tokenizer, max_length, direction)

    check()


@pytest.mark.parametrize(("family", "direction"), CASES)
def test_parts_of_any_length_have_tokens_that_begin_or_end_those_of_the_whole(family: str, direction: str) -> None:
    tokenizer, truncation = truncating(family, direction, 4)

    @BRIEF
    @given(TEXTS)
    def check(text: str) -> None:
        tokenizer.no_truncation()
        whole = tokenizer.encode(text, add_special_tokens=False).ids
        for part in {truncation.shorten(text, characters) for characters in range(1, len(text))}:
            ids = tokenizer.encode(part, add_special_tokens=False).ids
            assert ids == (whole[len(whole) - len(ids) :] if direction == "left" else whole[: len(ids)])

    check()


@pytest.mark.parametrize(("family", "direction"), mostly_slow(CASES, quick=QUICK))
def test_parts_that_end_between_any_two_words_have_tokens_that_begin_or_end_those_of_the_whole(
    family: str, direction: str
) -> None:
    tokenizer, truncation = truncating(family, direction, 4)
    tokenizer.no_truncation()
    texts = [
        f"a {left}{mark}{between}{right}, b"
        for left in WORDS
        for mark in ("", ".", "。")
        for between in (" ", "\n", "、", "")
        for right in ("the", "人间", "か\u3099", "ﹰ", "<mask>")
    ]
    pairs = {(text, truncation.shorten(text, characters)) for text in texts for characters in range(1, min(len(text), 20), 2)}
    pairs = [(text, part) for text, part in pairs if part != text]
    assert len(pairs) > 1000
    wholes = tokenizer.encode_batch([text for text, _ in pairs], add_special_tokens=False)
    parts = tokenizer.encode_batch([part for _, part in pairs], add_special_tokens=False)
    for (text, part), whole, of_part in zip(pairs, wholes, parts, strict=True):
        start = len(whole) - len(of_part) if direction == "left" else 0
        assert whole.ids[start : start + len(of_part)] == of_part.ids, (text, part)


class Counting:
    """A tokenizer's backend that counts the characters that it is given."""

    def __init__(self, backend: Tokenizer):
        self.backend, self.characters = backend, 0
        self.truncation = backend.truncation

    def encode_batch_fast(self, texts: list[str], **options: Any) -> list[Any]:
        self.characters += sum(map(len, texts))
        return self.backend.encode_batch_fast(texts, **options)


@pytest.mark.parametrize(("family", "direction"), mostly_slow(CASES, quick=QUICK))
def test_long_documents_are_tokenized_only_as_far_as_needed(family: str, direction: str) -> None:
    tokenizer, truncation = truncating(family, direction, 64)
    texts = [*(" ".join(real_documents(60, seed)) for seed in range(3)), "short"]
    counting = Counting(tokenizer)
    found = encode(texts, counting, with_type_ids=True, early_truncation=truncation)
    assert as_lists(found) == as_lists(encode(texts, tokenizer, with_type_ids=True))
    assert found.truncated.tolist() == [True, True, True, False]
    assert counting.characters < 0.3 * sum(map(len, texts))


@pytest.mark.parametrize("family", ["bert", "roberta", "llama_3", "gpt_4o", "qwen_2"])
@pytest.mark.parametrize(
    "sentence",
    [
        "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
        "人人生而自由，在尊严和权利上一律平等。",
    ],
)
def test_long_documents_without_spaces_are_tokenized_only_as_far_as_needed(family: str, sentence: str) -> None:
    tokenizer, truncation = truncating(family, "right", 32)
    counting = Counting(tokenizer)
    found = encode([sentence * 1000], counting, with_type_ids=True, early_truncation=truncation)
    assert as_lists(found) == as_lists(encode([sentence * 1000], tokenizer, with_type_ids=True))
    assert counting.characters < len(sentence) * 50


RESTS = [" " * 500, "\n" * 100, "\x00" * 500, "\u200b \u00ad\n" * 500, "", " a", "a" * 500]


@pytest.mark.parametrize(("family", "direction"), mostly_slow(CASES, quick=QUICK))
def test_texts_at_the_limit_are_truncated_only_if_the_rest_has_tokens(family: str, direction: str) -> None:
    """Much text behind the last token that is kept need not mean that there are more tokens."""
    tokenizer, truncation = truncating(family, direction, 16)
    tokenizer.no_truncation()
    sentence = "one of them and all the others in it " * 4
    starts = [sentence[:end] for end in range(len(sentence))]
    by_length = {len(tokens): start for start, tokens in zip(starts, tokenizer.encode_batch(starts), strict=True)}
    texts = [
        start + rest if direction == "right" else rest + start
        for length in (15, 16, 17)
        if (start := by_length.get(length)) is not None
        for rest in RESTS
    ]
    tokenizer.enable_truncation(16, direction=direction)
    found = encode(texts, tokenizer, with_type_ids=True, early_truncation=replace(truncation, initial_characters=10))
    assert as_lists(found) == of_whole(texts, tokenizer, 16, direction)
    assert set(found.truncated.tolist()) == {False, True}


def with_component(**components: Any) -> Callable[[], Tokenizer]:
    """The RoBERTa family's tokenizer with another normalizer or pre-tokenizer."""

    def build() -> Tokenizer:
        tokenizer = Tokenizer.from_str(definition_of("roberta"))
        for name, component in components.items():
            setattr(tokenizer, name, component)
        return tokenizer

    return build


def with_token(family: str, token: AddedToken) -> Callable[[], Tokenizer]:
    def build() -> Tokenizer:
        tokenizer = Tokenizer.from_str(definition_of(family))
        tokenizer.add_tokens([token])
        return tokenizer

    return build


def with_model(family: str, **fields: Any) -> Callable[[], Tokenizer]:
    def build() -> Tokenizer:
        definition = json.loads(definition_of(family))
        definition["model"] |= fields
        return Tokenizer.from_str(json.dumps(definition))

    return build


def gemma_with_words_in_one() -> Tokenizer:
    """Its vocabulary has an entry of two words, to which merges lead."""
    definition = json.loads(definition_of("gemma"))
    vocabulary = definition["model"]["vocab"]
    vocabulary |= {"e▁": len(vocabulary), "e▁t": len(vocabulary) + 1}
    definition["model"]["merges"] = [["e", "▁"], ["e▁", "t"], *definition["model"]["merges"]]
    return Tokenizer.from_str(json.dumps(definition))


def word_level() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(KNOWN_WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


@pytest.mark.parametrize(
    ("build", "direction"),
    [
        (with_component(normalizer=normalizers.Replace("e", "")), "right"),
        (with_component(normalizer=normalizers.Replace(Regex("e .*"), "")), "right"),
        (with_component(normalizer=normalizers.Replace(" ", "")), "right"),
        (with_component(normalizer=normalizers.ByteLevel()), "right"),
        (with_component(pre_tokenizer=pre_tokenizers.ByteLevel(use_regex=False)), "right"),
        (with_component(pre_tokenizer=pre_tokenizers.Split(Regex(r"\S+ \S+|\s+"), "isolated")), "right"),
        (with_component(pre_tokenizer=pre_tokenizers.Split(Regex(GPT_4O), "merged_with_next")), "right"),
        (with_component(pre_tokenizer=pre_tokenizers.Split(" ", "merged_with_previous")), "right"),
        (with_component(pre_tokenizer=pre_tokenizers.UnicodeScripts()), "right"),
        (with_component(pre_tokenizer=pre_tokenizers.Punctuation()), "right"),
        (with_token("bert", AddedToken("new york", normalized=True)), "right"),
        (with_token("roberta", AddedToken("<|of them|>", normalized=False)), "right"),
        (with_token("bert", AddedToken("word", rstrip=True, normalized=False)), "left"),
        (with_model("roberta", dropout=0.1), "right"),
        (with_model("xlm_roberta", unk_id=None), "right"),
        (gemma_with_words_in_one, "right"),
        (word_level, "right"),
        *((lambda family=family: Tokenizer.from_str(definition_of(family)), "left") for family in sorted(ONLY_FROM_THE_RIGHT)),
    ],
)
def test_texts_of_tokenizers_that_might_see_a_cut_are_not_cut(build: Callable[[], Tokenizer], direction: str) -> None:
    tokenizer = build()
    tokenizer.enable_truncation(16, direction=direction)
    assert early_truncation_of(tokenizer.to_str(), tokenizer) is None


def test_texts_that_fail_far_behind_the_limit_fail_all_the_same() -> None:
    tokenizer = word_level()
    tokenizer.enable_truncation(4)
    text = " ".join(KNOWN_WORDS) * 500 + " " + UNKNOWN_WORD
    with pytest.raises(Exception, match="UNK"):
        encode([text], tokenizer, with_type_ids=True, early_truncation=early_truncation_of(tokenizer.to_str(), tokenizer))
