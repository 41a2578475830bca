"""Files among the input that look like no documents, and a glob that reads only the others.

By the listing: a suffix with few files or bytes beside another one. By a few kilobytes of some files: plain text whose lines
have one or two characters, such as `test_labels.txt` beside `test_text.txt`.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import median

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.file_formats import format_suffix
from pipeline_ops.inputs.input_files import InputFile, UnreadableInput, evenly_spread, readable_files
from pipeline_ops.inputs.passed_over import PassedOver, paths_of
from pipeline_ops.line_formats.decoding import open_lines
from pipeline_ops.storage.paths import join, matching
from pipeline_ops.storage.store import Store

FEW = 0.05  # of the files, or of the bytes, with another suffix
FEW_TEXTS = 0.2  # the same of plain text beside another format: each of its lines is a document, whatever it is
MANY_FORMATS = 4  # of files that people mix; where there are so many, few files of one are nothing odd
SHORT_LINE = 2  # characters
MAX_KINDS = 8  # of names; more are no system
SAMPLE_FILES, SAMPLE_BYTES = 3, 2**14  # per kind of name, decompressed


@dataclass(frozen=True)
class StrayFiles:
    """Files of one kind that look like no documents."""

    files: tuple[InputFile, ...]
    beside: tuple[InputFile, ...]  # those that they are few beside; or of which the lines are longer
    line_characters: float | None = None  # the median of their lines, where these are short


@dataclass(frozen=True)
class Strays:
    """All stray files of an input."""

    kinds: tuple[StrayFiles, ...]
    others: str | None  # a glob for all files but these; None if there is no simple one


def find_strays(
    files: Sequence[InputFile], passed_over: Sequence[PassedOver], config: InputConfig, store: Store
) -> Strays | None:
    """What looks odd among the input files; None if nothing does.

    Args:
        files, passed_over: as find_inputs() lists them.

    Raises:
        Exception: of the object store.
    """
    kinds = _few_of_a_suffix(files) if config.format == "auto" else []
    stray = {file.path for kind in kinds for file in kind.files}
    kinds += _short_lines([file for file in files if file.path not in stray and file.format == "text"], config, store)
    if not kinds:
        return None
    stray = {file.path for kind in kinds for file in kind.files}
    wanted = {file.path for file in files} - stray
    # a glob also matches hidden files and metadata, which a folder's listing leaves out
    return Strays(tuple(kinds), glob_of(config.path, wanted, [*wanted, *stray, *paths_of(passed_over)]))


def _few_of_a_suffix(files: Sequence[InputFile]) -> list[StrayFiles]:
    suffixes: dict[str, list[InputFile]] = defaultdict(list)
    for file in files:
        suffixes[format_suffix(file.path)].append(file)
    if len({file.format for file in files}) >= MANY_FORMATS:
        return []
    found = []
    for suffix, few in suffixes.items():
        many = [alike for other, alike in suffixes.items() if other != suffix and _are_few(few, alike)]
        if many:
            found.append(StrayFiles(tuple(few), tuple(max(many, key=_bytes))))
    return found


def _are_few(few: Sequence[InputFile], many: Sequence[InputFile]) -> bool:
    """Whether `few` are few by bytes, or by files beside such as are not few by bytes themselves."""
    share, share_of_many = _few_beside(few, many), _few_beside(many, few)
    if _bytes(few) <= share * _bytes(many):
        return True
    return len(few) <= share * len(many) and _bytes(many) > share_of_many * _bytes(few)


def _few_beside(files: Sequence[InputFile], others: Sequence[InputFile]) -> float:
    return FEW_TEXTS if files[0].format == "text" != others[0].format else FEW


def _bytes(files: Iterable[InputFile]) -> int:
    return sum(file.stored.size for file in files)


def _short_lines(files: Sequence[InputFile], config: InputConfig, store: Store) -> list[StrayFiles]:
    """Plain text whose lines are short beside files with other names whose lines are not; and what is small beside these."""
    kinds = _by_name(files)
    if len(kinds) < 2:
        return []
    lengths = {tail: _line_characters(alike, config, store) for tail, alike in kinds.items()}
    short = [tail for tail, length in lengths.items() if length is not None and length <= SHORT_LINE]
    long = [tail for tail, length in lengths.items() if length is not None and length > SHORT_LINE]
    if not short or not long:
        return []
    main = max(long, key=lambda tail: _bytes(kinds[tail]))
    beside = tuple(kinds[main])
    found = [StrayFiles(tuple(kinds[tail]), beside, lengths[tail]) for tail in short]
    small = [tail for tail in long if tail != main and _bytes(kinds[tail]) <= FEW * _bytes(beside)]
    return found + [StrayFiles(tuple(kinds[tail]), beside) for tail in small]


def _by_name(files: Sequence[InputFile]) -> Mapping[str, list[InputFile]]:
    """{end of the name: files}; {} where the names have no system."""
    kinds: dict[str, list[InputFile]] = defaultdict(list)
    for file in files:
        stem = file.path.rsplit("/", 1)[-1].split(".", 1)[0]
        kinds[re.sub(r"\d+", "", re.split(r"[_\- ]", stem)[-1])].append(file)
    if len(kinds) > MAX_KINDS:
        rest = [file for alike in kinds.values() if len(alike) == 1 for file in alike]
        kinds = defaultdict(list, {tail: alike for tail, alike in kinds.items() if len(alike) > 1})
        kinds[""] += rest
    return kinds if len(kinds) <= MAX_KINDS else {}


def _line_characters(files: Sequence[InputFile], config: InputConfig, store: Store) -> float | None:
    """The median length of some of the files' documents; None if there are none, or they cannot be read."""

    def beginning(file: InputFile) -> list[str]:
        with open_lines(file, config, store) as stream:
            content = stream.read(SAMPLE_BYTES).decode(errors="replace")
        return [content] if config.text_unit == "file" else content.splitlines()

    try:
        read = list(readable_files(evenly_spread(files, SAMPLE_FILES), beginning))
    except UnreadableInput:  # which the run quarantines
        return None
    lengths = [len(text.strip()) for _, texts in read for text in texts]
    return median(lengths) if lengths else None


def glob_of_columns(
    files: Sequence[InputFile], passed_over: Sequence[PassedOver], formats_with_column: Iterable[str], config: InputConfig
) -> str | None:
    """A glob for the files of the formats that have a column; if there is no simple one, for those of one of these formats.

    None without a format that names its columns: to plain text any name does.

    Args:
        files, passed_over: as find_inputs() lists them.
    """
    alike = {name: [file for file in files if file.format == name] for name in formats_with_column}
    named = sorted(alike.keys() - {"text"}, key=lambda name: _bytes(alike[name]), reverse=True)
    listed = [*(file.path for file in files), *paths_of(passed_over)]
    for formats in ([*alike], *([name] for name in named)) if named else ():
        glob = glob_of(config.path, {file.path for name in formats for file in alike[name]}, listed)
        if glob is not None:
            return glob
    return None


def glob_of(root: str, wanted: set[str], listed: Sequence[str]) -> str | None:
    """A glob below `root` that matches the wanted ones of all listed paths, and no other; None if there is no simple one.

    Args:
        root: input.path; of one that is a glob no other is made.
    """
    if not wanted or any(character in root for character in "*?["):
        return None
    if len(wanted) == 1:
        (path,) = wanted
        return None if any(character in path for character in "*?[") else path
    folder = root if all("/" not in path.removeprefix(join(root, "")) for path in wanted) else join(root, "**")
    names = [path.rsplit("/", 1)[-1] for path in wanted]
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*(reversed(name) for name in names), strict=False))
    common = "".join(letters[0] for letters in alike)[::-1]
    shortest = min((name[name.find(".") :] for name in names), key=len)
    patterns = [f"*{common[match.start() :]}" for match in re.finditer(r"[._\- ]", common)]
    patterns = [*reversed(patterns), f"*{shortest}*"]
    for pattern in patterns:
        glob = join(folder, pattern)
        if {*matching(glob, listed)} == wanted:
            return glob
    return None
