"""Pictures of attention for `label-corpus inspect --attention`: shaded text on the terminal, or as a PNG or SVG."""

import os
from collections.abc import Sequence
from typing import Any

from pipeline_ops.schema.errors import UserError

PICTURES = (".png", ".svg")
WIDTH = 90  # characters per line of a picture
POINTS = 9  # of its letters
CHARACTER_INCHES = 0.602 * POINTS / 72  # a letter of DejaVu Sans Mono, which matplotlib ships, is 0.602 of its size wide
STRONGEST = (255, 140, 0)  # orange, readable on light and dark terminals with black text


def pieces_of(tokens: Sequence[str], tokenizer: Any) -> list[str]:
    """Each token as a person reads it, with the space in front of it where it begins a word."""
    found = []
    word_pieces = any(token.startswith("##") for token in tokenizer.get_vocab())
    for token in tokens:
        if word_pieces:
            found.append(token.removeprefix("##") if token.startswith("##") else f" {token}")
        else:
            begins = token.startswith(("Ġ", "▁"))
            found.append(" " * begins + tokenizer.convert_tokens_to_string([token]).lstrip(" "))
    return found


def shaded(pieces: Sequence[str], shares: Sequence[float]) -> Any:
    """The pieces as a rich text: the larger a piece's share is against the largest one, the darker behind it."""
    from rich.text import Text

    text = Text()
    largest = max(shares, default=0) or 1
    for piece, share in zip(pieces, shares, strict=True):
        strength = share / largest
        word = piece.lstrip(" ")
        text.append(piece[: len(piece) - len(word)])
        color = "#{:02x}{:02x}{:02x}".format(*(round(255 - (255 - part) * strength) for part in STRONGEST))
        text.append(word, style=f"black on {color}" if strength > 0.02 else "")
    return text


def check_picture(path: str) -> None:
    """Raises UserError unless a picture can be written to `path`."""
    if not path.lower().endswith(PICTURES):
        raise UserError(f"--plot: {path!r} is no picture's name; end it in .png or .svg")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UserError(f"--plot: there is no folder {folder!r}; make it first")


def plot(path: str, title: str, windows: Sequence[tuple[Sequence[str], Sequence[float]]]) -> None:
    """Writes a picture of each window's pieces, shaded by their shares, to `path`; its suffix says the format."""
    from matplotlib.figure import Figure

    lines: list[list[tuple[str, float]]] = []
    for pieces, shares in windows:
        largest = max(shares, default=0) or 1
        lines.append([])
        used = 0
        for piece, share in zip(pieces, shares, strict=True):
            shown = piece.replace("\n", " ")
            if used + len(shown) > WIDTH and piece.startswith(" "):
                lines.append([])
                used = 0
            lines[-1].append((shown, share / largest))
            used += len(shown)
    figure = Figure(figsize=((WIDTH + 2) * CHARACTER_INCHES, 0.8 + 0.3 * len(lines)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, WIDTH + 2)
    axes.set_ylim(-len(lines) - 0.5, 1.5)
    axes.text(1, 0.5, title, fontsize=10, fontweight="bold", va="center")
    for row, line in enumerate(lines, 1):
        place = 1.0
        for shown, strength in line:
            box = {"facecolor": [1 - (1 - part / 255) * strength for part in STRONGEST], "edgecolor": "none", "pad": 1.0}
            word = shown.lstrip(" ")
            at = place + len(shown) - len(word)
            axes.text(at, -row, word, family="monospace", fontsize=POINTS, va="center", bbox=box, parse_math=False)
            place += len(shown)
    figure.savefig(path, dpi=150)
