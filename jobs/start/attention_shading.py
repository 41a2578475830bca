"""Text shaded by attention, for `label-corpus inspect --attention` on a terminal."""

from collections.abc import Sequence
from typing import Any

HIGHLIGHT = (255, 140, 0)  # orange, readable on light and dark terminals with black text
MIN_SHARE = 0.02  # of the largest weight; lighter shades are left out


def readable_tokens(tokens: Sequence[str], tokenizer: Any) -> list[str]:
    """Each token as plain text, with a leading space where it begins a word."""
    word_pieces = any(token.startswith("##") for token in tokenizer.get_vocab())
    if word_pieces:
        return [token.removeprefix("##") if token.startswith("##") else f" {token}" for token in tokens]
    return [" " * token.startswith(("Ġ", "▁")) + tokenizer.convert_tokens_to_string([token]).lstrip(" ") for token in tokens]


def shade_tokens(tokens: Sequence[str], weights: Sequence[float]) -> Any:
    """The tokens as a rich Text; the background's saturation is the weight relative to the largest one."""
    from rich.text import Text

    text = Text()
    largest = max(weights, default=0) or 1
    for token, weight in zip(tokens, weights, strict=True):
        share = weight / largest
        word = token.lstrip(" ")
        text.append(token[: len(token) - len(word)])
        color = "#{:02x}{:02x}{:02x}".format(*(round(255 - (255 - channel) * share) for channel in HIGHLIGHT))
        text.append(word, style=f"black on {color}" if share > MIN_SHARE else "")
    return text
