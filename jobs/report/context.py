"""Template context of the report, from commits, run records and a bounded sample of the labeled rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from jobs.report import charts
from jobs.results.reading_snippets import has_replaced_files, reading_snippets
from pipeline_ops.analysis.summary_statistics import (
    WEIGHT,
    example_rows,
    labels_of,
    partitions_of,
    reject_examples,
    rejects_by_file,
    rejects_by_reason,
    sample_rows,
    stage_seconds,
    statistics_below,
)
from pipeline_ops.output.failed_units import read_failures
from pipeline_ops.output.labeled_output import Labeled
from pipeline_ops.output.run_records import RunRecord, read_runs
from pipeline_ops.reading.documents import decode_texts
from pipeline_ops.schema.output_columns import OutputConfig

MAX_RUNS = 30
MAX_PARTITIONS = 40
MAX_FAILURES = 20
MAX_REJECTED_FILES = 10
MAX_LABELS = 12  # with a histogram and example documents
EXAMPLES = 3  # per label and group: highest score, lowest score, random
SCORE_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
MODEL_FACTS = ("path", "revision", "dtype", "max_length", "kind", "activation", "weights", "tokenizer")


@dataclass(frozen=True)
class Document:
    """An example row."""

    source_file: str
    source_row: int
    text: str | None
    score: float


def report_context(labeled: Labeled) -> dict[str, Any]:
    """Variables of report.html.j2, without `evaluation`.

    Raises:
        OSError: a committed file cannot be read.
    """
    commits = labeled.commits
    runs = [run for store in labeled.stores for run in read_runs(store, MAX_RUNS)]
    if labeled.parts:
        runs = sorted(runs, key=lambda run: run.started)[-MAX_RUNS:]
    last_run = runs[-1] if runs else None
    failures = [failure for store in labeled.stores for failure in read_failures(store)]
    partitions = partitions_of(commits)
    classify, stages = stage_seconds(commits)
    padded = sum(commit.padded_tokens for commit in commits)
    tokens = sum(commit.tokens for commit in commits)
    rejected_files = rejects_by_file(commits)
    sample = _sample(labeled)
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
        "partitions": partitions[:MAX_PARTITIONS],
        "more_partitions": partitions[MAX_PARTITIONS:],
        "files": sum(partition.files for partition in partitions),
        "bytes": sum(partition.bytes for partition in partitions),
        "sampled": sample.num_rows,
        "models": [_model(labeled, name, output, sample) for name, output in by_model.items()],
        "reasons": rejects_by_reason(commits),
        "rejected_files": rejected_files[:MAX_REJECTED_FILES],
        "more_rejected_files": len(rejected_files) - MAX_REJECTED_FILES,
        "reject_examples": reject_examples(labeled),
        "failures": failures[:MAX_FAILURES],
        "num_failures": len(failures),
        "snippets": reading_snippets(labeled, replaced_files=has_replaced_files(labeled)),
        "runs": runs[::-1],
        "last_run": last_run,
        # of a split job several runs go on at a time, and none is the whole's
        "throughput": "" if labeled.parts else _throughput(next((run for run in reversed(runs) if run.units), None)),
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
        columns += [output.label_name, output.score_column, output.num_tokens_column]
    return sample_rows(labeled, list(dict.fromkeys(columns)))


def _model(labeled: Labeled, name: str, output: OutputConfig, sample: pa.Table) -> dict[str, Any]:
    head, facts = labeled.head(name), labeled.record["models"][name]
    counts = labels_of(labeled.commits, name)
    weights = sample[WEIGHT].to_numpy()
    labels = sample[output.label_name].cast(pa.string())
    scores = _numbers(sample, output.score_column)
    lengths = _numbers(sample, output.num_tokens_column)
    prefix = f"{name}: " if name else ""
    rows_by_label = {
        label: np.flatnonzero(pa.compute.equal(labels, label).to_numpy(zero_copy_only=False))
        for label in list(counts)[:MAX_LABELS]
    }
    is_probability = head.activation != "none" and head.kind != "value"
    score_range = (0.0, 1.0) if head.activation != "none" else _range(scores)
    histograms = {label: (scores[rows], weights[rows]) for label, rows in rows_by_label.items() if len(rows)}
    in_windows = "stride" in facts  # windows cover the whole document, so nothing is truncated at max_length
    return {
        "name": name,
        "counts": counts,
        "missing_labels": [label for label in (*head.labels, *head.bin_labels) if label not in counts]
        if head.kind != "value" or head.bins
        else [],
        "labels_chart": charts.bars(counts, f"{prefix}documents by label") if counts else "",
        "scores_chart": charts.score_histograms(histograms, score_range, f"{prefix}scores by label") if histograms else "",
        "score_curve_chart": charts.certainty_curve(scores, weights, f"{prefix}documents by score")
        if is_probability and len(scores)
        else "",
        "thresholds": statistics_below(scores, weights, SCORE_THRESHOLDS) if is_probability else [],
        "expected_wrong": float((weights * (1 - scores)).sum() / weights.sum()) if is_probability and len(scores) else None,
        "tokens_chart": charts.token_lengths(
            lengths, weights, None if in_windows else facts["max_length"], f"{prefix}tokens of a document"
        )
        if len(lengths)
        else "",
        "max_length": facts["max_length"],
        "windows": in_windows,
        "examples": [
            {"label": label, "documents": counts[label], "groups": _examples(labeled, sample, rows, scores)}
            for label, rows in rows_by_label.items()
            if len(rows)
        ],
        "facts": {key: facts[key] for key in MODEL_FACTS if facts.get(key) is not None},
        "labels": len(head.labels),
        "card": facts.get("card") or {},
    }


def _numbers(sample: pa.Table, column: str) -> np.ndarray:
    """float64 (rows,); a partition column is a string, so it is cast."""
    return sample[column].cast(pa.float64()).to_numpy()


def _range(values: np.ndarray) -> tuple[float, float]:
    if not len(values):
        return 0.0, 1.0
    low, high = np.quantile(values, [0.001, 0.999])
    return float(low), float(high if high > low else low + 1)


def _examples(labeled: Labeled, sample: pa.Table, rows: np.ndarray, scores: np.ndarray) -> dict[str, list[Document]]:
    groups = example_rows(scores[rows], EXAMPLES)
    return {
        group: [_document(labeled, sample, int(rows[place]), scores) for place in places]
        for group, places in groups.items()
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


def _throughput(run: RunRecord | None) -> str:
    points = run.points() if run else []
    if len(points) < 3 or points[-1].seconds <= points[0].seconds:
        return ""
    return charts.throughput(points, "documents per second over the last run")


def _stages(classify: dict[str, float], stages: dict[str, float]) -> str:
    rows = {}
    if sum(classify.values()):
        rows["classifiers"] = classify
    if sum(stages.values()):
        rows["other stages"] = stages
    return charts.stacked(rows, "processing time by stage") if rows else ""
