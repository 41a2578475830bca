"""Damaged files that share units with good ones: quarantined, all others labeled, and labeled once they are mended."""

import gzip
import json
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from jobs.config import JobConfig
from jobs.label_corpus import run
from jobs.maintenance.verify import verify
from jobs.run.result import RunResult
from pipeline_ops.schema.errors import UserError
from tests.fault.fuzz.damage import ESCAPED_CSV, KINDS, NUM_DOCUMENTS, damaged_file, original
from tests.support.corpora import write_arrow, write_csv, write_jsonl, write_parquet
from tests.support.invariant import check_exactly_once, read_labeled, read_rejects
from tests.support.running import commit_paths, keys, make_job
from tests.support.serial_chain import run_serially

ROWS = [{"id": row, "text": f"a document of two kilobytes, number {row} " + "word " * 400} for row in range(10)]
OTHER_COLUMN = [{"id": row["id"], "content": row["text"]} for row in ROWS]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 20480\n"
SEEDS = 3  # of each kind of damage


def truncated_gzip() -> bytes:
    whole = gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode())
    return whole[:40]  # before the end of the first record: whole ones would be labeled


# {name: (how the file is written, what is said of it)}; the names are among those of the good files, two of them first
DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "00-html.jsonl.gz": (lambda path: path.write_bytes(b"<html>404 Not Found</html>"), ""),
    "05-cut.jsonl.gz": (lambda path: path.write_bytes(truncated_gzip()), ""),
    "00-other.parquet": (lambda path: write_parquet(path, OTHER_COLUMN), "no column 'text'; it has 'id', 'content'"),
    "03-empty.parquet": (lambda path: path.write_bytes(b""), "0 bytes"),
    "05-pointer.parquet": (lambda path: path.write_bytes(POINTER), "Git LFS pointer"),
    "06-pointer.jsonl": (lambda path: path.write_bytes(POINTER), "Git LFS pointer"),
    "06-image.jsonl": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(2000)), "06-image.jsonl"),
    "06-numbers.parquet": (lambda path: path.write_bytes(b"PAR1" + b"\x00" * 20_000 + b"PAR1"), ""),
}


def write_good(folder: Path, files_per_format: int) -> dict[Path, int]:
    """{path: documents} of files of about 20 kB."""
    found = {}
    for number in range(files_per_format):
        found[write_jsonl(folder / f"{number:02}-good.jsonl", ROWS)] = len(ROWS)
        found[write_parquet(folder / f"{number:02}-good.parquet", ROWS)] = len(ROWS)
    return found


def write_damaged(folder: Path, names: Mapping[str, object]) -> list[Path]:
    for name in names:
        DAMAGED[name][0](folder / name)
    return [folder / name for name in names]


def mend(path: Path) -> None:
    (write_parquet if path.suffix == ".parquet" else write_jsonl)(path, ROWS)


def check_damage(run_job: Callable[[JobConfig], RunResult], tmp_path: Path, model: Path, files_per_format: int) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    good = write_good(folder, files_per_format)
    damaged = write_damaged(folder, DAMAGED)
    job = make_job(folder, model, output)
    expected = [key for path, documents in good.items() for key in keys(path, documents)]
    result = run_job(job)
    assert not result.complete
    assert (result.labeled, result.units_failed, result.files_incomplete) == (len(expected), len(damaged), len(damaged))
    for path in damaged:
        (said,) = [line for line in result.failed if line.startswith(f"{path}: ")]
        assert DAMAGED[path.name][1] in said
        assert "\n" not in said
    check_exactly_once(output, expected)
    commits = commit_paths(output)
    again = run_job(job)
    assert (again.documents_run, again.complete, again.failed) == (0, False, result.failed)
    assert commit_paths(output) == commits
    for path in damaged:
        mend(path)
    mended = run_job(job)
    assert (mended.complete, mended.units_failed, mended.documents_run) == (True, 0, len(damaged) * len(ROWS))
    check_exactly_once(output, expected + [key for path in damaged for key in keys(path, len(ROWS))])


def test_damaged_files_are_quarantined_and_all_others_labeled(tmp_path: Path, model: Path) -> None:
    check_damage(run_serially, tmp_path, model, files_per_format=10)


@pytest.mark.slow
def test_damaged_files_are_quarantined_and_all_others_labeled_on_ray(tmp_path: Path, model: Path, ray_address: str) -> None:
    check_damage(lambda job: run(job, quiet=True, report=False), tmp_path, model, files_per_format=60)


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_alone_is_a_users_mistake_and_nothing_is_written(tmp_path: Path, model: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    write_damaged(tmp_path / "in", {name: None})
    with pytest.raises(UserError, match=name):
        run_serially(make_job(tmp_path / "in", model, tmp_path / "out"), quiet=True)
    assert not (tmp_path / "out").exists()


def test_two_shards_of_which_the_first_has_another_column(
    tmp_path: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_parquet(tmp_path / "in" / "a.parquet", OTHER_COLUMN)
    write_parquet(tmp_path / "in" / "b.parquet", ROWS)
    result = run_serially(make_job(tmp_path / "in", model, tmp_path / "out"))
    assert (result.labeled, result.units_failed, result.complete) == (len(ROWS), 1, False)
    assert "not labeled, for want of a text column 'text': " in capfd.readouterr().err
    labeled, _ = check_exactly_once(tmp_path / "out", keys(tmp_path / "in" / "b.parquet", len(ROWS)))
    assert "content" not in labeled.column_names


NEW_FILES: dict[str, list[dict[str, object]]] = {
    "new.arrow": [{"content": text} for text in "ab"],
    "new.parquet": [{"text": number} for number in range(12)],
    "new.csv": [{"content": text} for text in "ab"],
    "more.csv": [{"text": text, "label": "of its own"} for text in "ab"],
    "new.jsonl": [{"content": text} for text in "abcdefghijkl"],
    "more.jsonl": [{"text": number} for number in range(12)],
}
WRITERS = {".arrow": write_arrow, ".parquet": write_parquet, ".csv": write_csv, ".jsonl": write_jsonl}


@pytest.mark.parametrize("name", NEW_FILES)
@pytest.mark.parametrize("beside", [False, True])
def test_a_new_file_without_texts_stops_no_later_run(tmp_path: Path, model: Path, name: str, beside: bool) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    expected = keys(write_arrow(source / "good.arrow", ROWS), len(ROWS))
    job = make_job(source, model, output)
    assert run_serially(job, quiet=True).complete
    path = source / name
    WRITERS[path.suffix](path, NEW_FILES[name])
    if beside:
        expected += keys(write_jsonl(source / "other.jsonl.gz", ROWS), len(ROWS))
    for retry_failed in (False, False, True):
        later = run_serially(job, quiet=True, retry_failed=retry_failed)
        assert (later.labeled, later.complete) == (len(expected), False)
        quarantined = bool(later.failed)
        assert quarantined or later.mostly_rejected
        check_exactly_once(output, expected + ([] if quarantined else keys(path, len(NEW_FILES[name]))))
    assert verify(job, quiet=True)["ok"] is not quarantined


@pytest.mark.slow
def test_a_run_on_ray_over_files_with_damage_of_all_kinds_ends_with_each_labeled_rejected_or_quarantined(
    tmp_path: Path, model: Path, ray_address: str
) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    kinds = [kind for kind in KINDS if kind != ESCAPED_CSV]  # which needs a setting of its own
    good = {folder / f"good-{kind}" for kind in kinds}
    for path in good:
        path.write_bytes(original(path.name.removeprefix("good-")).data)
    for number, (kind, seed) in enumerate(product(kinds, range(SEEDS))):
        (folder / f"{number:03}-{kind}").write_bytes(damaged_file(kind, seed)[0])
    job = make_job(folder, model, output, "compute.max_failed_units=null")
    result = run(job, quiet=True, report=False)
    report = verify(job, quiet=True)
    assert (report["doubled"], report["broken"], report["unreferenced"]) == ([], [], [])
    quarantined = {said.split(": ")[0].split(" from row ")[0] for said in result.failed}
    assert result.files_incomplete == len(quarantined) > 0
    assert not {*map(str, good)} & quarantined
    labeled = read_labeled(output, LocalFileSystem())
    found = list(zip(labeled["source_file"].to_pylist(), labeled["source_row"].to_pylist(), strict=True))
    found += [(reject["source_file"], reject["source_row"]) for reject in read_rejects(output, LocalFileSystem())]
    assert len(found) == result.documents
    check_exactly_once(output, set(found))
    sources = Counter(path for path, _ in found)
    assert all(sources[str(path)] == NUM_DOCUMENTS for path in good)
    again = run(job, quiet=True, report=False)
    assert (again.documents_run, again.documents, again.failed) == (0, result.documents, result.failed)
