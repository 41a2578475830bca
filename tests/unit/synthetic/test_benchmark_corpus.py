"""The corpus that the benchmark makes."""

from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline_ops.synthetic.benchmark_corpus import MEDIAN_TOKENS, shaped_texts, write_corpus

PASSAGES = [" ".join(str(number * 7919 + word) for word in range(number % 90 + 10)) for number in range(50)]


def test_lengths_are_those_of_real_documents() -> None:
    lengths = np.array([len(text) for text in islice(shaped_texts(PASSAGES, characters_per_token=4.0), 5000)]) / 4.0
    assert np.median(lengths) == pytest.approx(MEDIAN_TOKENS, rel=0.05)
    assert 0.05 < (lengths > 512).mean() < 0.15
    assert lengths.min() < 40
    assert lengths.max() > 1000


def test_no_two_texts_are_equal_or_begin_alike_after_their_number() -> None:
    texts = list(islice(shaped_texts(PASSAGES, 4.0), 2000))
    assert len({text[:40] for text in texts}) == len(texts)
    behind = [text.split(" ", 1)[1][:200] for text in texts]
    assert len(set(behind)) > 0.9 * len(texts)


def test_same_passages_give_the_same_corpus() -> None:
    assert list(islice(shaped_texts(PASSAGES, 4.0), 50)) == list(islice(shaped_texts(PASSAGES, 4.0), 50))


def test_documents_longer_than_all_passages_together_are_whole() -> None:
    texts = list(islice(shaped_texts(["short"], 4.0), 200))
    assert np.median([len(text) for text in texts]) == pytest.approx(4 * MEDIAN_TOKENS, rel=0.3)


@pytest.mark.parametrize(("count", "row_groups"), [(100, 32), (7, 3), (5, 5), (1000, 1)])
def test_corpus_has_every_document_once_in_as_many_row_groups(tmp_path: Path, count: int, row_groups: int) -> None:
    size = write_corpus(shaped_texts(PASSAGES, 4.0), count, str(tmp_path / "corpus"), row_groups)
    files = [pq.ParquetFile(path) for path in sorted((tmp_path / "corpus").iterdir())]
    assert sum(file.metadata.num_row_groups for file in files) == row_groups
    rows = [file.metadata.row_group(group).num_rows for file in files for group in range(file.metadata.num_row_groups)]
    assert max(rows) - min(rows) <= 1
    tables = [file.read() for file in files]
    ids = [id for table in tables for id in table["id"].to_pylist()]
    assert ids == [f"{row:09}" for row in range(count)]
    texts = [text for table in tables for text in table["text"].to_pylist()]
    assert texts == list(islice(shaped_texts(PASSAGES, 4.0), count))
    assert size == sum(len(text.encode()) for text in texts)
