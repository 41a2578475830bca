"""Where a long text can be cut so that its first (or last) tokens stay what they are: the rest is then never tokenized.

Tokenizing whole and truncating costs as much as the text is long: 10 MB to keep 512 tokens. A *joint* is a place in a text at
which the tokens of the whole are the tokens of the two parts, one behind the other, whatever else the parts hold. If the part
before a joint gives more tokens than are kept, those kept are the ones of the whole, and that it is truncated is certain too.

Which places are joints follows from the tokenizer's definition, component by component; components are allowed, not forbidden:
with one that is not known to be local, nothing is cut, which is slow but never wrong. What makes a place a joint:

- Added tokens are found before anything else. None of them may reach across a joint, not even when it is normalized.
- Normalizers work by character or by cluster. Around a joint stand characters that join no cluster, compose with nothing and
  normalize to letters or digits; between them stands one space or line break, which no run of white space continues.
- Pre-tokenizers end a piece there, and look no further than the characters around a joint to decide so. Models work within
  pieces. Where nothing is split, as by Llama and Gemma, it is enough that no entry of the vocabulary reaches across a joint:
  then no merge and no path does.
"""

import json
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

CHARACTERS_PER_TOKEN = 6  # in the first try; English prose has 4.5. Each further try takes twice as many
CLOSING = ".,;:!?)、。，；：！？）」』"  # in front of a space they end a piece, as letters do
PAUSES = "、。，；：！？"  # behind a letter they begin a piece of their own; for scripts without spaces
SPACE_LIKE = (" ", "▁")

LOCAL_NORMALIZERS = {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "StripAccents"}
WORD_SPLITTERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}  # at any white space
LOCAL_REPLACEMENTS = {" {2,}", r"\s{2,}|[\n\r\t]", r"[\n\r\t]", r"\n"}  # regular expressions that leave a single space alone
_LETTER_CASES = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
# Alternatives of the expressions that byte-level tokenizers split by: GPT-2, Llama 3, Qwen 2 to 3.5, GPT-4o. None of them
# matches across a joint, and what one matches before a joint does not depend on what is behind it.
LOCAL_ALTERNATIVES = {
    *("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", _CONTRACTIONS, "'(?i:[sdmt]|ll|ve|re)"),
    *(r" ?\p{L}+", r" ?\p{N}+", r"\p{N}", r"\p{N}{1,3}", r"\s*[\r\n]+", r"\s*[\r\n]", r"\s+(?!\S)", r"\s+"),
    *(r" ?[^\s\p{L}\p{N}]+", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"),
    *(r"[^\r\n\p{L}\p{N}]?\p{L}+", r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+"),
    rf"[^\r\n\p{{L}}\p{{N}}]?{_LETTER_CASES[0]}*{_LETTER_CASES[1]}+{_CONTRACTIONS}?",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_LETTER_CASES[0]}+{_LETTER_CASES[1]}*{_CONTRACTIONS}?",
}
SYMBOLS = r" ?[^\s\p{L}"  # how an alternative for punctuation begins

_LETTER = r"[^\W_]"
_WORD_END = rf"(?:(?<={_LETTER})|(?<=[{re.escape(CLOSING)}]))"
_IDEOGRAPH = "[一-鿿]"  # which BertNormalizer puts between spaces


@dataclass(frozen=True)
class EarlyTruncation:
    """How one tokenizer's texts may be cut.

    joints: matches at a joint, up to the last character that matters for its being one; `_is_plain` has to agree.
    from_end: the end of a text is kept, not its beginning. characters: how many are taken in the first try.
    """

    joints: re.Pattern[str]
    from_end: bool
    characters: int

    def part(self, text: str, characters: int) -> str:
        """At least `characters` from the side that is kept, up to a joint; all of `text` where none is in reach."""
        while characters * 5 // 4 < len(text):  # close to the whole, a part is not worth the risk of a second try
            start = len(text) - 2 * characters if self.from_end else characters
            for joint in self.joints.finditer(text, max(start, 1), max(start + characters, 1)):
                if _is_plain(text[joint.start() - 1]) and _is_plain(text[joint.end() - 1]):
                    return text[joint.start() :] if self.from_end else text[: joint.start()]
            characters *= 2
        return text


def early_truncation_of(definition: str, backend: Any) -> EarlyTruncation | None:
    """How texts may be cut for a tokenizer; None: they may not.

    Args:
        definition: JSON of `backend`, which is a `tokenizers.Tokenizer` that truncates.
    """
    tokenizer = json.loads(definition)
    truncation, model = tokenizer["truncation"], tokenizer["model"]
    if truncation is None or truncation["stride"] or _may_fail(model):  # an error behind a cut would go unseen
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
        return None  # it would take the space of a joint with it

    joints = []
    space, line_break = within_words(" "), within_words("\n")
    ends, white = _split(splitters, space)
    if ends or (not from_end and white == "▁" and ends is False and _keeps_words_apart(model)):
        joints.append(rf"{_WORD_END} {_LETTER}")
    puts_space_first = from_end and line_break == "\n" and any(part["type"] == "ByteLevel" for part in splitters)
    if ends and not puts_space_first and _split(splitters, line_break)[0]:
        # behind punctuation, it belongs to that for some of the byte-level tokenizers
        before = rf"(?<={_LETTER})" if _expression(splitters) else _WORD_END
        joints.append(rf"{before}\n{_LETTER}")
    is_bert = [part["type"] for part in (*normalizers, *splitters)] == ["BertNormalizer", "BertPreTokenizer"]
    if not from_end and ends and (is_bert or SYMBOLS in (_expression(splitters) or "")):
        pauses = {within_words(pause) for pause in PAUSES}
        if pauses <= set(PAUSES + CLOSING) and not any(re.search(rf"{_LETTER}[{PAUSES},.;:!?]", text) for text in contents):
            joints.append(rf"(?<={_LETTER})[{PAUSES}]")
        if is_bert and normalizers[0]["handle_chinese_chars"] and not any(re.search(_IDEOGRAPH, text) for text in contents):
            joints.append(rf"(?<={_IDEOGRAPH}){_IDEOGRAPH}")
    return (
        EarlyTruncation(re.compile("|".join(joints)), from_end, CHARACTERS_PER_TOKEN * truncation["max_length"])
        if joints
        else None
    )


@lru_cache(maxsize=2**16)
def _is_plain(character: str) -> bool:
    """Whether it is part of no cluster, composes with nothing to its right, and normalizes to letters, digits or CLOSING.

    Letters are those of Unicode 3.2, which the tables of all libraries have. Not modifiers, which some normalizers remove.
    """
    if character.isascii() or character in CLOSING:
        return True
    categories = (unicodedata.category(character), unicodedata.ucd_3_2_0.category(character))
    return all(c in ("Lu", "Ll", "Lt", "Lo") for c in categories) and unicodedata.normalize("NFKD", character).isalpha()


def _is_word_end(content: str) -> bool:
    return content[-1].isalnum() or content[-1] in CLOSING


def _components(component: dict[str, Any] | None, parts: str) -> list[dict[str, Any]]:
    """What a component does, one after the other; sequences may hold sequences."""
    if component is None:
        return []
    if component["type"] == "Sequence":
        return [single for part in component[parts] for single in _components(part, parts)]
    return [component]


def _may_fail(model: dict[str, Any]) -> bool:
    """Whether some texts have no tokens, or others each time."""
    if model["type"] == "Unigram":
        return model["unk_id"] is None
    unknown = model["unk_token"]
    return bool(model.get("dropout")) or (unknown not in model["vocab"] if model["type"] != "BPE" or unknown else False)


def _is_local(normalizer: dict[str, Any], from_end: bool) -> bool:
    kind = normalizer["type"]
    if kind == "Strip":  # of the ends of the whole text; a part that begins it, or ends it, has that end
        return not (from_end and normalizer["strip_left"])
    if kind == "Prepend":
        return not from_end
    if kind == "Replace":
        literal, expression = normalizer["pattern"].get("String"), normalizer["pattern"].get("Regex")
        plain = literal is not None and not any(c.isalnum() or c in CLOSING for c in literal)
        return plain or expression in LOCAL_REPLACEMENTS
    return kind in LOCAL_NORMALIZERS


def _split(splitters: list[dict[str, Any]], white: str) -> tuple[bool | None, str]:
    """(whether a piece ends in front of `white` at a joint, None where that is not known; what `white` becomes)."""
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
        else:  # an end stays one whatever the others do to the pieces; without one, these are known to make none
            ends = False
            literal = kind == "Split" and splitter["pattern"] == {"String": " "} and white == "▁"
            if not (literal or kind == "Digits" or (kind == "Punctuation" and splitter["behavior"] == "Isolated")):
                return None, white
        if ends:
            return True, white
    return False, white


def _expression(splitters: list[dict[str, Any]]) -> str | None:
    """The regular expression by which byte-level tokenizers split, behind the splitting of digits, if it is a local one."""
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
    """What stands between the `|` of a regular expression that are in no group."""
    found, depth = [""], 0
    for token in re.findall(r"\\.|\[(?:\\.|[^\]])*\]|.", expression, re.DOTALL):
        depth += (token == "(") - (token == ")")
        if token == "|" and not depth:
            found.append("")
        else:
            found[-1] += token
    return set(found)


def _keeps_words_apart(model: dict[str, Any]) -> bool:
    """Whether no entry of the vocabulary reaches across the `▁` that begins a word, and that is one itself."""
    if model["type"] == "BPE":
        if model["ignore_merges"] or model["continuing_subword_prefix"] or model["end_of_word_suffix"]:
            return False
        entries = model["vocab"]
    elif model["type"] == "Unigram":
        entries = {entry for entry, _ in model["vocab"]}
    else:
        return False
    return "▁" in entries and not any(re.search("[^▁]▁", entry) for entry in entries)
