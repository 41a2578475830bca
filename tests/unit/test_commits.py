"""Commits: what is done, what is open, which files count."""

from pathlib import Path

import pytest

from pipeline_ops.commits import (
    commit_unit,
    current_commits,
    gaps,
    overlaps,
    pieces_by_file,
    read_commits,
    read_job,
    sweep,
    unreferenced_files,
    write_job,
)
from pipeline_ops.schema import Piece, Range
from pipeline_ops.storage import StorageConfig
from pipeline_ops.writing import Commit, WrittenFile

STORAGE = StorageConfig()
UNIT, OTHER_UNIT = "a" * 24, "b" * 24
ATTEMPT, OTHER_ATTEMPT = "1" * 12, "2" * 12


def commit_of(
    unit: str = UNIT, attempt: str = ATTEMPT, identity: str = "v1", path: str = "a.jsonl", replaces: tuple[str, ...] = ()
) -> Commit:
    """A commit of a unit with two data files and a rejects file."""
    name = f"{unit}-{attempt}"
    files = tuple(WrittenFile(f"label={label}/{name}.parquet", 2, 4) for label in ("NEGATIVE", "POSITIVE"))
    rejects = WrittenFile(f"_rejects/{name}.jsonl", 1, 4)
    piece = Piece(path, identity, 0, 5, True)
    return Commit(unit, attempt, (piece,), files, rejects, 4, 1, 20, 24, 0, {"NEGATIVE": 2, "POSITIVE": 2}, replaces=replaces)


def write_files(output: Path, *commits: Commit) -> None:
    for commit in commits:
        for file in commit.all_files():
            (output / file.path).parent.mkdir(parents=True, exist_ok=True)
            (output / file.path).write_bytes(b"data")


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def piece(start: int, stop: int, last: bool = False) -> Piece:
    return Piece("a", "v1", start, stop, last, 10 * start, 10 * stop)


def test_commit_as_json_comes_back_the_same() -> None:
    commit = commit_of(replaces=(OTHER_UNIT,))
    assert Commit.from_json(commit.to_json()) == commit
    assert commit.documents == 5


def test_commit_of_a_unit_can_be_read_back(tmp_path: Path) -> None:
    assert commit_unit(commit_of(), str(tmp_path), STORAGE)
    assert read_commits(str(tmp_path), STORAGE) == {UNIT: commit_of()}


def test_commit_of_a_second_attempt_loses_and_changes_nothing(tmp_path: Path) -> None:
    assert commit_unit(commit_of(), str(tmp_path), STORAGE)
    assert not commit_unit(commit_of(attempt=OTHER_ATTEMPT), str(tmp_path), STORAGE)
    assert read_commits(str(tmp_path), STORAGE) == {UNIT: commit_of()}


def test_commit_put_again_after_a_lost_answer_is_ours(tmp_path: Path) -> None:
    assert commit_unit(commit_of(), str(tmp_path), STORAGE)
    assert commit_unit(commit_of(), str(tmp_path), STORAGE)


def test_commits_of_a_new_output_are_none(tmp_path: Path) -> None:
    assert read_commits(str(tmp_path / "new"), STORAGE) == {}
    assert read_job(str(tmp_path / "new"), STORAGE) is None
    assert not (tmp_path / "new").exists()


def test_job_record_can_be_read_back(tmp_path: Path) -> None:
    write_job({"fingerprint": "ü", "settings": {"model.max_length": 512}}, str(tmp_path / "out"), STORAGE)
    assert read_job(str(tmp_path / "out"), STORAGE) == {"fingerprint": "ü", "settings": {"model.max_length": 512}}


def test_current_commits_leave_out_replaced_ones() -> None:
    old = commit_of()
    new = commit_of(OTHER_UNIT, identity="v2", replaces=(old.name,))
    assert current_commits({UNIT: old, OTHER_UNIT: new}) == {OTHER_UNIT: new}


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([], [Range(0, None)]),
        ([piece(0, 5, last=True)], []),
        ([piece(0, 0, last=True)], []),
        ([piece(0, 5)], [Range(5, None, 50)]),
        ([piece(5, 9, last=True)], [Range(0, 5, 0, 50)]),
        ([piece(0, 2), piece(5, 7)], [Range(2, 5, 20, 50), Range(7, None, 70)]),
        ([piece(0, 5), piece(5, 5, last=True)], []),
        ([piece(0, 5), piece(3, 9, last=True)], []),
    ],
)
def test_gaps_are_what_the_pieces_leave_open(pieces: list[Piece], expected: list[Range]) -> None:
    assert gaps(pieces) == expected


def test_pieces_by_file_are_in_row_order() -> None:
    commits = [commit_of("c" * 24), commit_of(path="b.jsonl")]
    late = Commit(**{**vars(commits[0]), "unit": "d" * 24, "pieces": (Piece("a.jsonl", "v1", 9, 12, False),)})
    found = pieces_by_file([late, *commits])
    assert [(one.start_row, one.stop_row) for one in found["a.jsonl"]] == [(0, 5), (9, 12)]
    assert len(found["b.jsonl"]) == 1


def test_overlaps_name_rows_committed_twice() -> None:
    assert overlaps([piece(0, 5), piece(5, 9, last=True)]) == []
    assert overlaps([piece(0, 5), piece(3, 9)]) == [(piece(0, 5), piece(3, 9))]


def test_overlaps_find_a_piece_inside_a_longer_earlier_one() -> None:
    assert overlaps([piece(0, 10), piece(5, 6), piece(10, 11)]) != []


def test_sweep_removes_exactly_what_no_commit_names(tmp_path: Path) -> None:
    counted, lost, unfinished = commit_of(), commit_of(attempt=OTHER_ATTEMPT), commit_of(OTHER_UNIT)
    write_files(tmp_path, counted, lost, unfinished)
    commit_unit(counted, str(tmp_path), STORAGE)
    (tmp_path / "label=POSITIVE" / ".incomplete-0123").write_bytes(b"half")
    commits = read_commits(str(tmp_path), STORAGE)
    expected = {file.path for file in counted.all_files()} | {f"_commits/{UNIT}.json"}
    garbage = files_below(tmp_path) - expected

    assert set(unreferenced_files(str(tmp_path), commits, STORAGE)) == garbage
    assert sweep(str(tmp_path), commits, STORAGE) == len(garbage)
    assert files_below(tmp_path) == expected
    assert unreferenced_files(str(tmp_path), commits, STORAGE) == []


def test_sweep_removes_replaced_commits_and_their_files(tmp_path: Path) -> None:
    old = commit_of()
    new = commit_of(OTHER_UNIT, identity="v2", replaces=(old.name,))
    write_files(tmp_path, old, new)
    for commit in (old, new):
        commit_unit(commit, str(tmp_path), STORAGE)
    commits = read_commits(str(tmp_path), STORAGE)
    sweep(str(tmp_path), commits, STORAGE)
    assert commits == {OTHER_UNIT: new}
    assert files_below(tmp_path) == {file.path for file in new.all_files()} | {f"_commits/{OTHER_UNIT}.json"}


def test_sweep_never_touches_foreign_files(tmp_path: Path) -> None:
    foreign = [
        "README.txt",
        "other.parquet",
        "_job.json",
        "_report/report.html",
        "_rejects/notes.jsonl",
        "label=POSITIVE/mine.parquet",
        "label=POSITIVE/_SUCCESS",
        f"backup/{UNIT}-{ATTEMPT}.parquet",
        "_commits/notes.txt",
    ]
    for name in foreign:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"mine")
    assert sweep(str(tmp_path), {}, STORAGE) == 0
    assert files_below(tmp_path) == set(foreign)


def test_sweep_without_partitions_removes_unreferenced_files_beside_foreign_ones(tmp_path: Path) -> None:
    for name in (f"{UNIT}-{ATTEMPT}.parquet", f"{UNIT}-{OTHER_ATTEMPT}.parquet", "mine.parquet"):
        (tmp_path / name).write_bytes(b"data")
    counted = Commit(**{**vars(commit_of()), "files": (WrittenFile(f"{UNIT}-{ATTEMPT}.parquet", 1, 4),), "rejects_file": None})
    assert sweep(str(tmp_path), {UNIT: counted}, STORAGE) == 1
    assert files_below(tmp_path) == {f"{UNIT}-{ATTEMPT}.parquet", "mine.parquet"}


def test_sweep_of_a_new_output_does_nothing(tmp_path: Path) -> None:
    assert sweep(str(tmp_path / "new"), {}, STORAGE) == 0
    assert not (tmp_path / "new").exists()


def test_sweep_after_an_input_went_back_to_its_first_version_keeps_the_newest_commit(tmp_path: Path) -> None:
    """On object storage the first content has the first etag again, and so the unit its first id."""
    output = str(tmp_path)
    first = commit_of()
    second = commit_of(OTHER_UNIT, identity="v2", replaces=(first.name,))
    again = commit_of(attempt=OTHER_ATTEMPT, replaces=(second.name,))
    for commit in (first, second, again):
        write_files(tmp_path, commit)
        assert commit_unit(commit, output, STORAGE)
        sweep(output, read_commits(output, STORAGE), STORAGE)
    assert current_commits(read_commits(output, STORAGE)) == {UNIT: again}
    assert {file.path for file in again.all_files()} <= files_below(tmp_path)
