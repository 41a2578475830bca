"""Align the commits of two outputs over the same input: which of them to read together to join their rows. Pure.

Commits whose pieces overlap in the input are joined together, however the two runs split their input and whatever was compacted
since. A group that is too large for memory is joined in slices by input rows.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from pipeline_ops.schema.errors import UserError
from pipeline_ops.writing.commit_record import Commit

BY_PATH = "path"
BELOW_THE_INPUT = "path below the input"
Position = tuple[str, int]  # (name of an input file, row)


@dataclass(frozen=True)
class FileMatching:
    """How input files of A and B are matched: by name, the path without the side's root."""

    by: str
    root_a: str
    root_b: str
    changed: frozenset[str]  # names of files whose identity differs between A and B

    def names_of(self, side: int, commit: Commit) -> list[str]:
        """The name of each piece's file; `side` is 0 for A, 1 for B."""
        root = (self.root_a, self.root_b)[side]
        return [piece.path.removeprefix(root) for piece in commit.pieces]


@dataclass(frozen=True)
class JoinPart:
    """Commits to read and join together, restricted to input rows in [low, high); None: unbounded."""

    a: tuple[Commit, ...]
    b: tuple[Commit, ...]
    low: Position | None = None
    high: Position | None = None


@dataclass(frozen=True)
class Alignment:
    """The parts to join, and the commits (of A, of B) that share no rows with the other output and need not be read."""

    parts: tuple[JoinPart, ...]
    unmatched: tuple[tuple[Commit, ...], tuple[Commit, ...]]


def match_inputs(a: Sequence[Commit], b: Sequence[Commit], input_a: str, input_b: str) -> FileMatching:
    """Match files by path or, if no path is in both outputs and input.path differs, by the path below input.path.

    Args:
        a, b: all commits of the two outputs.
        input_a, input_b: the jobs' input.path; a file, a folder or a glob.

    Raises:
        UserError: no input file in common.
    """
    found_a, found_b = _identities(a), _identities(b)
    if found_a.keys() & found_b.keys():
        changed = frozenset(name for name in found_a.keys() & found_b.keys() if found_a[name] != found_b[name])
        return FileMatching(BY_PATH, "", "", changed)
    root_a, root_b = _root(input_a, found_a), _root(input_b, found_b)
    below = {path.removeprefix(root_a) for path in found_a} & {path.removeprefix(root_b) for path in found_b}
    if root_a != root_b and below:  # identities of copies differ anyway: modification times, multipart etags
        return FileMatching(BELOW_THE_INPUT, root_a, root_b, frozenset())
    raise UserError(
        f"A and B have no input file in common: A has {min(found_a)!r}, B {min(found_b)!r}; give two outputs of the same input"
    )


def _identities(commits: Iterable[Commit]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for commit in commits:
        for piece in commit.pieces:
            found[piece.path].add(piece.identity)
    return found


def _root(path: str, files: Iterable[str]) -> str:
    """The folder of input.path, with a trailing slash."""
    before_glob = min((path.index(character) for character in "*?[" if character in path), default=len(path))
    if before_glob < len(path) or path in files:
        return path[: path[:before_glob].rfind("/") + 1]
    return path.rstrip("/") + "/"


def align(a: Sequence[Commit], b: Sequence[Commit], matching: FileMatching, documents: int) -> Alignment:
    """Group overlapping commits into parts of limited size.

    Args:
        documents: approximate maximum per output and part; larger groups are joined in slices.
    """
    parts: list[JoinPart] = []
    unmatched: tuple[list[Commit], list[Commit]] = ([], [])
    pending = JoinPart((), ())  # small groups, joined in one part
    for group in _groups(a, b, matching):
        if not (group.a and group.b):
            unmatched[0].extend(group.a)
            unmatched[1].extend(group.b)
            continue
        if _size(group) > documents:
            parts += _slices(group, matching, documents)
            continue
        together = JoinPart((*pending.a, *group.a), (*pending.b, *group.b))
        if _size(together) > documents:
            parts.append(pending)
            together = group
        pending = together
    if pending.a or pending.b:
        parts.append(pending)
    return Alignment(tuple(parts), (tuple(unmatched[0]), tuple(unmatched[1])))


def _size(part: JoinPart) -> int:
    return max(sum(commit.labeled for commit in part.a), sum(commit.labeled for commit in part.b))


def _groups(a: Sequence[Commit], b: Sequence[Commit], matching: FileMatching) -> Iterator[JoinPart]:
    """Connected components of commits that overlap in rows of the input, by union-find over sorted row intervals.

    A commit without overlap is a group of its own. Changed files are ignored.
    """
    commits = [(0, commit) for commit in a] + [(1, commit) for commit in b]
    intervals: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for number, (side, commit) in enumerate(commits):
        for name, piece in zip(matching.names_of(side, commit), commit.pieces, strict=True):
            if name not in matching.changed and piece.stop_row > piece.start_row:
                intervals[name].append((piece.start_row, piece.stop_row, number))
    parent = list(range(len(commits)))

    def find_root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for rows in intervals.values():
        rows.sort()
        furthest_stop, last = -1, 0
        for start, stop, number in rows:
            if start < furthest_stop:
                parent[find_root(number)] = find_root(last)
            if stop > furthest_stop:
                furthest_stop, last = stop, number
    members: dict[int, tuple[list[Commit], list[Commit]]] = defaultdict(lambda: ([], []))
    for number, (side, commit) in enumerate(commits):
        members[find_root(number)][side].append(commit)
    for commits_a, commits_b in members.values():
        yield JoinPart(tuple(commits_a), tuple(commits_b))


def _slices(group: JoinPart, matching: FileMatching, documents: int) -> Iterator[JoinPart]:
    """Split a large group into ranges of input rows, each with the commits that have rows in it."""
    side = 0 if sum(commit.labeled for commit in group.a) >= sum(commit.labeled for commit in group.b) else 1
    bounds = [None, *_slice_bounds((group.a, group.b)[side], side, matching, documents), None]
    for low, high in pairwise(bounds):
        part = replace(group, low=low, high=high)
        yield replace(
            part,
            a=tuple(commit for commit in group.a if _overlaps(commit, 0, matching, part)),
            b=tuple(commit for commit in group.b if _overlaps(commit, 1, matching, part)),
        )


def _slice_bounds(commits: Iterable[Commit], side: int, matching: FileMatching, documents: int) -> list[Position]:
    """Positions with about `documents` documents between each two."""
    runs = sorted(
        (name, piece.start_row, min(piece.stop_row, piece.start_row + commit.documents))  # stop_row may be END_OF_FILE
        for commit in commits
        for name, piece in zip(matching.names_of(side, commit), commit.pieces, strict=True)
    )
    bounds, count = [], 0
    for name, start, stop in runs:
        while count + stop - start > documents:
            start += documents - count
            bounds.append((name, start))
            count = 0
        count += stop - start
    return bounds


def _overlaps(commit: Commit, side: int, matching: FileMatching, part: JoinPart) -> bool:
    return any(
        (part.high is None or (name, piece.start_row) < part.high) and (part.low is None or (name, piece.stop_row) > part.low)
        for name, piece in zip(matching.names_of(side, commit), commit.pieces, strict=True)
    )
