"""Files by their content: whatever they are named and however they are encoded, through a whole run."""

import gzip
import json
import lzma
import zlib
from pathlib import Path
from unittest import mock

import lz4.frame
import pytest

from jobs.label_corpus import run
from jobs.maintenance.verify import verify
from pipeline_ops.storage.config import StorageConfig
from tests.conftest import Bucket
from tests.support.corpora import one_line, real_documents, write_bytes
from tests.support.invariant import Key, check_exactly_once
from tests.support.reading_path import prepare, read_spans, spans_of
from tests.support.running import command, job_settings, keys, labeled_of, make_job, write_job_file
from tests.support.serial_chain import run_serially

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4" * 64 + b"\nsize 12345\n"
HTML = b"<html><body>404 Not Found</body></html>\n"
FRENCH = ["Ceci est une phrase française, très belle.", "L'été s'achève à l'île de Ré.", "À bientôt, cher élève."]


def csv_of(texts: list[str], end: str = "\n") -> str:
    return "".join(line + end for line in ["id,text", *(f'{row},"{text}"' for row, text in enumerate(texts))])


def jsonl_of(texts: list[str], end: str = "\n") -> bytes:
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + end for text in texts).encode()


def write_kinds(folder: Path) -> tuple[dict[Path, list[str]], list[Path]]:
    """({file: its texts}, the files that cannot be read)"""
    texts = [one_line(text).replace('"', "'").strip() or "blank" for text in real_documents(12, seed=5)]
    good = {
        "gzip.jsonl": gzip.compress(jsonl_of(texts)),
        "xz.txt.xz": lzma.compress("\n".join(texts).encode()),
        "lz4.csv.lz4": lz4.frame.compress(csv_of(texts).encode()) + lz4.frame.compress(b""),
        "utf-16.csv": csv_of(texts, "\r\n").encode("utf-16"),
        "utf-16.txt": "\n".join(texts).encode("utf-16"),
        "utf-32.jsonl": jsonl_of(texts).decode().encode("utf-32"),
        "returns.csv": csv_of(texts, "\r").encode(),
        "returns.txt": "".join(text + "\r" for text in texts).encode(),
        "returns.jsonl": jsonl_of(texts, "\r"),
        "windows.txt": "\n".join(FRENCH * 3).encode("cp1252"),
    }
    bad = {
        "404.jsonl.gz": HTML,
        "cut.jsonl.gz": gzip.compress(jsonl_of(texts))[:40],
        "cut.txt.xz": lzma.compress("\n".join(texts).encode())[:40],
        "pointer.jsonl": POINTER,
        "pointer.parquet": POINTER,
        "unmarked.csv": csv_of(texts).encode("utf-16-le"),
        "binary.txt": bytes(range(256)) * 20,
        "empty.csv.zip": b"",
    }
    for name, data in (good | bad).items():
        write_bytes(folder / "new", data).rename(folder / name)
    read = {folder / name: texts for name in good} | {folder / "windows.txt": FRENCH * 3}
    return read, [folder / name for name in bad]


def check_output(output: Path, good: dict[Path, list[str]]) -> None:
    _, rejects = check_exactly_once(output, [key for path, texts in good.items() for key in keys(path, len(texts))])
    assert rejects == []
    for path, texts in good.items():
        assert labeled_of(output, path)["text"].to_pylist() == texts, path.name


def test_run_reads_files_as_what_they_are_and_quarantines_the_others(model: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    good, bad = write_kinds(source)
    job = make_job(source, model, output, "input.encoding=auto", "output.columns=[text]")
    summary = run_serially(job, quiet=True)
    check_output(output, good)
    assert {line.split(": ")[0] for line in summary.failed} == {str(path) for path in bad}
    assert (summary.complete, summary.files_incomplete) == (False, len(bad))
    assert run_serially(job, quiet=True).documents_run == 0, "the next run finds nothing to do"
    found = verify(job, deep=True)
    assert (found["doubled"], found["broken"], found["documents"]) == ([], [], summary.documents)
    assert {line.split(": ")[0] for line in found["failed"]} == {str(path) for path in bad}
    for path in bad:
        path.unlink()
    assert verify(job)["missing"] == []


def test_init_writes_the_encoding_that_it_guesses_and_plan_says_so(model: Path, tmp_path: Path) -> None:
    write_bytes(tmp_path / "in" / "a.csv", csv_of(FRENCH * 5).encode("cp1252"))
    write_bytes(tmp_path / "in" / "b.csv", csv_of(["plain"] * 5).encode())
    job_file = tmp_path / "job.yaml"
    done = command("init", tmp_path / "in", "--model", model, "--job", job_file, "--output", tmp_path / "out")
    assert done.code == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert 'encoding: cp1252 is a guess (a.csv: "' in said
    assert FRENCH[0] in said
    assert "input.encoding=NAME decides otherwise" in said
    assert "  encoding: cp1252" in job_file.read_text()
    assert command("plan", job_file).result["work"]["documents"] == 20
    planned = command("plan", job_file, "input.encoding=auto")
    assert "of 2 sampled files it guesses cp1252 for 1 (a.csv: " in " ".join(planned.stderr.split())
    refused = command("plan", job_file, "input.encoding=klingon")
    assert refused.code == 2
    assert "input.encoding: invalid value 'klingon': no text encoding that Python knows" in refused.error_lines[0]


def test_pointers_only_end_a_run_with_the_remedy(model: Path, tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet"):
        write_bytes(tmp_path / "in" / name, POINTER)
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(tmp_path / "in", model, tmp_path / "out"))
    refused = command("run", job_file, "--quiet")
    assert refused.code == 2
    assert "a.parquet is a Git LFS pointer" in refused.error_lines[0]
    assert "`git lfs pull`" in refused.error_lines[0]


@pytest.mark.slow
@pytest.mark.parametrize("unit_bytes", [20_000, 200_000])
def test_run_on_ray_over_small_files_of_which_some_are_damaged(
    ray_address: str, model: Path, tmp_path: Path, unit_bytes: int
) -> None:
    """Damaged files stand alone, or share read tasks and units with good ones."""
    source, expected, bad = tmp_path / "in", list[Key](), set[str]()
    texts = [one_line(text)[:800] or "blank" for text in real_documents(25, seed=9)]
    for number in range(60):
        data, name = jsonl_of([f"{number} {text}" for text in texts]), f"{number:02}.jsonl"
        kind = number % 6
        data = {1: gzip.compress(data), 2: data.decode().encode("utf-16"), 3: data.replace(b"\n", b"\r")}.get(kind, data)
        broken = number % 5 == 4
        if broken:
            damaged = [gzip.compress(data)[:40], POINTER, HTML, data.decode("latin-1").encode("utf-16-le"), bytes(20_000)]
            data, name = damaged[number // 5 % 5], f"{name}.gz" if number // 5 % 5 == 2 else name
        path = write_bytes(source / "new", data).rename(source / name)
        if broken:
            bad.add(str(path))
        else:
            expected += keys(path, len(texts))
    job = make_job(source, model, tmp_path / "out", f"compute.unit_bytes={unit_bytes}", "output.columns=none")
    summary = run(job, quiet=True, report=False)
    assert check_exactly_once(tmp_path / "out", expected)[1] == []
    assert summary.files_incomplete == len(bad) == 12
    assert {line.split(": ")[0] for line in summary.failed} <= bad
    assert verify(job)["documents"] == len(expected)


@pytest.mark.slow
def test_a_look_at_the_first_bytes_costs_no_request_for_a_small_object_and_none_more_for_a_large_one(s3: Bucket) -> None:
    lines = jsonl_of([f"{number} text" for number in range(1000)])
    for name, data in {"a.jsonl": lines, "b.jsonl": gzip.compress(lines), "c.jsonl": lines.replace(b"\n", b"\r")}.items():
        s3.filesystem.pipe(f"{s3.name}/in/{name}", data)
    storage = StorageConfig(endpoint_url=s3.endpoint_url)
    with mock.patch("pipeline_ops.reading.reader.SINGLE_REQUEST_BYTES", 0):
        for prefetched, requests in ((4 * 2**20, 1), (0, 2)):  # over plain http every range is fetched twice
            with mock.patch("pipeline_ops.reading.reader.PREFETCHED_BYTES", prefetched):
                files, settings = prepare(f"{s3.url}/in", storage=storage)
                s3.journal.clear()
                assert len(read_spans(spans_of(files), settings).documents) == 3000
                assert [len(s3.journal.requests("GetObject", f".*/{name}")) for name in ("a.jsonl", "b.jsonl", "c.jsonl")] == [
                    requests
                ] * 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.jsonl.xz", "a.jsonl.lz4", "a.jsonl.zip", "archive.zip", "a.jsonl"])
def test_compressed_objects_are_read_and_cut_ones_quarantined(s3: Bucket, model: Path, tmp_path: Path, name: str) -> None:
    texts = [one_line(text) or "blank" for text in real_documents(40, seed=2)]
    suffix = name.rsplit(".", 1)[-1]
    compressed = write_bytes(tmp_path / f"a.jsonl.{'gz' if suffix == 'jsonl' else suffix}", jsonl_of(texts)).read_bytes()
    s3.filesystem.pipe(f"{s3.name}/in/{name}", compressed)
    s3.filesystem.pipe(f"{s3.name}/in/b{name[1:]}", compressed[: len(compressed) // 2])
    settings = (f"storage.endpoint_url={s3.endpoint_url}", "output.columns=none")
    job = make_job(f"{s3.url}/in", model, f"{s3.url}/out", *settings)
    s3.journal.clear()
    summary = run_serially(job, quiet=True)
    # of lz4 and zip only units before the cut can be read
    decompressor = {"xz": lzma.LZMADecompressor(), "jsonl": zlib.decompressobj(wbits=31)}.get(suffix)
    whole = decompressor.decompress(compressed[: len(compressed) // 2]).count(b"\n") if decompressor else 0
    good, cut = f"{s3.url}/in/{name}", f"{s3.url}/in/b{name[1:]}"
    expected = [(good, row) for row in range(40)] + [(cut, row) for row in range(whole)]
    assert check_exactly_once(f"{s3.name}/out", expected, s3.filesystem)[1] == []
    assert [line.split(": ")[0] for line in summary.failed] == [f"{cut} from row {whole}" if whole else cut]
