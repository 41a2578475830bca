"""The encodings of a sample of line files: a guess for `init`, and what input.encoding=auto makes of them."""

import codecs
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.file_formats import LINE_FORMATS
from pipeline_ops.inputs.input_files import InputFile, evenly_spread
from pipeline_ops.line_formats.decoding import beginning_of, decoding_of
from pipeline_ops.line_formats.text_encoding import UTF_8, guessed_encoding, has_byte_order_mark, is_utf_8, unmarked_encoding
from pipeline_ops.schema.errors import UserError, is_store_fault
from pipeline_ops.storage.store import Store

SAMPLED_FILES = 8
MOST_NAMES = 3
EXAMPLE = 60  # characters of a text that a remark shows
REMEDY = "input.encoding=NAME decides otherwise"

Content = TypeVar("Content")


def guess_encoding(files: Sequence[InputFile], store: Store) -> str | None:
    """What input.encoding should be: a codec, or "auto" where some line files are UTF-8; None for UTF-8 and marked ones.

    One guess is made for all files that are not UTF-8: more bytes make it a better one. Files that cannot be read are skipped.
    """
    others, has_utf_8, unmarked = list[bytes](), False, set[str]()
    for _, head in _each(_sample(files), lambda file: beginning_of(file, store)):
        if has_byte_order_mark(head):
            continue
        if (encoding := unmarked_encoding(head)) is not None:
            unmarked.add(encoding)
        elif is_utf_8(head):
            has_utf_8 |= not head.isascii()
        else:
            others.append(head)
    if not others:
        return unmarked.pop() if len(unmarked) == 1 and not has_utf_8 else None
    try:
        return "auto" if has_utf_8 else guessed_encoding(b"\n".join(others), "the sample")
    except UserError:  # no guess
        return None


def encoding_notes(files: Sequence[InputFile], config: InputConfig, store: Store) -> list[str]:
    """Sentences about a sample of the line files: what input.encoding=auto guesses, or which are UTF-8 against its codec."""
    if config.encoding is None or (config.encoding != "auto" and codecs.lookup(config.encoding).name in UTF_8):
        return []
    sampled = _sample(files)
    if config.encoding != "auto":
        named = [file.path for file, head in _each(sampled, lambda file: beginning_of(file, store)) if _is_surely_utf_8(head)]
        found = f"{len(named)} of {len(sampled)} sampled files can only be UTF-8 ({_names(named)})"
        return [f"input.encoding={config.encoding}, but {found}; auto goes by each file's bytes"] if named else []
    guessed: dict[str, list[InputFile]] = defaultdict(list)
    for file, decoding in _each(sampled, lambda file: decoding_of(file, config, store)):
        if decoding.encoding is not None and not decoding.has_byte_order_mark:
            guessed[decoding.encoding].append(file)
    parts = list[str]()
    for encoding, found in guessed.items():
        others = [_names([file.path for file in found[1:]])] if found[1:] else []
        parts.append(f"{encoding} for {len(found)} ({', '.join([_example(found[:1], encoding, store), *others])})")
    of = f"of {len(sampled)} sampled files it guesses"
    return [f"input.encoding=auto: {of} {', '.join(parts)}; {REMEDY}"] if parts else []


def guess_remark(files: Sequence[InputFile], encoding: str, store: Store) -> str:
    """A sentence about the encoding that guess_encoding() found for some files, with words that show whether it is right."""
    return f"encoding: {encoding} is a guess ({_example(_sample(files), encoding, store)}); {REMEDY}"


def _example(files: Sequence[InputFile], encoding: str, store: Store) -> str:
    """`old.csv: "Le café est très bon"`: the beginning of the first line that is not ASCII, of the first such file."""
    for file, head in _each(files, lambda file: beginning_of(file, store)):
        line = next((line for line in head.splitlines() if not line.isascii()), None)
        if line is None or has_byte_order_mark(head) or is_utf_8(head):
            continue
        text = " ".join(line.decode(encoding, "replace").split())
        place = next((index for index, character in enumerate(text) if character > "\x7f"), 0)
        start = text.rfind(" ", 0, max(place - EXAMPLE // 2, 0)) + 1 if len(text) > EXAMPLE else 0
        shown = text[start : start + EXAMPLE]
        return f'{_names([file.path])}: "{"…" if start else ""}{shown}{"…" if start + EXAMPLE < len(text) else ""}"'
    return "no example"


def _is_surely_utf_8(head: bytes) -> bool:
    """Whether bytes have characters that are UTF-8, which text in another encoding is by chance in a word at the most."""
    return not head.isascii() and not has_byte_order_mark(head) and is_utf_8(head)


def _names(paths: Sequence[str]) -> str:
    return ", ".join(path.rsplit("/", 1)[-1] for path in paths[:MOST_NAMES]) + (", ..." if len(paths) > MOST_NAMES else "")


def _sample(files: Sequence[InputFile]) -> list[InputFile]:
    return evenly_spread([file for file in files if file.format in LINE_FORMATS and file.stored.size], SAMPLED_FILES)


def _each(files: Sequence[InputFile], read: Callable[[InputFile], Content]) -> Iterator[tuple[InputFile, Content]]:
    """(file, what `read` returns) of the files that can be read."""
    for file in files:
        try:
            yield file, read(file)
        except Exception as error:  # a broken file can make the decompressors raise anything
            if is_store_fault(error):
                raise
