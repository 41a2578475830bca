"""Small files merged: the same rows in fewer files, whatever happens to the compaction, and runs go on from there."""

import pyarrow as pa
import pytest

from jobs.maintenance.compact import compact
from jobs.maintenance.verify import verify
from pipeline_ops.output.commit_log import read_ledger
from tests.fault.conftest import ROWS, Corpus
from tests.servers.s3_proxy import Rule
from tests.support.invariant import check_exactly_once, read_labeled
from tests.support.running import keys, start_command, wait_for
from tests.support.serial_chain import run_serially

TIMEOUT_S = 120


def rows_of(corpus: Corpus) -> list[dict]:
    labeled = read_labeled(corpus.output, corpus.bucket.filesystem)
    return labeled.sort_by([("source_file", "ascending"), ("source_row", "ascending")]).to_pylist()


@pytest.mark.slow
def test_compaction_killed_before_its_commit_changes_nothing_and_then_merges(ray_address: str, corpus: Corpus):
    run_serially(corpus.job, quiet=True)
    before, filesystem = rows_of(corpus), corpus.bucket.filesystem
    files = filesystem.glob(f"{corpus.output}/label=*/*.parquet")
    committed = read_ledger(corpus.job.output_store).current

    with corpus.bucket.proxy.faults(Rule("stall", "PutObject", r"out/_commits/.*", times=None, seconds=600)):
        process = start_command("compact", corpus.job_file, "--quiet", ray_address=ray_address)
        try:
            wait_for(
                lambda: bool(corpus.bucket.journal.faults()["stall"]) or process.poll() is not None, "the commit", TIMEOUT_S
            )
            assert process.poll() is None, process.communicate()[1]
        finally:
            process.kill()
            process.communicate()
    assert read_ledger(corpus.job.output_store).current == committed, "readers see the old files"

    result = compact(corpus.job, target_bytes=2**20, quiet=True)
    merged = filesystem.glob(f"{corpus.output}/label=*/*.parquet")
    assert result["files_before"] == len(files) > 10
    assert result["files_after"] == len(merged) == 2, "one for each label"
    assert rows_of(corpus) == before
    corpus.check_exactly_once()
    assert verify(corpus.job, deep=True)["ok"]

    # a finished job stays finished, and there is nothing left to merge
    assert run_serially(corpus.job, quiet=True).documents_run == 0
    assert compact(corpus.job, target_bytes=2**20, quiet=True)["merged"] == 0

    # a file that changes is labeled alone: the others' rows are taken out of the merged files
    filesystem.pipe_file(f"{corpus.bucket.name}/in/b.txt", b"one line\nand another one\n")
    assert run_serially(corpus.job, quiet=True).documents_run == 2
    rest = [key for key in corpus.expected if not key[0].endswith("b.txt")]
    labeled, _ = check_exactly_once(corpus.output, [*rest, *keys(f"{corpus.bucket.url}/in/b.txt", 2)], corpus.bucket.filesystem)
    assert isinstance(labeled, pa.Table)
    assert labeled.num_rows == 2 * ROWS + 2
    assert verify(corpus.job, deep=True)["ok"]
