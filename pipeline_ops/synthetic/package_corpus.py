"""A small real corpus without a network: passages of the installed Python packages, each of a known kind.

Offline demo only: installed files -> training and held-out tables with columns `text`, `kind`, `package`, `path`. The
kind follows from where a passage stands, never from reading it. Held-out passages come from packages that no training
passage comes from, and no text stands in both tables. The same installation gives the same tables; about 5 s.
"""

import ast
import csv
import hashlib
import os
import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import NamedTuple
from zlib import crc32

import pyarrow as pa

KINDS = ("code", "data", "license", "prose")
SCHEMA = pa.schema([(name, pa.string()) for name in ("text", "kind", "package", "path")])

CODE_SUFFIXES = {".py", ".pyi", ".pyx", ".c", ".cc", ".cpp", ".h", ".hpp", ".js"}
DATA_SUFFIXES = {".json", ".yaml", ".yml", ".toml", ".cfg", ".ini", ".csv", ".xml"}
DATA_NAMES = {"RECORD", "entry_points.txt"}
PROSE_SUFFIXES = {".md", ".rst"}
LICENSE_NAME = re.compile(r"(un)?licen[cs]e|copying|notice|copyright", re.IGNORECASE)
# copies of other packages, which may stand on the other side; and what only looks like its kind
SKIPPED = re.compile(r"vendor|third_?party|extern|template", re.IGNORECASE)

OWN_PACKAGE = "label-corpus"  # left out: the corpus would change with every edit of the project
# Files read per package: torch alone has 12,000 of code, and parsing is what takes the time. Licenses repeat from
# package to package, so every one of them is needed.
MAX_FILES = {"code": 16, "data": 64, "license": 10_000, "prose": 64}
MAX_PASSAGES = 300  # per package and kind: numpy's tables of test values are no third of what data looks like
MAX_FILE_BYTES = {"code": 60_000, "data": 60_000, "license": 200_000, "prose": 60_000}
LINES_PER_CUT = {"code": 12, "data": 12, "license": 4, "prose": 12}  # licenses are few: smaller passages, more of them
SPLIT_SEED = 42  # one of the few in 300 that leave about as many passages of each kind, JSON and YAML on both sides
MAX_LINE = 1000  # characters; a longer line (minified JSON) is cut


class Passage(NamedTuple):
    text: str
    kind: str
    package: str
    path: str  # relative to the folder that packages are installed in, "/" between the parts


def collect_passages(*, max_training: int, max_held_out: int, folders: list[str] | None = None) -> tuple[pa.Table, pa.Table]:
    """Passages of the installed packages, split by package and balanced over the kinds as far as they reach.

    Args:
        folders: where packages are installed; default: all of this interpreter's.

    Returns:
        Training and held-out tables of at most `max_training` and `max_held_out` rows: `text`, `kind` (one of KINDS),
        `package` and `path`, all string; rows in a fixed mixed order.
    """
    training: list[Passage] = []
    held_out: list[Passage] = []
    seen: set[str] = set()
    for package, (folder, paths) in _installed_packages(sys.path if folders is None else folders).items():
        side = training if is_training_package(package) else held_out
        for passage in _package_passages(package, folder, paths):
            key = _comparable(passage.text)
            if key not in seen:  # the first package keeps a text: many licenses are the same words everywhere
                seen.add(key)
                side.append(passage)
    return _to_table(_balance(training, max_training)), _to_table(_balance(held_out, max_held_out))


def is_training_package(package: str) -> bool:
    """Which side a package stands on, by a hash of its name: the same on every machine."""
    return hashlib.sha256(f"{package}{SPLIT_SEED}".encode()).digest()[0] % 2 == 0


def fingerprint(folders: list[str] | None = None) -> str:
    """SHA-256 of what decides the passages: the files that pip has installed, this module and the version of Python.

    Args:
        folders: of collect_passages.
    """
    with open(__file__, "rb") as module:
        digest = hashlib.sha256(sys.version.encode() + module.read())
    for _, record in sorted(_records(sys.path if folders is None else folders).values()):
        digest.update(record.encode())
    return digest.hexdigest()


def _installed_packages(folders: list[str]) -> dict[str, tuple[str, list[str]]]:
    """Each installed distribution's folder and files relative to it, sorted by name."""
    packages: dict[str, tuple[str, list[str]]] = {}
    for package, (folder, record) in sorted(_records(folders).items()):
        paths = sorted(row[0] for row in csv.reader(record.splitlines()) if row and not row[0].startswith(("..", "/")))
        packages[package] = (folder, paths)
    return packages


def _records(folders: list[str]) -> dict[str, tuple[str, str]]:
    """Each installed distribution's folder and pip's RECORD: a line of CSV per file, with its SHA-256."""
    records: dict[str, tuple[str, str]] = {}
    for distribution in metadata.distributions(path=folders):
        package = re.sub(r"[-_.]+", "-", distribution.name or "").lower()
        record = distribution.read_text("RECORD")
        if record is None or package in records or package in ("", OWN_PACKAGE):
            continue
        records[package] = (str(distribution.locate_file("")), record)
    return records


def _package_passages(package: str, folder: str, paths: list[str]) -> Iterator[Passage]:
    """The passages of one package, another file's each time as long as there are some, so that a cut keeps variety."""
    by_kind: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        kind = _kind_of_file(path)
        if kind is not None:
            by_kind[kind].append(path)
    ranked: list[tuple[int, int, Passage]] = []
    for kind in sorted(by_kind):
        for path in sorted(by_kind[kind], key=lambda path: crc32(path.encode()))[: MAX_FILES[kind]]:
            for part_kind, part in _parts(kind, path, _read_text(os.path.join(folder, path), MAX_FILE_BYTES[kind])):
                texts = sorted(cut_passages(part, LINES_PER_CUT[part_kind]), key=lambda text: crc32(text.encode()))
                passages = [Passage(text, part_kind, package, path) for text in texts]
                ranked += [(rank, crc32(path.encode()), passage) for rank, passage in enumerate(passages)]
    yield from (passage for _, _, passage in sorted(ranked))


def _kind_of_file(path: str) -> str | None:
    *folders, name = path.split("/")
    suffix = os.path.splitext(name)[1].lower()
    if SKIPPED.search(path) and not LICENSE_NAME.match(name):
        return None
    if suffix in CODE_SUFFIXES:
        return "code"
    if suffix in DATA_SUFFIXES or name in DATA_NAMES:
        return "data"
    if LICENSE_NAME.match(name) or ("licenses" in folders and not name.startswith("AUTHORS")):
        return "license"
    return "prose" if suffix in PROSE_SUFFIXES or name == "METADATA" else None


def _read_text(location: str, max_bytes: int) -> str:
    """The file's text; empty when it is missing, large or no UTF-8 text."""
    try:
        if os.path.getsize(location) > max_bytes:
            return ""
        with open(location, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError):
        return ""
    return "" if "\0" in text else text


def _parts(kind: str, path: str, source: str) -> Iterable[tuple[str, str]]:
    """A file's text by kind: a METADATA file is data, then prose; docstrings are prose inside code."""
    if path.endswith("/METADATA"):
        header, _, body = source.partition("\n\n")
        return [("data", header), ("prose", _without_code_blocks(body))]
    if kind == "code":
        code = _without_opening_comment(source)
        if len(code) > 200 * (code.count("\n") + 1):
            return []  # minified: nothing to cut at
        return _split_docstrings(code) if path.endswith((".py", ".pyi")) else [("code", code)]
    return [(kind, _without_code_blocks(source) if kind == "prose" else source)]


def _without_opening_comment(source: str) -> str:
    """Source without the comments it opens with: mostly the license, which is not what makes it code."""
    return re.sub(r"\A(\s*(#[^\n]*\n|//[^\n]*\n|/\*.*?\*/))+", "", source, flags=re.DOTALL)


def _without_code_blocks(document: str) -> str:
    """Documentation without its fenced examples, comments and raw HTML or badge lines."""
    document = re.sub(r"^( *)```.*?^\1```[^\n]*\n?", "", document, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"<!--.*?-->|^\s*(<|\[?!\[|\.\. |:\w+:)[^\n]*\n", "", document, flags=re.DOTALL | re.MULTILINE)


def _split_docstrings(source: str) -> list[tuple[str, str]]:
    """Python source as its code without docstrings, and each long docstring up to its first example."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's files
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    docstrings = _docstrings(tree)
    lines = source.splitlines(keepends=True)
    for node in docstrings:
        lines[node.lineno - 1 : node.end_lineno] = [""] * ((node.end_lineno or node.lineno) - node.lineno + 1)
    texts = [
        re.split(r"^\s*(?:>>>|```|\.\. |Examples?\b)|::\s*$", str(node.value), maxsplit=1, flags=re.MULTILINE)[0]
        for node in docstrings
    ]
    return [("code", "".join(lines)), *(("prose", text) for text in texts if len(text) >= 300)]


def _docstrings(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.Constant]:
    """The docstrings of a module and of what it defines, at any depth; `ast.walk` would take 3 s more."""
    found = []
    for place, statement in enumerate(node.body):
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found += _docstrings(statement)
        elif place == 0 and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            found += [statement.value] if isinstance(statement.value.value, str) else []
    return found


def cut_passages(text: str, lines_per_cut: int) -> list[str]:
    """Cuts at line ends into passages, most of 200 to 1,500 characters, some far shorter or longer.

    Each cut follows from the lines before it alone, so a text that stands in two files gives the same passages in both.
    About every `lines_per_cut`-th line may end a passage once it is long enough.
    """
    passages: list[str] = []
    passage, at_least, at_most = "", 0, 0
    for line in text.splitlines():
        for piece in re.findall(rf".{{1,{MAX_LINE}}}", line) or [""]:
            if not passage:
                if not piece.strip():
                    continue
                at_least, at_most = {0: (40, 200), 1: (3000, 8000)}.get(crc32(piece.encode()) % 50, (200, 1500))
            if passage and len(passage) + len(piece) > at_most:
                passages.append(passage.rstrip())
                passage = ""
            passage += piece + "\n"
            if len(passage) >= at_least and piece.strip() and crc32(piece.strip().encode()) % lines_per_cut == 0:
                passages.append(passage.rstrip())
                passage = ""
    if len(passage.rstrip()) >= 100:  # a shorter rest has too little text for its kind
        passages.append(passage.rstrip())
    return passages


def _comparable(text: str) -> str:
    """What two texts share that differ in case, white space and numbers (years, versions) only."""
    return re.sub(r"\d+", "0", " ".join(text.lower().split()))


def _balance(passages: list[Passage], max_passages: int) -> list[Passage]:
    """At most `max_passages`, as even over the kinds as they reach; within a kind each package in turn."""
    turns: defaultdict[tuple[str, str], int] = defaultdict(int)
    by_kind: dict[str, list[tuple[int, Passage]]] = {kind: [] for kind in KINDS}
    for passage in passages:
        turn = turns[passage.kind, passage.package]
        turns[passage.kind, passage.package] = turn + 1
        if turn < MAX_PASSAGES:
            by_kind[passage.kind].append((turn, passage))
    chosen: list[Passage] = []
    for kinds_left, ranked in zip(range(len(KINDS), 0, -1), sorted(by_kind.values(), key=len), strict=True):
        share = min((max_passages - len(chosen)) // kinds_left, max_passages // 3)  # code would fill any gap
        chosen += [passage for _, passage in sorted(ranked)[:share]]
    return sorted(chosen, key=lambda passage: (crc32(passage.text.encode()), passage))


def _to_table(passages: list[Passage]) -> pa.Table:
    return pa.Table.from_pylist([passage._asdict() for passage in passages], schema=SCHEMA)
