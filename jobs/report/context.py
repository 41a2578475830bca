"""What the report says, as plain data: counts, pictures, rows to show. Reads commits, run records and a bounded sample."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from jobs.report import charts as pictures
from pipeline_ops.analysis import summary_statistics as describing
from pipeline_ops.analysis.summary_statistics import WEIGHT, draw_rows
from pipeline_ops.output.failed_units import read_failures
from pipeline_ops.output.labeled_output import Labeled
from pipeline_ops.output.run_records import RunRecord, read_runs
from pipeline_ops.reading.text_columns import decode_texts
from pipeline_ops.schema.output_columns import OutputConfig

LISTED_RUNS = 30
LISTED_PARTITIONS = 40
LISTED_FAILURES = 20
SHOWN_LABELS = 12  # with histograms and documents
SHOWN_DOCUMENTS = 3  # per label: most certain, least certain, at random
LIMITS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
MODEL_FACTS = ("path", "revision", "dtype", "max_length", "kind", "activation", "weights", "tokenizer")


@dataclass(frozen=True)
class Document:
    """A row to show."""

    source_file: str
    source_row: int
    text: str | None
    score: float


def gather(labeled: Labeled, say: Callable[[str], None]) -> dict[str, Any]:
    """All of the report but what evaluate has found, by the names that the template has for it.

    Raises:
        OSError: a file that commits name cannot be read.
    """
    commits = labeled.commits
    runs = read_runs(labeled.store, LISTED_RUNS)
    failures = read_failures(labeled.store)
    partitions = describing.partitions_of(commits)
    classify, stages = describing.seconds_of(commits)
    padded = sum(commit.padded_tokens for commit in commits)
    tokens = sum(commit.tokens for commit in commits)
    sample = _sample(labeled)
    say(f"report: {len(commits):,} units, {sample.num_rows:,} documents looked at")
    by_model = labeled.columns.by_model()
    return {
        "output": labeled.path,
        "input": labeled.record["config"]["input"]["path"],
        "documents": sum(commit.documents for commit in commits),
        "labeled": sum(commit.labeled for commit in commits),
        "rejected": sum(commit.rejected for commit in commits),
        "truncated": sum(commit.truncated for commit in commits),
        "tokens": tokens,
        "padding": 1 - tokens / padded if padded else None,
        "units": len(commits),
        "input_files": len({piece.path for commit in commits for piece in commit.pieces}),
        "partitions": partitions[:LISTED_PARTITIONS],
        "more_partitions": partitions[LISTED_PARTITIONS:],
        "files": sum(partition.files for partition in partitions),
        "bytes": sum(partition.bytes for partition in partitions),
        "sampled": sample.num_rows,
        "models": [_model(labeled, name, output, sample) for name, output in by_model.items()],
        "reasons": describing.reasons_of(commits),
        "reject_examples": describing.reject_examples(labeled),
        "failures": failures[:LISTED_FAILURES],
        "num_failures": len(failures),
        "runs": runs[::-1],
        "last_run": _last(runs),
        "throughput": _throughput(_last(runs)),
        "stages": _stages(classify.to_dict(), stages),
        "config": yaml.safe_dump(labeled.record["config"], sort_keys=False, allow_unicode=True),
        "versions": labeled.record["versions"],
        "fingerprint": labeled.record["fingerprint"],
    }


def _sample(labeled: Labeled) -> pa.Table:
    source = labeled.record["config"]["input"]
    texts = [name for name in (source["text_column"], source["text_pair_column"]) if name]
    columns = [labeled.columns.source_file_column, labeled.columns.source_row_column, *texts]
    for output in labeled.columns.by_model().values():
        columns += [output.label_column, output.score_column, output.num_tokens_column]
    return draw_rows(labeled, list(dict.fromkeys(columns)))


def _model(labeled: Labeled, name: str, output: OutputConfig, sample: pa.Table) -> dict[str, Any]:
    head, facts = labeled.head(name), labeled.record["models"][name]
    counts = describing.labels_of(labeled.commits, name)
    weights = sample[WEIGHT].to_numpy()
    given = sample[output.label_column].cast(pa.string())
    scores = _numbers(sample, output.score_column)
    lengths = _numbers(sample, output.num_tokens_column)
    prefix = f"{name}: " if name else ""
    of_label = {
        label: np.flatnonzero(pa.compute.equal(given, label).to_numpy(zero_copy_only=False))
        for label in list(counts)[:SHOWN_LABELS]
    }
    is_share = head.activation != "none" and head.kind != "value"
    limits = (0.0, 1.0) if head.activation != "none" else _range(scores)
    histograms = {label: (scores[rows], weights[rows]) for label, rows in of_label.items() if len(rows)}
    in_windows = "stride" in facts  # long documents are read in several, so there is no end beyond which nothing is read
    return {
        "name": name,
        "counts": counts,
        "missing_labels": [label for label in (*head.labels, *head.bin_labels) if label not in counts]
        if head.kind != "value" or head.bins
        else [],
        "labels_picture": pictures.bars(counts, f"{prefix}documents by label") if counts else "",
        "scores_picture": pictures.score_histograms(histograms, limits, f"{prefix}scores by label") if histograms else "",
        "certainty_picture": pictures.certainty_curve(scores, weights, f"{prefix}documents by certainty")
        if is_share and len(scores)
        else "",
        "limits": describing.share_below(scores, weights, LIMITS) if is_share else [],
        "expected_wrong": float((weights * (1 - scores)).sum() / weights.sum()) if is_share and len(scores) else None,
        "tokens_picture": pictures.token_lengths(
            lengths, weights, None if in_windows else facts["max_length"], f"{prefix}tokens of a document"
        )
        if len(lengths)
        else "",
        "max_length": facts["max_length"],
        "windows": in_windows,
        "examples": [
            {"label": label, "documents": counts[label], "groups": _notable(labeled, sample, rows, scores)}
            for label, rows in of_label.items()
            if len(rows)
        ],
        "facts": {key: facts[key] for key in MODEL_FACTS if facts.get(key) is not None},
        "labels": len(head.labels),
        "card": facts.get("card") or {},
    }


def _numbers(sample: pa.Table, column: str) -> np.ndarray:
    """float64 (rows,); a column that folders hold is text."""
    return sample[column].cast(pa.float64()).to_numpy()


def _range(values: np.ndarray) -> tuple[float, float]:
    if not len(values):
        return 0.0, 1.0
    low, high = np.quantile(values, [0.001, 0.999])
    return float(low), float(high if high > low else low + 1)


def _notable(labeled: Labeled, sample: pa.Table, rows: np.ndarray, scores: np.ndarray) -> dict[str, list[Document]]:
    chosen = describing.notable_rows(scores[rows], SHOWN_DOCUMENTS)
    return {
        what: [_document(labeled, sample, int(rows[place]), scores) for place in places]
        for what, places in chosen.items()
        if places
    }


def _document(labeled: Labeled, sample: pa.Table, row: int, scores: np.ndarray) -> Document:
    source, names = labeled.record["config"]["input"], labeled.columns
    one = sample.slice(row, 1)
    texts = [
        decode_texts(one.column(name))[0][0].as_py()
        for name in (source["text_column"], source["text_pair_column"])
        if name and one.column(name).null_count == 0
    ]
    return Document(
        str(one[names.source_file_column][0].as_py()),
        int(one[names.source_row_column][0].as_py()),
        "  ┃  ".join(texts) if texts else None,
        float(scores[row]),
    )


def _last(runs: list[RunRecord]) -> RunRecord | None:
    return runs[-1] if runs else None


def _throughput(run: RunRecord | None) -> str:
    points = run.points() if run else []
    if len(points) < 3 or points[-1].seconds <= points[0].seconds:
        return ""
    return pictures.throughput(points, "documents per second over the last run")


def _stages(classify: dict[str, float], stages: dict[str, float]) -> str:
    rows = {}
    if sum(classify.values()):
        rows["classifiers"] = classify
    if sum(stages.values()):
        rows["other stages"] = stages
    return pictures.stacked(rows, "where the time went") if rows else ""
