"""Measures JSON arrays against ijson, by hand: python -m tests.performance.json_arrays_run FOLDER [--megabytes 200].

Needs `pip install ijson`. Writes an array on one line and an indented one; prints the CPU seconds of one pass over each: as
JSON Lines by json_arrays, as objects by ijson, and as JSON Lines made of these.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline_ops.line_formats.json_arrays import LOOK_BYTES, JsonElements, json_layout
from pipeline_ops.line_formats.line_records import STREAM_CHUNK_BYTES
from tests.support.corpora import real_documents

TEXTS = 4_000


def write_array(path: Path, num_bytes: int, indent: int | None) -> Path:
    texts, number = real_documents(TEXTS, seed=3), 0
    with path.open("w") as file:
        while file.tell() < num_bytes:
            file.write("[" if number == 0 else ",")
            row = {"id": number, "text": texts[number % TEXTS], "lang": "en", "score": 0.5, "tags": ["a", "b"]}
            file.write(json.dumps(row, indent=indent, ensure_ascii=False))
            number += 1
        file.write("]")
    return path


def by_brackets(path: Path) -> int:
    with path.open("rb") as file:
        layout = json_layout(file.read(LOOK_BYTES), by_objects=True, text_columns=("text",))
        assert layout is not None
        file.seek(0)
        stream = JsonElements(file, layout)
        return sum(part.count(b"\n") for part in iter(lambda: stream.read(STREAM_CHUNK_BYTES), b""))


def by_ijson(path: Path) -> int:
    return sum(1 for _ in _items(path))


def by_ijson_as_lines(path: Path) -> int:
    return sum(bool(json.dumps(item, ensure_ascii=False).encode()) for item in _items(path))


def _items(path: Path) -> Iterator[object]:
    import ijson  # pyright: ignore[reportMissingImports] only this measurement needs it

    with path.open("rb", buffering=0) as file:
        yield from ijson.items(file, "item", use_float=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--megabytes", type=int, default=200)
    options = arguments.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    ways: tuple[Callable[[Path], int], ...] = (by_brackets, by_ijson, by_ijson_as_lines)
    for name, indent in (("one_line.json", None), ("indented.json", 2)):
        path = write_array(options.folder / name, options.megabytes * 10**6, indent)
        for way in ways:
            began = time.process_time()
            elements = way(path)
            print(f"{name} {way.__name__}: {elements:,} elements, {time.process_time() - began:.2f} s of CPU", flush=True)


if __name__ == "__main__":
    main()
