"""Truncating a long text before it is tokenized, so that the tokens which are kept are the same: the rest costs nothing.

Tokenizing the whole text and truncating takes as long as the text is long: 10 MB to keep 512 tokens. A *boundary* is a place
in a text at which the tokens of the whole text are the tokens of the two parts, one behind the other, whatever the parts hold.
If the part before a boundary has more tokens than are kept, those kept are the whole text's, which is then truncated as well.

Which places are boundaries follows from the tokenizer's definition, component by component. Components are allowed, not
forbidden: with one that is not known to be local there is no early truncation, which is slow but never wrong. At a boundary:

- Added tokens are found before anything else. None of them reaches across a boundary, not even when it is normalized.
- Normalizers work by character or by cluster. The characters around a boundary are part of no cluster, compose with nothing and
  normalize to letters or digits; between them is one space or line break, which no run of white space continues.
- Pre-tokenizers end a piece there, and only the characters around the boundary decide so. Models work within pieces. Where
  nothing is split, as by Llama and Gemma, no entry of the vocabulary reaches across a boundary: then no merge and no path does.
"""

import json
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

CHARACTERS_PER_TOKEN = 6  # in the first try (English prose has 4.5); each further try takes twice as many
CLOSING = ".,;:!?)、。，；：！？）」』"  # end a piece before a space, as letters do
PAUSES = "、。，；：！？"  # begin a piece of their own behind a letter; for scripts without spaces
SPACE_LIKE = (" ", "▁")

LOCAL_NORMALIZERS = {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "StripAccents"}
WORD_SPLITTERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}  # at any white space
LOCAL_REPLACEMENTS = {" {2,}", r"\s{2,}|[\n\r\t]", r"[\n\r\t]", r"\n"}  # regular expressions that leave a single space alone
_LETTER_CASES = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
# Alternatives in the expressions that byte-level tokenizers split by: GPT-2, Llama 3, Qwen 2 to 3.5, GPT-4o. None of them
# matches across a boundary, and what one matches before a boundary does not depend on the text behind it.
LOCAL_ALTERNATIVES = {
    *("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", _CONTRACTIONS, "'(?i:[sdmt]|ll|ve|re)"),
    *(r" ?\p{L}+", r" ?\p{N}+", r"\p{N}", r"\p{N}{1,3}", r"\s*[\r\n]+", r"\s*[\r\n]", r"\s+(?!\S)", r"\s+"),
    *(r" ?[^\s\p{L}\p{N}]+", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"),
    *(r"[^\r\n\p{L}\p{N}]?\p{L}+", r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+"),
    rf"[^\r\n\p{{L}}\p{{N}}]?{_LETTER_CASES[0]}*{_LETTER_CASES[1]}+{_CONTRACTIONS}?",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_LETTER_CASES[0]}+{_LETTER_CASES[1]}*{_CONTRACTIONS}?",
}
SYMBOLS = r" ?[^\s\p{L}"  # beginning of an alternative for punctuation

_LETTER = r"[^\W_]"
_WORD_END = rf"(?:(?<={_LETTER})|(?<=[{re.escape(CLOSING)}]))"
_IDEOGRAPH = "[一-鿿]"  # BertNormalizer puts spaces around these


@dataclass(frozen=True)
class EarlyTruncation:
    """How the texts of one tokenizer are truncated early.

    boundaries: matches at a boundary, up to the last character that makes it one, if `_is_plain` is true of the characters at
    both ends; from_end: the end of a text is kept, not its beginning; initial_characters: length of the first try.
    """

    boundaries: re.Pattern[str]
    from_end: bool
    initial_characters: int

    def shorten(self, text: str, characters: int) -> str:
        """At least `characters` from the side that is kept, up to a boundary; `text` itself if no boundary is near."""
        while characters * 5 // 4 < len(text):  # a part of nearly the whole text is not worth the risk of a second try
            start = len(text) - 2 * characters if self.from_end else characters
            for boundary in self.boundaries.finditer(text, max(start, 1), max(start + characters, 1)):
                if _is_plain(text[boundary.start() - 1]) and _is_plain(text[boundary.end() - 1]):
                    return text[boundary.start() :] if self.from_end else text[: boundary.start()]
            characters *= 2
        return text


def early_truncation_of(definition: str, backend: Any) -> EarlyTruncation | None:
    """The early truncation that is exact for a tokenizer; None if none is known to be.

    Args:
        definition: JSON of `backend`.
        backend: a `tokenizers.Tokenizer` that truncates.
    """
    tokenizer = json.loads(definition)
    truncation, model = tokenizer["truncation"], tokenizer["model"]
    if truncation is None or truncation["stride"] or _may_fail(model):  # an error in the rest of the text would go unseen
        return None
    from_end = truncation["direction"] == "Left"
    normalizers = _components(tokenizer["normalizer"], "normalizers")
    splitters = _components(tokenizer["pre_tokenizer"], "pretokenizers")

    def normalized(text: str) -> str:
        return backend.normalizer.normalize_str(text) if normalizers else text

    def within_words(character: str) -> str:
        return normalized(f"aa{character}aa").removesuffix("aa").partition("aa")[2]

    added = [(token, [token["content"], normalized(token["content"])]) for token in tokenizer["added_tokens"]]
    contents = [content for _, both in added for content in both]
    if not all(_is_local(normalizer, from_end) for normalizer in normalizers) or any(
        re.search(r"[^\s▁][\s▁]", content) for content in contents
    ):
        return None
    if from_end and any(token["rstrip"] and (token["normalized"] or _is_word_end(token["content"])) for token, _ in added):
        return None  # the token would include the space at a boundary

    boundaries = []
    space, line_break = within_words(" "), within_words("\n")
    ends, white = _split(splitters, space)
    if ends or (not from_end and white == "▁" and ends is False and _keeps_words_apart(model)):
        boundaries.append(rf"{_WORD_END} {_LETTER}")
    puts_space_first = from_end and line_break == "\n" and any(part["type"] == "ByteLevel" for part in splitters)
    if ends and not puts_space_first and _split(splitters, line_break)[0]:
        # behind punctuation, it belongs to that for some of the byte-level tokenizers
        before = rf"(?<={_LETTER})" if _expression(splitters) else _WORD_END
        boundaries.append(rf"{before}\n{_LETTER}")
    is_bert = [part["type"] for part in (*normalizers, *splitters)] == ["BertNormalizer", "BertPreTokenizer"]
    if not from_end and ends and (is_bert or SYMBOLS in (_expression(splitters) or "")):
        pauses = {within_words(pause) for pause in PAUSES}
        if pauses <= set(PAUSES + CLOSING) and not any(re.search(rf"{_LETTER}[{PAUSES},.;:!?]", text) for text in contents):
            boundaries.append(rf"(?<={_LETTER})[{PAUSES}]")
        if is_bert and normalizers[0]["handle_chinese_chars"] and not any(re.search(_IDEOGRAPH, text) for text in contents):
            boundaries.append(rf"(?<={_IDEOGRAPH}){_IDEOGRAPH}")
    return (
        EarlyTruncation(re.compile("|".join(boundaries)), from_end, CHARACTERS_PER_TOKEN * truncation["max_length"])
        if boundaries
        else None
    )


@lru_cache(maxsize=2**16)
def _is_plain(character: str) -> bool:
    """True if it is part of no cluster, composes with nothing to its right, and normalizes to letters, digits or CLOSING.

    Letters are those of Unicode 3.2, which all libraries know, without modifiers, which some normalizers remove.
    """
    if character.isascii() or character in CLOSING:
        return True
    categories = (unicodedata.category(character), unicodedata.ucd_3_2_0.category(character))
    return all(c in ("Lu", "Ll", "Lt", "Lo") for c in categories) and unicodedata.normalize("NFKD", character).isalpha()


def _is_word_end(content: str) -> bool:
    return content[-1].isalnum() or content[-1] in CLOSING


def _components(component: dict[str, Any] | None, parts: str) -> list[dict[str, Any]]:
    """The single components in a component, in order; sequences may be nested."""
    if component is None:
        return []
    if component["type"] == "Sequence":
        return [single for part in component[parts] for single in _components(part, parts)]
    return [component]


def _may_fail(model: dict[str, Any]) -> bool:
    """True if a model raises for some texts, or its tokens are random."""
    if model["type"] == "Unigram":
        return model["unk_id"] is None
    unknown = model["unk_token"]
    return bool(model.get("dropout")) or (unknown not in model["vocab"] if model["type"] != "BPE" or unknown else False)


def _is_local(normalizer: dict[str, Any], from_end: bool) -> bool:
    kind = normalizer["type"]
    if kind == "Strip":  # at the ends of the whole text; the part that is kept has the end on its side
        return not (from_end and normalizer["strip_left"])
    if kind == "Prepend":
        return not from_end
    if kind == "Replace":
        literal, expression = normalizer["pattern"].get("String"), normalizer["pattern"].get("Regex")
        plain = literal is not None and not any(c.isalnum() or c in CLOSING for c in literal)
        return plain or expression in LOCAL_REPLACEMENTS
    return kind in LOCAL_NORMALIZERS


def _split(splitters: list[dict[str, Any]], white: str) -> tuple[bool | None, str]:
    """(True if a piece ends before the white space at a boundary, None if not known; what `white` is normalized to)."""
    if white not in ("\n", *SPACE_LIKE):
        return None, white
    for splitter in splitters:
        kind = splitter["type"]
        expression = _expression([splitter])
        if kind == "Metaspace" and splitter["replacement"] == "▁":
            white = "▁" if white == " " else white
            ends = splitter["split"] and white == "▁"
        elif kind == "WhitespaceSplit" or (white != "▁" and (kind in WORD_SPLITTERS or expression)):
            ends = white != "▁"
        else:  # a later splitter cannot undo an end; without an end so far, only these are known to add none
            ends = False
            literal = kind == "Split" and splitter["pattern"] == {"String": " "} and white == "▁"
            if not (literal or kind == "Digits" or (kind == "Punctuation" and splitter["behavior"] == "Isolated")):
                return None, white
        if ends:
            return True, white
    return False, white


def _expression(splitters: list[dict[str, Any]]) -> str | None:
    """The regular expression that a byte-level tokenizer splits by, after splitting digits; None if it is not local."""
    for splitter in splitters:
        if splitter["type"] == "ByteLevel" and splitter["use_regex"]:
            return r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
        if splitter["type"] == "Split" and splitter["behavior"] in ("Isolated", "Removed"):
            expression = splitter["pattern"].get("Regex", "")
            alternatives = _alternatives(expression)
            return expression if alternatives <= LOCAL_ALTERNATIVES and r"\s+" in alternatives else None
        if splitter["type"] != "Digits":
            return None
    return None


def _alternatives(expression: str) -> set[str]:
    """The top-level alternatives of a regular expression."""
    found, depth = [""], 0
    for token in re.findall(r"\\.|\[(?:\\.|[^\]])*\]|.", expression, re.DOTALL):
        depth += (token == "(") - (token == ")")
        if token == "|" and not depth:
            found.append("")
        else:
            found[-1] += token
    return set(found)


def _keeps_words_apart(model: dict[str, Any]) -> bool:
    """True if no entry of the vocabulary reaches across the `▁` that begins a word, and `▁` is an entry."""
    if model["type"] == "BPE":
        if model["ignore_merges"] or model["continuing_subword_prefix"] or model["end_of_word_suffix"]:
            return False
        entries = model["vocab"]
    elif model["type"] == "Unigram":
        entries = {entry for entry, _ in model["vocab"]}
    else:
        return False
    return "▁" in entries and not any(re.search("[^▁]▁", entry) for entry in entries)
