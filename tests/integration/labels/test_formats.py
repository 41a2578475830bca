"""Each format and compression end to end: what is a document, what is a reject, and what the output's columns are."""

import datetime
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.label_corpus import run
from tests.support.corpora import (
    EDGE_CASES,
    one_line,
    real_documents,
    write_bytes,
    write_csv,
    write_jsonl,
    write_parquet,
    write_text,
)
from tests.support.invariant import check_exactly_once
from tests.support.running import keys, labeled_of, make_job
from tests.support.serial_chain import run_serially

NESTED = pa.struct([("depth", pa.int32()), ("weights", pa.list_(pa.float64()))])


def parquet_table(texts: Sequence[str | None]) -> pa.Table:
    """Columns of the types that other readers have changed on the way through."""
    count = len(texts)
    every_third = [index if index % 3 else None for index in range(count)]
    return pa.table(
        {
            "text": pa.array(texts),
            "number": pa.array(every_third, pa.int16()),
            "big": pa.array([2**64 - 1 - index for index in range(count)], pa.uint64()),
            "tags": pa.array([["a", None, "b"][: index % 4] if index % 5 else None for index in range(count)]),
            "meta": pa.array([{"depth": n, "weights": [0.5] * index} for index, n in enumerate(every_third)], NESTED),
            "payload": pa.array([bytes([index % 256, 0, 255]) for index in range(count)]),
            "nothing": pa.nulls(count),
            "day": pa.array([datetime.date(2024, 1, 1 + index % 28) for index in range(count)]),
            "seen": pa.array([datetime.datetime(2024, 1, 1)] * count, pa.timestamp("us", tz="UTC")),
            "kind": pa.array([f"k{index % 2}" for index in range(count)]).dictionary_encode(),
        }
    )


def test_run_on_a_folder_of_all_formats_labels_or_rejects_every_document(ray_address: str, model: Path, tmp_path: Path):
    source, output = tmp_path / "in", tmp_path / "out"
    texts = real_documents(30)
    lines = [one_line(text) for text in texts]

    table = parquet_table([*texts[:20], None, *texts[20:]])
    parquet = write_parquet(source / "a.parquet", table, row_group_size=7)
    json_rows = [
        {"text": text, "code": "000", "date": "2024-01-31", "deep": {"list": [{"k": [1, None]}], "none": None}, "flag": True}
        for text in texts
    ]
    json_lines = write_jsonl(source / "b.jsonl.zst", json_rows)
    broken = write_bytes(
        source / "deep" / "er" / "c.jsonl.gz",
        b'{"text": "good"}\r\n{"text": "never ends\n\n{"text": null}\n{"text": 7}\n["text"]\n'
        b'{"other": 1}\n{"text": "bytes \xff\xfe"}\n{"text": "the last one needs no newline"}',
    )
    # "" would be an empty line in a CSV of one column, hence the second one
    quoted = write_csv(source / "d.csv.bz2", [{"title": f"0{index}", "text": text} for index, text in enumerate(texts)])
    ragged = write_bytes(source / "e.csv", b'title,text\n1,one\n2,two,too many\n\n3,"a ""quoted"",\ntext"\n')
    tabs = write_bytes(source / "e.tsv", b"text\tname\nTab, separated\tNA\n")
    plain = write_text(source / "f.txt.gz", lines)
    windows = write_bytes(source / "deep" / "g.txt", b"one\r\ntwo\x0cstill two\xe2\x80\xa8still\r\n\r\nfour \xff")
    empty = [write_bytes(source / f"empty.{suffix}", b"") for suffix in ("jsonl", "csv", "txt", "txt.gz")]
    header_only = write_bytes(source / "header.csv", b"title,text\n")
    no_rows = write_parquet(source / "no_rows.parquet", table.slice(0, 0))
    only_rejects = write_jsonl(source / "rejects.jsonl", [{"text": None}] * 3)
    write_bytes(source / "README.md", b"not a document")
    write_bytes(source / "_logs" / "old.jsonl", b'{"text": "hidden"}\n')

    summary = run(make_job(source, model, output, "output.scores=true", "output.logits=true"), quiet=True)

    expected = [
        *keys(parquet, 31),
        *keys(json_lines, 30),
        *keys(broken, [0, 1, 3, 4, 5, 6, 7, 8]),  # a blank line is no document
        *keys(quoted, 30),
        *keys(ragged, [0, 1, 3]),
        *keys(tabs, 1),
        *keys(plain, 30),
        *keys(windows, 4),  # in text a blank line is one
        *keys(only_rejects, 3),
    ]
    labeled, rejects = check_exactly_once(output, expected)
    assert {(reject["source_file"], reject["source_row"]): reject["reason"] for reject in rejects} == {
        (str(parquet), 20): "null_text",
        (str(broken), 1): "broken_json",
        (str(broken), 3): "null_text",
        (str(broken), 4): "not_a_string",
        (str(broken), 5): "broken_json",
        (str(broken), 6): "null_text",
        (str(broken), 7): "undecodable",
        (str(ragged), 1): "broken_csv",
        (str(windows), 3): "undecodable",
        **{(str(only_rejects), row): "null_text" for row in range(3)},
    }
    assert all(reject["detail"] for reject in rejects)
    assert (summary.documents, summary.labeled, summary.rejected) == (len(expected), labeled.num_rows, len(rejects))

    found = labeled_of(output, parquet)
    kept = table.filter(pa.array([row != 20 for row in range(31)]))
    kept = kept.set_column(6, "nothing", pa.nulls(30, pa.string()))
    kept = kept.set_column(kept.column_names.index("kind"), "kind", kept["kind"].cast(pa.string()))
    assert found.select(table.column_names).equals(kept)
    found = labeled_of(output, json_lines)
    assert found.select(list(json_rows[0])).to_pylist() == json_rows
    assert found.schema.field("code").type == found.schema.field("date").type == pa.string()
    found = labeled_of(output, quoted)
    assert found["text"].to_pylist() == texts
    assert found["title"].to_pylist() == [f"0{index}" for index in range(30)]
    assert labeled_of(output, ragged)["text"].to_pylist() == ["one", 'a "quoted",\ntext']
    assert labeled_of(output, tabs).select(["text", "name"]).to_pylist() == [{"text": "Tab, separated", "name": "NA"}]
    assert labeled_of(output, plain)["text"].to_pylist() == lines
    assert labeled_of(output, windows)["text"].to_pylist() == ["one", "two\x0cstill two\u2028still", ""]
    assert labeled_of(output, broken)["text"].to_pylist() == ["good", "the last one needs no newline"]

    for path in (parquet, json_lines, quoted, plain):  # the same texts by four ways have the same answer
        found = labeled_of(output, path)
        logits = np.array(found["logits"].to_pylist(), np.float32)
        assert found.schema.field("logits").type == found.schema.field("scores").type == pa.list_(pa.float32(), 2)
        scores = np.array(found["scores"].to_pylist())
        np.testing.assert_allclose(scores, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), atol=1e-6)
        np.testing.assert_array_equal(found["score"].to_numpy(), scores.max(axis=1).astype(np.float32))
        assert found["label"].to_pylist() == [["NEGATIVE", "POSITIVE"][best] for best in logits.argmax(axis=1)]
        if path in (json_lines, quoted):
            np.testing.assert_allclose(logits, labeled_of(output, parquet)["logits"].to_pylist(), atol=1e-5)

    named = "".join(path.read_text() for path in (output / "_commits").iterdir())
    assert all(str(path) in named for path in (*empty, header_only, no_rows)), "empty files are done, too"
    metadata = pq.read_schema(next(output.glob("label=*/*.parquet"))).metadata
    assert b"label_corpus" in metadata


def test_run_with_chosen_columns_and_names_writes_just_these(model: Path, tmp_path: Path):
    source = tmp_path / "corpus.jsonl"
    rows = [{"body": text, "label": index, "id": f"{index:02}"} for index, text in enumerate(real_documents(12))]
    write_jsonl(source, rows)
    names = ("sentiment", "confidence", "length", "cut", "file", "line")
    keys_of_names = ("label", "score", "num_tokens", "truncated", "source_file", "source_row")
    renamed = [f"output.{key}_column={name}" for key, name in zip(keys_of_names, names, strict=True)]
    job = make_job(
        source,
        model,
        tmp_path / "out",
        "input.text_column=body",
        "output.columns=[id, label]",
        "output.partition_by=[]",
        *renamed,
    )
    summary = run_serially(job, quiet=True)
    (path,) = (tmp_path / "out").glob("*.parquet")
    table = pq.read_table(path)
    assert sorted(table.column_names) == sorted(["id", "label", *names])
    assert [(row["id"], row["label"]) for row in table.sort_by("line").to_pylist()] == [
        (row["id"], row["label"]) for row in rows
    ]
    assert set(table["sentiment"].to_pylist()) <= {"NEGATIVE", "POSITIVE"}
    assert list(zip(table["file"].to_pylist(), sorted(table["line"].to_pylist()), strict=True)) == keys(source, 12)
    assert summary.labeled == summary.documents == table.num_rows == 12


def test_run_partitioned_by_input_columns_writes_folders_that_readers_decode(model: Path, tmp_path: Path):
    source = tmp_path / "corpus.jsonl"
    groups = ["a/b", "ü =%", None]
    rows = [{"text": text, "group": groups[index % 3]} for index, text in enumerate(EDGE_CASES)]
    write_jsonl(source, rows)
    run_serially(make_job(source, model, tmp_path / "out", "output.partition_by=[group, label]"), quiet=True)
    labeled, rejects = check_exactly_once(tmp_path / "out", keys(source, len(rows)))
    assert rejects == []
    found = labeled.sort_by("source_row").select(["text", "group"]).to_pylist()
    assert found == rows


def test_run_on_text_files_as_whole_documents_labels_each_file(model: Path, tmp_path: Path):
    source = tmp_path / "in"
    texts = ["one\ntwo\n", "", EDGE_CASES[10]]
    paths = [write_bytes(source / f"{index}.txt", text.encode()) for index, text in enumerate(texts)]
    bad = write_bytes(source / "bad.txt", b"\xff\xfe\x00")
    overrides = ("input.text_unit=file", "input.min_characters=1", "model.max_length=16")
    run_serially(make_job(f"{source}/*.txt", model, tmp_path / "out", *overrides), quiet=True)
    labeled, rejects = check_exactly_once(tmp_path / "out", [*((str(path), 0) for path in paths), (str(bad), 0)])
    assert labeled.sort_by("source_file")["text"].to_pylist() == [texts[0], texts[2]]
    assert {reject["source_file"]: reject["reason"] for reject in rejects} == {
        str(paths[1]): "too_short",
        str(bad): "undecodable",
    }
    assert max(labeled["num_tokens"].to_pylist()) == 16
    assert labeled.sort_by("source_file")["truncated"].to_pylist() == [False, True]


def test_run_with_nothing_to_label_is_complete(model: Path, tmp_path: Path):
    write_bytes(tmp_path / "in" / "empty.jsonl", b"")
    rejected = write_bytes(tmp_path / "in" / "rejected.jsonl", b'{"text": null}\n')
    job = make_job(tmp_path / "in", model, tmp_path / "out")
    first, second = run_serially(job, quiet=True), run_serially(job, quiet=True)
    for summary in (first, second):
        assert (summary.documents, summary.labeled, summary.rejected) == (1, 0, 1)
    assert (first.units_skipped, second.units_skipped) == (0, first.units)
    _, rejects = check_exactly_once(tmp_path / "out", keys(rejected, 1))
    assert [reject["reason"] for reject in rejects] == ["null_text"]
