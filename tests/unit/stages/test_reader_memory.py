"""How much memory the read stage takes of its process."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.corpora import write_jsonl, write_parquet

UNIT_BYTES = 32 * 2**20  # as in a run over much input
# so that the peak is what is held at a time, not what the allocators keep of it: each frees at once
FREE_AT_ONCE = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
READER = """
import sys
import pyarrow as pa
from pathlib import Path
from pipeline_ops.reading.spans import spans_to_json
from pipeline_ops.stages.reader import read_task
from tests.support.reading_path import prepare, spans_of

class NoDeaths:
    def begin(self, key):
        return 0

    def end(self, key):
        pass

def mebibytes(*keys):
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return [int(lines[key].split()[0]) / 1024 for key in keys]

files, settings = prepare(sys.argv[1], unit_bytes=int(sys.argv[2]))
task = pa.table({"task": [spans_to_json(spans_of(files))]})
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
(before,) = mebibytes("RssAnon")
rows = read_task(task, settings, NoDeaths())
units = 0
for row in rows:
    units += 1
    del row
peak, of_files = mebibytes("VmHWM", "RssFile")
print(units, peak - of_files - before)
"""


def documents(count: int) -> list[dict]:
    letters = np.random.default_rng(0).choice(np.frombuffer(b"abcdefghijklmnop ", np.uint8), 2_000_000).tobytes().decode()
    return [
        {"id": row, "text": letters[row : row + 1_000], "payload": letters[10 * row : 10 * row + 9_000]} for row in range(count)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["documents.jsonl.zst", "documents.parquet"])
def test_reader_holds_few_units_at_a_time(tmp_path: Path, name: str) -> None:
    path, rows = tmp_path / name, documents(20_000)
    if name.endswith(".zst"):
        write_jsonl(path, rows)
    else:
        write_parquet(path, rows, row_group_size=len(rows))  # one row group, of 200 MB
    environment = os.environ | FREE_AT_ONCE
    done = subprocess.run(
        [sys.executable, "-c", READER, path, str(UNIT_BYTES)], env=environment, capture_output=True, text=True, check=True
    )
    units, peak = done.stdout.split()
    assert int(units) >= 6
    # of 32 MiB each: the unit that is handed on, packed, in a buffer that has doubled, and the next one, which shows that it
    # does not belong to it
    assert float(peak) < 6 * UNIT_BYTES / 2**20, f"{peak} MiB"
