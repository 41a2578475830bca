"""The commits of the outputs and of what is joined already -> the rows that are left to join, as units. Pure.

A row is joined once every output has committed it, under one version of its file. Only rows count: the outputs may have cut the
input in different ways, and compacted it since.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline_ops.output.commit_log import overlaps, pieces_by_file
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.units import END_OF_FILE, Piece, Unit, short_id
from pipeline_ops.writing.commit_record import Commit

UNIT_ROWS = 2**19
UNIT_BYTES = 32 * 2**20  # of the outputs' files, compressed; see joined_unit.MAX_BYTES
UNIT_PIECES = 1024  # keeps a commit record below a few hundred kilobytes

Interval = tuple[int, int]  # rows [start, stop) of a file; stop is END_OF_FILE for its last ones


@dataclass(frozen=True)
class Coverage:
    """The rows of one input file that an output has committed.

    Attributes:
        intervals: sorted, apart.
        stop_row: behind the last committed row.
        row_bytes: of the output's files, about.
    """

    identity: str
    intervals: tuple[Interval, ...]
    stop_row: int
    row_bytes: float = 0.0

    @property
    def num_rows(self) -> int:
        return sum(min(stop, self.stop_row) - start for start, stop in self.intervals)


@dataclass(frozen=True)
class Waiting:
    """What an output lacks of the rows that another one has; files of different versions not counted."""

    files: int
    rows: int


@dataclass(frozen=True)
class JoinPlan:
    """The work of a join.

    Attributes:
        changed: input files whose joined rows are of an earlier version.
        removed: input files with joined rows that an output no longer has.
        stale: {joined unit: its input files whose rows leave it}.
        waiting: per output.
        other_versions: input files of which the outputs have labeled different versions.
    """

    units: tuple[Unit, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    stale: dict[str, tuple[str, ...]]
    waiting: tuple[Waiting, ...]
    other_versions: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every output has all rows that any of them has."""
        return not self.other_versions and not any(one.files for one in self.waiting)


def plan_join(outputs: Sequence[Sequence[Commit]], joined: Sequence[Commit], fingerprint: str) -> JoinPlan:
    """Compares what the outputs have committed with what is joined.

    Joined rows of a file that has changed stay until all outputs have labeled some of its new rows; those of a file that an
    output no longer has leave the joined one.

    Args:
        outputs: the current commits of each.
        joined: the current commits of the joined output.
        fingerprint: of the joined output.

    Raises:
        UserError: no input file in common.
        OSError: an output's commits violate the protocol.
    """
    coverages = [coverage_of(commits) for commits in outputs]
    common = set.intersection(*(set(coverage) for coverage in coverages))
    if not common:
        raise UserError(
            "the outputs have no input file in common: the first has"
            f" {min(coverages[0], default=None)!r}, the second {min(coverages[1], default=None)!r}; give outputs of one input,"
            " labeled from the same path"
        )
    done = coverage_of(joined)
    to_join: dict[str, list[Interval]] = {}
    other_versions, changed = [], []
    for path in sorted(common):
        found = [coverage[path] for coverage in coverages]
        if len({one.identity for one in found}) > 1:
            other_versions.append(path)
            continue
        rows = list(found[0].intervals)
        for one in found[1:]:
            rows = intersection(rows, one.intervals)
        if path in done and done[path].identity == found[0].identity:
            rows = difference(rows, done[path].intervals)
        elif path in done and rows:
            changed.append(path)
        if rows:
            to_join[path] = rows
    removed = sorted(done.keys() - common)
    stale = _stale(joined, coverages[0], {*changed}, {*removed})
    return JoinPlan(
        units=tuple(_units(to_join, coverages, joined, stale, {*changed}, fingerprint)),
        changed=tuple(changed),
        removed=tuple(removed),
        stale=stale,
        waiting=tuple(_waiting(coverages, number, other_versions) for number in range(len(coverages))),
        other_versions=tuple(other_versions),
    )


def coverage_of(commits: Iterable[Commit]) -> dict[str, Coverage]:
    """The committed rows of each input file.

    Raises:
        OSError: rows stand twice, or a file has rows of two versions.
    """
    commits = list(commits)
    sizes: dict[str, float] = defaultdict(float)
    for commit in commits:
        rows = sum(piece.stop_row - piece.start_row for piece in commit.pieces)
        row_bytes = sum(file.bytes for file in commit.files) / max(rows, 1)
        for piece in commit.pieces:
            sizes[piece.path] += row_bytes * (piece.stop_row - piece.start_row)
    found = {}
    for path, pieces in pieces_by_file(commits).items():
        identities = {piece.identity for piece in pieces}
        if overlaps(pieces) or len(identities) > 1:
            raise OSError(f"{path}: rows of it are committed twice; `label-corpus verify` says which")
        coverage = Coverage(identities.pop(), tuple(_intervals(pieces)), pieces[-1].stop_row)
        found[path] = Coverage(
            coverage.identity, coverage.intervals, coverage.stop_row, sizes[path] / max(coverage.num_rows, 1)
        )
    return found


def _intervals(pieces: Iterable[Piece]) -> list[Interval]:
    """The rows of pieces in row order, adjacent ones together."""
    found: list[Interval] = []
    for piece in pieces:
        stop = END_OF_FILE if piece.last else piece.stop_row
        if found and found[-1][1] >= piece.start_row:
            found[-1] = (found[-1][0], max(found[-1][1], stop))
        else:
            found.append((piece.start_row, stop))
    return found


def intersection(left: Iterable[Interval], right: Sequence[Interval]) -> list[Interval]:
    """The rows that are in both."""
    found = [(max(a[0], b[0]), min(a[1], b[1])) for a in left for b in right]
    return sorted((start, stop) for start, stop in found if start < stop)


def difference(left: Iterable[Interval], right: Sequence[Interval]) -> list[Interval]:
    """The rows of `left` that are not in `right`, whose intervals are sorted."""
    found = []
    for start, stop in left:
        for gone_start, gone_stop in right:
            if gone_start > start:
                found.append((start, min(stop, gone_start)))
            start = max(start, gone_stop)
            if start >= stop:
                break
        if start < stop:
            found.append((start, stop))
    return [(start, stop) for start, stop in found if start < stop]


def _stale(
    joined: Iterable[Commit], now: dict[str, Coverage], changed: Collection[str], removed: Collection[str]
) -> dict[str, tuple[str, ...]]:
    found = {}
    for commit in joined:
        gone = {
            piece.path
            for piece in commit.pieces
            if piece.path in removed or (piece.path in changed and piece.identity != now[piece.path].identity)
        }
        if gone:
            found[commit.unit] = tuple(sorted(gone))
    return found


def _waiting(coverages: Sequence[dict[str, Coverage]], number: int, other_versions: Collection[str]) -> Waiting:
    files = rows = 0
    for path in {path for coverage in coverages for path in coverage} - {*other_versions}:
        own = coverages[number].get(path)
        missing: list[Interval] = []
        stop_row = 0
        for other in (coverage[path] for coverage in coverages if path in coverage):
            missing += difference(difference(other.intervals, own.intervals if own else ()), sorted(missing))
            stop_row = max(stop_row, other.stop_row)
        files += bool(missing)
        rows += sum(max(min(stop, stop_row) - start, 0) for start, stop in missing)
    return Waiting(files, rows)


def _units(
    to_join: dict[str, list[Interval]],
    coverages: Sequence[dict[str, Coverage]],
    joined: Sequence[Commit],
    stale: dict[str, tuple[str, ...]],
    changed: Collection[str],
    fingerprint: str,
) -> Iterator[Unit]:
    """Units of about UNIT_BYTES, in the order of the input."""
    outdated: dict[str, list[str]] = defaultdict(list)
    for commit in joined:
        for path in stale.get(commit.unit, ()):
            if path in changed:
                outdated[path].append(commit.name)
    pieces: list[Piece] = []
    filled = 0.0  # share of a unit
    for path, intervals in to_join.items():
        found = [coverage[path] for coverage in coverages]
        most = max(1, int(min(UNIT_ROWS, UNIT_BYTES / max(sum(one.row_bytes for one in found), 1e-9))))
        end = max(one.stop_row for one in found)
        for start, stop in intervals:
            last = stop == END_OF_FILE
            stop = end if last else stop
            while True:
                cut = min(stop, start + max(1, int((1 - filled) * most)))
                pieces.append(Piece(path, found[0].identity, start, cut, last and cut == stop))
                filled += (cut - start) / most
                if cut == stop:
                    break
                yield unit_of(pieces, _replaced(pieces, outdated), fingerprint)
                pieces, filled, start = [], 0.0, cut
            if filled >= 1 or len(pieces) == UNIT_PIECES:
                yield unit_of(pieces, _replaced(pieces, outdated), fingerprint)
                pieces, filled = [], 0.0
    if pieces:
        yield unit_of(pieces, _replaced(pieces, outdated), fingerprint)


def _replaced(pieces: Iterable[Piece], outdated: dict[str, list[str]]) -> tuple[str, ...]:
    return tuple(sorted({name for piece in pieces for name in outdated.get(piece.path, ())}))


def unit_of(pieces: Iterable[Piece], replaces: tuple[str, ...], fingerprint: str) -> Unit:
    """The unit of these pieces."""
    pieces = tuple(pieces)
    identity = [[piece.path, piece.identity, piece.start_row, piece.stop_row, piece.last] for piece in pieces]
    return Unit(short_id(["joined", fingerprint, identity, replaces]), pieces, replaces)


def halves(unit: Unit, fingerprint: str) -> list[Unit]:
    """The unit in two with about half of its rows each; [] for a single row."""
    rows = sum(piece.stop_row - piece.start_row for piece in unit.pieces)
    sides: tuple[list[Piece], list[Piece]] = ([], [])
    left = rows // 2
    for piece in unit.pieces:
        middle = piece.start_row + min(left, piece.stop_row - piece.start_row)
        left -= middle - piece.start_row
        if middle == piece.stop_row:
            sides[0].append(piece)
        elif middle == piece.start_row:
            sides[1].append(piece)
        else:
            sides[0].append(Piece(piece.path, piece.identity, piece.start_row, middle, False))
            sides[1].append(Piece(piece.path, piece.identity, middle, piece.stop_row, piece.last))
    return [unit_of(side, unit.replaces, fingerprint) for side in sides] if all(sides) else []
