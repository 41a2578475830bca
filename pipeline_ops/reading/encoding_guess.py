"""The encodings of a sample of line files: a guess for `init`, and what input.encoding=auto makes of them."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.file_formats import LINE_FORMATS
from pipeline_ops.inputs.input_files import InputFile, evenly_spread
from pipeline_ops.line_formats.decoding import Decoding, beginning_of, decoding_of
from pipeline_ops.line_formats.text_encoding import guessed_encoding, has_byte_order_mark, is_utf_8, unmarked_encoding
from pipeline_ops.schema.errors import UserError, is_store_fault
from pipeline_ops.storage.store import Store

SAMPLED_FILES = 8
MOST_NAMES = 3


def guess_encoding(files: Sequence[InputFile], store: Store) -> str | None:
    """What input.encoding should be: a codec, or "auto" where some line files are UTF-8; None for UTF-8 and marked ones.

    One guess is made for all files that are not UTF-8: more bytes make it a better one. Files that cannot be read are skipped.
    """
    others, has_utf_8, unmarked = list[bytes](), False, set[str]()
    for file in _sample(files):
        try:
            head = beginning_of(file, store)
        except Exception as error:  # a broken file can make the decompressors raise anything
            if is_store_fault(error):
                raise
            continue
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
    """A sentence about the encodings that input.encoding=auto guesses for a sample of the line files, where there are any."""
    if config.encoding != "auto":
        return []
    sampled = _sample(files)
    guessed: dict[str, list[str]] = defaultdict(list)
    for file, decoding in _decodings(sampled, config, store):
        if decoding.encoding is not None and not decoding.has_byte_order_mark:
            guessed[decoding.encoding].append(file.path)
    parts = [
        f"{encoding} for {len(paths)} ({', '.join(path.rsplit('/', 1)[-1] for path in paths[:MOST_NAMES])}"
        f"{', ...' if len(paths) > MOST_NAMES else ''})"
        for encoding, paths in guessed.items()
    ]
    return [f"input.encoding=auto: of {len(sampled)} files looked at it guesses {', '.join(parts)}"] if parts else []


def _sample(files: Sequence[InputFile]) -> list[InputFile]:
    return evenly_spread([file for file in files if file.format in LINE_FORMATS and file.stored.size], SAMPLED_FILES)


def _decodings(files: Sequence[InputFile], config: InputConfig, store: Store) -> Iterator[tuple[InputFile, Decoding]]:
    for file in files:
        try:
            yield file, decoding_of(file, config, store)
        except Exception as error:  # a broken file can make the decompressors raise anything
            if is_store_fault(error):
                raise
