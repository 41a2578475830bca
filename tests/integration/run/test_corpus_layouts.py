"""Small corpora laid out as well-known ones are published: `init` finds the texts, and a run labels each document once.

`pipeline_ops/README.md` has these layouts as a table; what a person has to add to `init` stands here as `settings`.
"""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard

from jobs.config import load_job
from tests.support.corpora import write_bytes, write_jsonl, write_parquet
from tests.support.invariant import check_exactly_once
from tests.support.running import command, keys
from tests.support.serial_chain import run_serially

ROWS = 6
Rows = list[dict[str, Any]]
Texts = dict[str, list[str]]  # by file, relative to the input


@dataclass(frozen=True)
class Layout:
    """A corpus as it lies on storage."""

    name: str
    write: Callable[[Path], Texts]
    text_column: str = "text"
    settings: tuple[str, ...] = ()  # what `init` is not to find out by itself


def texts_of(file: str) -> list[str]:
    """Texts that say where they are from."""
    return [f"The passage with the number {row} of the file {file}, and some more words of it." for row in range(ROWS)]


def in_lines(files: dict[str, Callable[[int, str], dict[str, Any]]]) -> Callable[[Path], Texts]:
    """Files of JSON Lines, compressed as their names say.

    Args:
        files: {name: makes a line of a row's number and text}.
    """

    def write(folder: Path) -> Texts:
        for name, line in files.items():
            write_jsonl(folder / name, [line(row, text) for row, text in enumerate(texts_of(name))])
        return {name: texts_of(name) for name in files}

    return write


def c4(row: int, text: str) -> dict[str, Any]:
    return {"text": text, "timestamp": f"2019-04-2{row}T12:57:54Z", "url": f"https://example.com/{row}"}


def dolma(row: int, text: str) -> dict[str, Any]:
    return {
        "id": f"http://example.com/{row}",
        "text": text,
        "source": "common-crawl",
        "added": "2023-04-11T09:57:03.044571+00:00",
        "created": f"2020-01-1{row}T08:13:30Z",
        "metadata": {},
    }


def dolma_reddit(row: int, text: str) -> dict[str, Any]:
    return {**dolma(row, text), "source": "reddit", "metadata": {"subreddit": "Python", "bucket": None, "length": len(text)}}


def redpajama(row: int, text: str) -> dict[str, Any]:
    return {
        "text": text,
        "meta": {"url": f"http://example.com/{row}", "timestamp": "2019-07-22T12:57:54Z", "source": "cc", "language": "en"},
        "red_pajama_subset": "common_crawl",
    }


def redpajama_arxiv(_: int, text: str) -> dict[str, Any]:
    return {
        "text": text,
        "meta": {"timestamp": "2022-03-28T13:40:07", "yymm": "2203", "arxiv_id": "2203.15369", "language": "en", "url": "x"},
        "red_pajama_subset": "arxiv",
    }


def pile(row: int, text: str) -> dict[str, Any]:
    return {"text": text, "meta": {"pile_set_name": ("Pile-CC", "PubMed Abstracts")[row % 2]}}


def oscar(row: int, text: str) -> dict[str, Any]:
    return {
        "content": text,
        "warc_headers": {
            "warc-record-id": f"<urn:uuid:{row}>",
            "warc-date": "2022-11-26T09:45:47Z",
            "content-type": "text/plain",
            "content-length": 3694 + row,
            "warc-type": "conversion",
            "warc-identified-content-language": "eng" if row % 2 else None,
            "warc-target-uri": "https://example.com",
            "warc-block-digest": "sha1:X3OWP47FG2O5LBNMFSNB44FJF2SSRC26",
        },
        "metadata": {
            "identification": {"label": "en", "prob": 0.9 + row / 100},
            "harmful_pp": None if row % 3 else 2345.5,
            "tlsh": "tlsh:T125315FF2B60088901EEA097015DB39B4600B",
            "quality_warnings": ["short_sentences", "header", "footer"] if row % 2 else None,
            "categories": ["examen_pix", "liste_bu"] if row == 4 else None,
            "sentence_identifications": [{"label": "en", "prob": 0.83}, None],
        },
    }


def reddit(row: int, text: str) -> dict[str, Any]:
    return {
        "author": "[deleted]" if row == 1 else f"user{row}",
        "author_flair_text": None,
        "body": text,
        "controversiality": 0,
        "created_utc": 1546300800 + row,
        "distinguished": "moderator" if row == 2 else None,
        "edited": False if row % 2 else 1546300900.0 + row,
        "gildings": {"gid_1": 0, "gid_2": row},
        "id": f"ed{row}",
        "link_id": "t3_abc",
        "parent_id": "t1_def",
        "score": row - 2,
        "stickied": False,
        "subreddit": "Python",
    }


def write_oscar(folder: Path) -> Texts:
    write_bytes(folder / "en_meta" / "checksum.sha256", b"0123  en_meta_part_1.jsonl.zst\n")
    return in_lines({"en_meta/en_meta_part_1.jsonl.zst": oscar, "en_meta/en_meta_part_2.jsonl.zst": oscar})(folder)


def write_reddit(folder: Path) -> Texts:
    name = "comments/RC_2019-01.zst"
    lines = "".join(json.dumps(reddit(row, text)) + "\n" for row, text in enumerate(texts_of(name)))
    window = zstandard.ZstdCompressionParameters(
        window_log=28, compression_level=3
    )  # of 256 MiB: pyarrow refuses more than 128
    compressor = zstandard.ZstdCompressor(compression_params=window).compressobj()
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_bytes(compressor.compress(lines.encode()) + compressor.flush())
    return {name: texts_of(name)}


def fineweb_rows(name: str) -> Rows:
    return [
        {
            "text": text,
            "id": f"<urn:uuid:{row}>",
            "dump": "CC-MAIN-2024-10",
            "url": f"https://example.com/{row}",
            "date": "2024-02-20T21:50:37Z",
            "file_path": "s3://commoncrawl/crawl-data/CC-MAIN-2024-10/x.warc.gz",
            "language": "en",
            "language_score": 0.9 + row / 100,
            "token_count": 10 * row,
        }
        for row, text in enumerate(texts_of(name))
    ]


def write_fineweb(folder: Path) -> Texts:
    write_bytes(folder / "README.md", b"---\nlicense: odc-by\nconfigs:\n- config_name: default\n---\n# FineWeb\n")
    write_bytes(folder / ".gitattributes", b"*.parquet filter=lfs diff=lfs merge=lfs -text\n")
    names = [f"data/CC-MAIN-2024-10/000_0000{number}.parquet" for number in range(2)]
    for name in names:
        write_parquet(folder / name, fineweb_rows(name), row_group_size=4)
    return {name: texts_of(name) for name in names}


def write_hub_snapshot(folder: Path) -> Texts:
    """As older data sets on the hub are: the description of the columns beside the files."""
    infos = {"default": {"description": "Reviews.", "features": {"text": {"dtype": "string", "_type": "Value"}}, "splits": {}}}
    write_bytes(folder / "dataset_infos.json", json.dumps(infos).encode())
    write_bytes(folder / "README.md", b"---\nlicense: mit\n---\n")
    names = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"]
    for name in names:
        write_parquet(folder / name, [{"text": text, "label": row % 2} for row, text in enumerate(texts_of(name))])
    return {name: texts_of(name) for name in names}


def write_saved_to_disk(folder: Path) -> Texts:
    """As `DatasetDict.save_to_disk` does: Arrow streams, and JSON about them."""
    write_bytes(folder / "dataset_dict.json", b'{"splits": ["train", "test"]}')
    for split in ("train", "test"):
        texts = texts_of(f"{split}/data-00000-of-00001.arrow")
        table = pa.table({"text": texts, "label": [row % 2 for row in range(ROWS)]})
        path = folder / split / "data-00000-of-00001.arrow"
        path.parent.mkdir(parents=True)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
        info = {"citation": "", "description": "", "features": {"text": {"dtype": "string", "_type": "Value"}}}
        write_bytes(folder / split / "dataset_info.json", json.dumps(info, indent=2).encode())
        state = {"_data_files": [{"filename": path.name}], "_fingerprint": "05e3", "_format_type": None, "_split": split}
        write_bytes(folder / split / "state.json", json.dumps(state, indent=2).encode())
    return {f"{split}/data-00000-of-00001.arrow": texts_of(f"{split}/data-00000-of-00001.arrow") for split in ("train", "test")}


def write_wet(folder: Path) -> Texts:
    """As Common Crawl does: a record about the file, then the texts of pages, each in a gzip member of its own."""
    name = "wet/CC-MAIN-20240220211055-20240220241055-00000.warc.wet.gz"
    info = b"Software-Info: ia-web-commons\r\n"
    records = [_warc("warcinfo", "application/warc-fields", info)]
    records += [
        _warc("conversion", "text/plain", text.encode(), f"https://example.com/{row}")
        for row, text in enumerate(texts_of(name))
    ]
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_bytes(b"".join(map(gzip.compress, records)))
    return {name: texts_of(name)}


def write_kaggle(folder: Path) -> Texts:
    """As Sentiment140 is: Latin-1, every field quoted, no header."""
    name = "training.1600000.processed.noemoticon.csv"
    texts = [f"{text} Caf\xe9, na\xefve" for text in texts_of(name)]
    rows = [
        ("0", f"146781{row}", "Mon Apr 06 22:19:45 PDT 2009", "NO_QUERY", f"user{row}", text) for row, text in enumerate(texts)
    ]
    lines = (",".join(f'"{cell}"' for cell in row) + "\n" for row in rows)
    write_bytes(folder / name, "".join(lines).encode("latin-1"))
    return {name: texts}


def _warc(kind: str, content_type: str, block: bytes, url: str = "") -> bytes:
    lines = ["WARC/1.0", f"WARC-Type: {kind}", *([f"WARC-Target-URI: {url}"] if url else []), "WARC-Date: 2024-02-20T21:10:55Z"]
    lines += [f"WARC-Record-ID: <urn:uuid:{len(block)}>", f"Content-Type: {content_type}", f"Content-Length: {len(block)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + block + b"\r\n\r\n"


LAYOUTS = (
    Layout("c4", in_lines({"en/c4-train.00000-of-01024.json.gz": c4, "en/c4-train.00001-of-01024.json.gz": c4})),
    Layout("dolma", in_lines({"cc_en_head-0000.json.gz": dolma, "reddit-0000.json.gz": dolma_reddit})),
    Layout("dolma_of_one_source", in_lines({"cc_en_head-0000.json.gz": dolma, "cc_en_head-0001.json.gz": dolma})),
    Layout("redpajama", in_lines({"common_crawl/en_head_0.jsonl.zst": redpajama, "arxiv/arxiv_0.jsonl.zst": redpajama_arxiv})),
    Layout("fineweb", write_fineweb),
    Layout("pile", in_lines({"train/00.jsonl.zst": pile, "train/01.jsonl.zst": pile, "val.jsonl.zst": pile})),
    Layout("oscar", write_oscar, text_column="content"),
    Layout("save_to_disk", write_saved_to_disk),
    Layout("hub_snapshot", write_hub_snapshot),
    Layout("reddit", write_reddit, text_column="body", settings=("input.format=jsonl",)),
    Layout(
        "kaggle",
        write_kaggle,
        settings=("input.header=[target, ids, date, flag, user, text]", "input.encoding=latin-1"),
    ),
    Layout("wet", write_wet),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_corpus_is_labeled_with_what_init_writes(model: Path, tmp_path: Path, layout: Layout) -> None:
    source, job_file = tmp_path / "corpus", tmp_path / "job.yaml"
    texts = layout.write(source)
    begun = command("init", source, "--model", model, "--job", job_file, "--output", tmp_path / "labeled", *layout.settings)
    assert begun.code == 0, begun.stderr
    assert begun.result["text_column"] == layout.text_column
    assert begun.result["documents_estimate"] == ROWS * len(texts)
    result = run_serially(load_job(str(job_file)), quiet=True)
    assert (result.complete, result.rejected) == (True, 0)
    labeled, _ = check_exactly_once(tmp_path / "labeled", [key for name in texts for key in keys(source / name, ROWS)])
    found = zip(*(labeled[name].to_pylist() for name in ("source_file", "source_row", layout.text_column)), strict=True)
    assert {*found} == {(str(source / name), row, text) for name, of in texts.items() for row, text in enumerate(of)}
    planned = command("plan", job_file)
    assert planned.code == 0, planned.stderr
