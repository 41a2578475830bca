"""Commits: what is done, what is open, which files count."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.output.commit_log import (
    Ledger,
    commit_unit,
    current_commits,
    gaps,
    garbage_files,
    has_garbage,
    incomplete_files,
    overlaps,
    pieces_by_file,
    read_job,
    read_ledger,
    sweep,
    write_job,
    write_pack,
)
from pipeline_ops.output.lease import LeaseError
from pipeline_ops.schema.units import Piece, Range
from pipeline_ops.storage.store import Store, StoredFile
from pipeline_ops.writing.commit_record import ClassifySeconds, Commit, WrittenFile

UNIT, OTHER_UNIT = "a" * 24, "b" * 24
ATTEMPT, OTHER_ATTEMPT = "1" * 12, "2" * 12


def commit_of(
    unit: str = UNIT,
    attempt: str = ATTEMPT,
    identity: str = "v1",
    path: str = "a.jsonl",
    replaces: tuple[str, ...] = (),
    term: int = 1,
) -> Commit:
    """A commit of a unit with two data files and a rejects file."""
    name = f"{unit}-{attempt}"
    files = tuple(WrittenFile(f"label={label}/{name}.parquet", 2, 4, "md5") for label in ("NEGATIVE", "POSITIVE"))
    rejects = WrittenFile(f"_rejects/{name}.jsonl", 1, 4, "md5")
    piece = Piece(path, identity, 0, 5, True)
    labels = {"NEGATIVE": 2, "POSITIVE": 2}
    return Commit(unit, attempt, (piece,), files, rejects, 4, 1, 20, 24, 0, labels, replaces=replaces, term=term)


def commit_all(folder: str, *commits: Commit) -> Ledger:
    """Commits to an output, as one run does that has read its records just before."""
    ledger = read_ledger(Store(folder))
    for commit in commits:
        assert commit_unit(Store(folder), ledger, commit)
    return ledger


def nothing() -> None:
    """Stands for a lease that is held."""


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
    measured = replace(commit, classify_seconds=ClassifySeconds(0.5, 0.25, 2.0, 0.125), flops=1.5e12)
    assert Commit.from_json(measured.to_json()) == measured
    described = replace(
        commit, files=(replace(commit.files[0], statistics={"score": (0.1, 1.0, 0), "source_file": ("a", "é", 2)}),)
    )
    assert Commit.from_json(described.to_json()) == described
    assert hash(described.files[0]) == hash(commit.files[0])


def test_commits_of_versions_without_statistics_are_read_and_written_without_them() -> None:
    record = json.loads(commit_of().to_json())
    assert {*record["files"][0]} == {*record["rejects_file"]} == {"path", "rows", "bytes", "md5"}
    assert Commit.from_json(json.dumps(record)).files[0].statistics == {}


def test_classify_seconds_are_summed_by_part() -> None:
    assert ClassifySeconds.sum_of([ClassifySeconds(1, 2, 3, 4), ClassifySeconds(1, 0, 0, 0)]) == ClassifySeconds(2, 2, 3, 4)
    assert ClassifySeconds.sum_of([]) == ClassifySeconds()


def test_commit_of_a_unit_can_be_read_back(tmp_path: Path) -> None:
    commit_all(str(tmp_path), commit_of())
    assert read_ledger(Store(str(tmp_path))).commits == {UNIT: commit_of()}
    assert files_below(tmp_path) == {f"_commits/{UNIT}.json"}


def test_commit_of_a_second_attempt_loses_and_changes_nothing(tmp_path: Path) -> None:
    ledger = commit_all(str(tmp_path), commit_of())
    assert not commit_unit(Store(str(tmp_path)), ledger, commit_of(attempt=OTHER_ATTEMPT))
    assert read_ledger(Store(str(tmp_path))).commits == ledger.commits == {UNIT: commit_of()}


def test_commit_put_again_is_ours(tmp_path: Path) -> None:
    ledger = commit_all(str(tmp_path), commit_of())
    assert commit_unit(Store(str(tmp_path)), ledger, commit_of())


def test_commit_that_a_run_has_not_seen_ends_it(tmp_path: Path) -> None:
    """What a run that ended cleanly may still have had under way."""
    ledger = read_ledger(Store(str(tmp_path)))
    commit_all(str(tmp_path), commit_of())
    with pytest.raises(OSError, match=f"{UNIT}.json: a commit of another run"):
        commit_unit(Store(str(tmp_path)), ledger, commit_of(attempt=OTHER_ATTEMPT))
    assert read_ledger(Store(str(tmp_path))).commits == {UNIT: commit_of()}


def test_broken_record_is_an_error_that_names_it(tmp_path: Path) -> None:
    for content in (b"{", b"[]", b'{"unit": "a"}'):
        Store(str(tmp_path)).put(f"_commits/{UNIT}.json", content)
        with pytest.raises(OSError, match=f"{UNIT}.json is no commit record"):
            read_ledger(Store(str(tmp_path)))
    Store(str(tmp_path)).put("_commits/pack-0000000001.jsonl.zst", b"no zstd")
    with pytest.raises(OSError, match=r"pack-0000000001.* cannot be decompressed"):
        read_ledger(Store(str(tmp_path)))


def test_commits_of_a_new_output_are_none(tmp_path: Path) -> None:
    assert read_ledger(Store(str(tmp_path / "new"))).commits == {}
    assert read_job(Store(str(tmp_path / "new"))) is None
    assert not (tmp_path / "new").exists()


def test_job_record_can_be_read_back(tmp_path: Path) -> None:
    write_job(Store(str(tmp_path / "out")), {"fingerprint": "ü", "settings": {"model.max_length": 512}})
    assert read_job(Store(str(tmp_path / "out"))) == {"fingerprint": "ü", "settings": {"model.max_length": 512}}


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
    late = replace(commits[0], unit="d" * 24, pieces=(Piece("a.jsonl", "v1", 9, 12, False),))
    found = pieces_by_file([late, *commits])
    assert [(one.start_row, one.stop_row) for one in found["a.jsonl"]] == [(0, 5), (9, 12)]
    assert len(found["b.jsonl"]) == 1


def test_overlaps_name_rows_committed_twice() -> None:
    assert overlaps([piece(0, 5), piece(5, 9, last=True)]) == []
    assert overlaps([piece(0, 5), piece(3, 9)]) == [(piece(0, 5), piece(3, 9))]


def test_overlaps_find_a_piece_inside_a_longer_earlier_one() -> None:
    assert overlaps([piece(0, 10), piece(5, 6), piece(10, 11)]) != []


def test_incomplete_files_are_those_without_all_rows_of_their_present_version() -> None:
    paths = {"a.jsonl": "v1", "b.jsonl": "v2", "c.jsonl": "v1"}
    files = [InputFile(StoredFile(path, 1, identity), "jsonl", None) for path, identity in paths.items()]
    done = [commit_of(), commit_of(OTHER_UNIT, path="b.jsonl")]
    assert incomplete_files(files, {commit.unit: commit for commit in done}) == ["b.jsonl", "c.jsonl"]


def test_pack_holds_what_counts_and_voids_what_comes_late(tmp_path: Path) -> None:
    output = str(tmp_path)
    stalled = commit_all(output, commit_of())
    ledger = read_ledger(Store(output))
    write_pack(Store(output), ledger, 3)
    assert commit_unit(Store(output), stalled, commit_of(OTHER_UNIT, path="b.jsonl"))  # by the run that has lost its lease
    late = tmp_path / "_commits" / f"{OTHER_UNIT}.json"
    assert late.exists()
    assert read_ledger(Store(output)).commits == {UNIT: commit_of()}

    again = commit_of(OTHER_UNIT, OTHER_ATTEMPT, path="b.jsonl", term=3)
    assert commit_unit(Store(output), ledger, again)
    assert read_ledger(Store(output)).commits == {UNIT: commit_of(), OTHER_UNIT: again}
    write_files(tmp_path, commit_of(), again)
    sweep(Store(output), ledger, nothing, set)
    assert not late.exists()
    assert read_ledger(Store(output)).commits == {UNIT: commit_of(), OTHER_UNIT: again}


def test_pack_of_a_stalled_run_does_not_count_when_a_later_one_is_there(tmp_path: Path) -> None:
    output = str(tmp_path)
    stalled = commit_all(output, commit_of())
    write_pack(Store(output), commit_all(output, commit_of(OTHER_UNIT, path="b.jsonl")), 4)
    write_pack(Store(output), stalled, 2)
    ledger = read_ledger(Store(output))
    assert set(ledger.commits) == {UNIT, OTHER_UNIT}
    assert (ledger.pack_term, ledger.loose) == (4, 0)
    assert {file.path.rsplit("/", 1)[-1] for file in garbage_files(Store(output), ledger, set)} == {
        f"{UNIT}.json",
        f"{OTHER_UNIT}.json",
        "pack-0000000002.jsonl.zst",
    }


def test_pack_written_again_in_one_term_holds_all(tmp_path: Path) -> None:
    output = str(tmp_path)
    ledger = commit_all(output, commit_of())
    write_pack(Store(output), ledger, 2)
    assert commit_unit(Store(output), ledger, commit_of(OTHER_UNIT, term=2))
    assert read_ledger(Store(output)).loose == ledger.loose == 1
    write_pack(Store(output), ledger, 2)
    write_files(tmp_path, *ledger.commits.values())
    sweep(Store(output), ledger, nothing, set)
    assert set(read_ledger(Store(output)).commits) == {UNIT, OTHER_UNIT}
    assert [file for file in files_below(tmp_path) if file.startswith("_commits")] == ["_commits/pack-0000000002.jsonl.zst"]


def test_replaced_commit_in_a_pack_does_not_come_back_when_its_successor_is_replaced(tmp_path: Path) -> None:
    output = str(tmp_path)
    first = commit_of()
    write_pack(Store(output), commit_all(output, first), 2)
    for number, version in enumerate(("v2", "v3", "v4")):
        ledger = read_ledger(Store(output))
        (old,) = ledger.current.values()
        new = commit_of(f"{number}" * 24, identity=version, replaces=(old.name,), term=3 + number)
        write_files(tmp_path, new)
        assert commit_unit(Store(output), ledger, new)
        sweep(Store(output), ledger, nothing, set)
        assert [commit.name for commit in read_ledger(Store(output)).current.values()] == [new.name]


def test_commit_that_keeps_no_rows_is_not_packed(tmp_path: Path) -> None:
    output = str(tmp_path)
    gone = replace(commit_of(OTHER_UNIT, replaces=(commit_of().name,)), pieces=(), files=(), rejects_file=None)
    ledger = commit_all(output, commit_of(), gone)
    write_pack(Store(output), ledger, 1)
    assert read_ledger(Store(output)).commits == ledger.commits == {}


def test_ledger_read_while_records_are_packed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = str(tmp_path)
    ledger = commit_all(output, commit_of(), commit_of(OTHER_UNIT))
    listings = []

    list_all = Store.list_all

    def list_and_change(store: Store, folder: str = "") -> list[StoredFile]:
        """The listing; after the first one another run packs the records, and after the second it packs more of them."""
        listings.append(list_all(store, folder))
        if len(listings) == 1:
            write_pack(Store(output), ledger, 2)
            for name in (f"{UNIT}.json", f"{OTHER_UNIT}.json"):
                (tmp_path / "_commits" / name).unlink()
        elif len(listings) == 3:
            ledger.commits["c" * 24] = commit_of("c" * 24)
            write_pack(Store(output), ledger, 2)
        return listings[-1]

    monkeypatch.setattr(Store, "list_all", list_and_change)
    assert set(read_ledger(Store(output)).commits) == {UNIT, OTHER_UNIT, "c" * 24}


def test_sweep_removes_exactly_what_no_commit_names(tmp_path: Path) -> None:
    counted, lost, unfinished = commit_of(), commit_of(attempt=OTHER_ATTEMPT), commit_of(OTHER_UNIT)
    write_files(tmp_path, counted, lost, unfinished)
    ledger = commit_all(str(tmp_path), counted)
    (tmp_path / "label=POSITIVE" / ".incomplete-0123").write_bytes(b"half")
    expected = {file.path for file in counted.all_files()} | {f"_commits/{UNIT}.json"}
    garbage = {str(tmp_path / name) for name in files_below(tmp_path) - expected}

    assert has_garbage(Store(str(tmp_path)), ledger, set)
    assert {file.path for file in garbage_files(Store(str(tmp_path)), ledger, set)} == garbage
    assert {file.path for file in sweep(Store(str(tmp_path)), ledger, nothing, set)} == garbage
    assert files_below(tmp_path) == expected
    assert not has_garbage(Store(str(tmp_path)), ledger, set)


def test_sweep_by_a_run_that_has_lost_its_lease_deletes_nothing(tmp_path: Path) -> None:
    def lost() -> None:
        raise LeaseError("another run has it")

    write_files(tmp_path, commit_of())
    before = files_below(tmp_path)
    with pytest.raises(LeaseError):
        sweep(Store(str(tmp_path)), Ledger(), lost, set)
    assert files_below(tmp_path) == before


def test_sweep_of_nothing_still_tells_a_run_that_it_has_lost_its_lease(tmp_path: Path) -> None:
    """Else a run that stalled before its last commit, which is void, would end well."""

    def lost() -> None:
        raise LeaseError("another run has it")

    with pytest.raises(LeaseError):
        sweep(Store(str(tmp_path)), Ledger(), lost, set)


def test_sweep_does_not_delete_what_comes_after_its_listing(tmp_path: Path) -> None:
    write_files(tmp_path, commit_of())
    sweep(Store(str(tmp_path)), Ledger(), lambda: write_files(tmp_path, commit_of(OTHER_UNIT)), set)
    assert files_below(tmp_path) == {file.path for file in commit_of(OTHER_UNIT).all_files()}


def test_sweep_removes_replaced_commits_and_their_files(tmp_path: Path) -> None:
    old = commit_of()
    new = commit_of(OTHER_UNIT, identity="v2", replaces=(old.name,))
    write_files(tmp_path, old, new)
    ledger = commit_all(str(tmp_path), old, new)
    sweep(Store(str(tmp_path)), ledger, nothing, set)
    assert ledger.commits == {OTHER_UNIT: new}
    assert files_below(tmp_path) == {file.path for file in new.all_files()} | {f"_commits/{OTHER_UNIT}.json"}


def test_sweep_keeps_files_that_a_replacing_commit_takes_over(tmp_path: Path) -> None:
    old = commit_of()
    new = replace(commit_of(OTHER_UNIT, replaces=(old.name,)), files=old.files[:1], rejects_file=old.rejects_file)
    write_files(tmp_path, old)
    sweep(Store(str(tmp_path)), commit_all(str(tmp_path), old, new), nothing, set)
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
        "_lease/0000000001.json",
        f"_failed/{UNIT}.json",
    ]
    for name in foreign:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"mine")
    assert sweep(Store(str(tmp_path)), Ledger(), nothing, set) == []
    assert files_below(tmp_path) == set(foreign)


def test_sweep_without_partitions_removes_unreferenced_files_beside_foreign_ones(tmp_path: Path) -> None:
    for name in (f"{UNIT}-{ATTEMPT}.parquet", f"{UNIT}-{OTHER_ATTEMPT}-0-1.parquet", "mine.parquet"):
        (tmp_path / name).write_bytes(b"data")
    counted = replace(commit_of(), files=(WrittenFile(f"{UNIT}-{ATTEMPT}.parquet", 1, 4, "md5"),), rejects_file=None)
    assert len(sweep(Store(str(tmp_path)), Ledger({UNIT: counted}), nothing, set)) == 1
    assert files_below(tmp_path) == {f"{UNIT}-{ATTEMPT}.parquet", "mine.parquet"}


def test_sweep_of_a_new_output_does_nothing(tmp_path: Path) -> None:
    assert sweep(Store(str(tmp_path / "new")), Ledger(), nothing, set) == []
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("packed", [False, True])
def test_sweep_after_an_input_went_back_to_its_first_version_keeps_the_newest_commit(tmp_path: Path, packed: bool) -> None:
    """On object storage the first content has the first etag again, and so the unit its first id."""
    output = str(tmp_path)
    first = commit_of()
    second = commit_of(OTHER_UNIT, identity="v2", replaces=(first.name,), term=2)
    again = commit_of(attempt=OTHER_ATTEMPT, replaces=(second.name,), term=2)
    for commit in (first, second, again):
        ledger = read_ledger(Store(output))
        sweep(Store(output), ledger, nothing, set)
        write_files(tmp_path, commit)
        assert commit_unit(Store(output), ledger, commit)
        if packed and commit is first:
            write_pack(Store(output), ledger, 2)
        sweep(Store(output), ledger, nothing, set)
    current = read_ledger(Store(output)).current
    assert [commit.name for commit in current.values()] == [again.name]
    assert {file.path for file in again.all_files()} <= files_below(tmp_path)
