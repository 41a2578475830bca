"""Real documents for the tests, from what stands on every machine that has Python, and files that hold them.

The documents are source code, docstrings and license texts of the Python installation, long and short, and a few texts that
readers and tokenizers have got wrong before: empty, one character, other scripts, line separators that are not `\\n`.
"""

import ast
import csv
import gzip
import io
import json
import lzma
import random
import sysconfig
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

LONG = 10_000  # characters

EDGE_CASES: tuple[str, ...] = (
    "",
    " ",
    "\n\t ",
    "a",
    "7",
    "é",
    "🤗",
    "000",
    "2024-01-31",
    "NA",
    "no newline\u2028is meant\u2029by any of\x85these\x0bfive\x0ccharacters",
    "a line\r\nand another\nand a last one\n",
    'quotes " and "" and, commas; and \\ backslashes \\n',
    "Всі люди народжуються вільними і рівними у своїй гідності та правах.",
    "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है।",
    "Zu\u0308rich, Zürich, 👩\u200d👩\u200d👧\u200d👦, 🇺🇳, ﬁne, ①②③, \ufeffmark",
    "x" * 300,
)


def real_documents(count: int, seed: int = 0) -> list[str]:
    """`count` documents in a seeded order: the edge cases, one in fifty longer than 10,000 characters, the rest passages.

    The same for every call on one Python installation. With fewer than 40 documents only some of the edge cases are in.
    """
    rng = random.Random(seed)
    documents = list(EDGE_CASES[: count // 2])
    long_sources = [source for source in _sources() if len(source) > LONG]
    for _ in range(count // 50):
        source = rng.choice(long_sources)
        start = rng.randrange(len(source) - LONG)
        documents.append(source[start : start + LONG + rng.randrange(2 * LONG)])
    documents += rng.sample(_passages(), count - len(documents))
    rng.shuffle(documents)
    return documents


def one_line(document: str) -> str:
    """`document` without line ends, as plain text files with a document per line hold it."""
    return document.replace("\r", " ").replace("\n", " ")


@cache
def _sources() -> tuple[str, ...]:
    library = Path(sysconfig.get_path("stdlib"))
    return tuple(path.read_text(encoding="utf-8", errors="replace") for path in sorted(library.glob("*.py")))


@cache
def _passages() -> tuple[str, ...]:
    """Several ten thousand distinct passages in the order they are found."""
    found = [passage for source in _sources() for passage in _blocks(source)]
    found += [docstring for source in _sources()[::4] for docstring in _docstrings(source)]
    packages = Path(sysconfig.get_path("purelib"))
    for pattern in ("*.dist-info/LICENSE*", "*.dist-info/licenses/LICENSE*"):
        for path in sorted(packages.glob(pattern))[:40]:
            found += _blocks(path.read_text(encoding="utf-8", errors="replace"))
    return tuple(dict.fromkeys(found))


def _blocks(text: str) -> Iterator[str]:
    """What stands between blank lines, and every eighth time the next eight of these as one longer passage."""
    blocks = [block for block in text.split("\n\n") if block.strip()]
    yield from blocks
    for start in range(0, len(blocks), 64):
        yield "\n\n".join(blocks[start : start + 8])


def _docstrings(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            docstring = ast.get_docstring(node)
            if docstring:
                yield docstring


def write_bytes(path: Path, data: bytes) -> Path:
    """Writes `data`, compressed as the suffix says (.gz, .zst, .bz2, .lz4, .xz, .zip or none), and makes the folders above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(path.stem, data)
    elif path.suffix == ".xz":
        path.write_bytes(lzma.compress(data))
    else:
        with pa.output_stream(str(path)) as stream:
            stream.write(data)
    return path


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    return write_bytes(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Quotes where needed, so documents with line ends become quoted newlines; None becomes an empty field."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_bytes(path, text.getvalue().encode())


def write_text(path: Path, documents: Iterable[str]) -> Path:
    """A document per line; `one_line` makes documents fit for it."""
    lines = list(documents)
    assert not any("\n" in line for line in lines), "a document with a line end would become several"
    return write_bytes(path, "".join(line + "\n" for line in lines).encode())


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]] | pa.Table, row_group_size: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist([dict(row) for row in rows])
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def write_arrow(
    path: Path, rows: Sequence[Mapping[str, Any]] | pa.Table, batch_rows: int | None = None, compression: str | None = None
) -> Path:
    """An Arrow stream (.arrow), or an Arrow file (any other suffix, such as .feather)."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist([dict(row) for row in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    new = pa.ipc.new_stream if path.suffix == ".arrow" else pa.ipc.new_file
    with new(path, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table, max_chunksize=batch_rows)
    return path


def write_orc(path: Path, rows: Sequence[Mapping[str, Any]] | pa.Table, **options: Any) -> Path:
    import pyarrow.orc

    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist([dict(row) for row in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.orc.write_table(table, path, **options)
    return path


def write_avro(
    path: Path,
    rows: Iterable[Mapping[str, Any]],
    types: Mapping[str, Any] | None = None,
    codec: str = "deflate",
    **options: Any,
) -> Path:
    """An Avro file; `types`: of the fields, where they are not strings."""
    import fastavro

    held = [*rows]
    fields = [{"name": name, "type": (types or {}).get(name, ["null", "string"])} for name in held[0]]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        schema = {"type": "record", "name": "Row", "fields": fields}
        fastavro.writer(file, schema, held, codec=codec, sync_marker=b"0123456789abcdef", **options)
    return path


def warc_record(kind: str, block: bytes, length: int | None = None, **headers: str) -> bytes:
    """A WARC record; `length` is its Content-Length, if that is not to be the block's. Header names with _ for -."""
    fields = {"WARC-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
    fields |= {"Content-Type": "text/plain", "Content-Length": str(len(block) if length is None else length)}
    return (
        "".join(["WARC/1.0\r\n", *(f"{name}: {value}\r\n" for name, value in fields.items()), "\r\n"]).encode()
        + block
        + b"\r\n\r\n"
    )


def wet_records(documents: Iterable[str]) -> list[bytes]:
    """A `warcinfo` record, and one of type `conversion` for each document."""
    info = warc_record("warcinfo", b"software: a crawler\r\n", WARC_Record_ID="<urn:uuid:0>")
    return [
        info,
        *(
            warc_record(
                "conversion",
                text.encode(),
                WARC_Target_URI=f"https://example.org/{row}",
                WARC_Date="2024-05-01T12:00:00Z",
                WARC_Record_ID=f"<urn:uuid:{row + 1}>",
                WARC_Identified_Content_Language="eng",
            )
            for row, text in enumerate(documents)
        ),
    ]


def write_wet(path: Path, documents: Iterable[str]) -> Path:
    """A WET file; each record is a gzip member of its own in one that is named .gz, as Common Crawl's are."""
    records = wet_records(documents)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(gzip.compress, records) if path.suffix == ".gz" else records))
    return path
