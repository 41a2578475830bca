"""RunResult: the JSON line of `run`: what the output holds, what this run did, and how well it used its machines."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from jobs.number_format import counted
from jobs.run.prepare import Prepared
from pipeline_ops.output.committed_files import read_written_bytes
from pipeline_ops.output.mostly_rejected import MostlyRejected, by_reason, remedy_of
from pipeline_ops.schema.misfits import MISFITS_FOLDER, unpack_misfits
from pipeline_ops.schema.units import row_of
from pipeline_ops.storage.paths import MOST_NAMES, some_shown
from pipeline_ops.writing.commit_record import WrittenFile

MAX_VALUE = 60  # characters of a value in a message


def removed_line(paths: Sequence[str], count: int, dropped: bool) -> str:
    """What becomes of the labels of input files that no longer exist.

    Args:
        paths: the first of `count`.
    """
    labels = "are dropped" if dropped else "stay in the output; output.drop_removed=true drops them"
    return f"removed from the input: {some_shown(paths, count)}, whose labels {labels}"


def mostly_rejected_lines(found: Sequence[MostlyRejected]) -> list[str]:
    """Which files have too many rejects, why, and what to do about it: a line per reason."""
    lines = []
    for why, files in by_reason(found).items():
        rejected, documents = sum(one.rejected for one in files), sum(one.documents for one in files)
        where = some_shown([one.path for one in files])
        lines.append(
            f"mostly rejected {why}: {rejected:,} of {counted(documents, 'document')} of {where}; {remedy_of(files[0].reason)}"
            f" (input.max_reject_share=1 accepts them)"
        )
    return lines


def some_mostly_rejected(result: Mapping[str, Any]) -> str:
    """The first files with too many rejects, in one line, by a JSON line's `mostly_rejected` and `files_mostly_rejected`."""
    first = "; ".join(result["mostly_rejected"][:MOST_NAMES])
    more = result["files_mostly_rejected"] - MOST_NAMES
    return f"mostly rejected: {first}" + (f"; and {counted(more, 'more file')}" if more > 0 else "")


def misfit_lines(misfits: Mapping[str, int], files: Mapping[str, WrittenFile], prepared: Prepared) -> Iterator[str]:
    """A line about each column with values, in this run's documents, that do not fit its type.

    Args:
        misfits: how many values, by column.
        files: by column, one that holds such a value.
    """
    paths = {file.path: file for file in files.values()}
    found = {path: unpack_misfits(read_written_bytes(prepared.job.output_store, file)) for path, file in paths.items()}
    for column, count in sorted(misfits.items()):
        example = next(misfit for misfit in found[files[column].path] if misfit.column == column)
        value = example.value if len(example.value) <= MAX_VALUE else f"{example.value[:MAX_VALUE]}…"
        data_type, row = prepared.column_types.field(column).type, row_of(example.source_file, example.source_row)
        yield (
            f"column {column!r}: {counted(count, 'value does', 'values do')} not fit its type, {data_type},"
            f" such as {value} in {row}; {'it is' if count == 1 else 'they are'} null there and kept in {MISFITS_FOLDER}/;"
            f" in another output, input.column_types={{{column}: string}} keeps the column's values as text"
        )


@dataclass(frozen=True)
class RunResult:
    """How a run ended; as JSON, the last line of `run`. None: not known, or there was nothing to measure.

    Counts are those of the whole output (documents to labels) and of the input (files to mostly_rejected), then of this run.

    Attributes:
        labels: documents by label; of several models `name=label`.
        files_passed_over: files below the input that are not read; passed_over: {why: {"files": how many, "first": paths}}.
        removed: the first of files_removed.
        files_mostly_rejected: files with more than input.max_reject_share of their documents rejected;
            mostly_rejected: the first of them, with counts and reason.
        units_skipped: committed before this run; units_failed: quarantined, by this run or an earlier one.
        failed: where and why, of the first of these.
        seconds: all of this run but the report, in three parts: startup_seconds, until the first classifier had the model and
            its first unit, Ray's start included; labeling_seconds, from then to the last commit; finish_seconds.
        documents_per_second, tokens_per_second: of `seconds`, startup included; tokens without padding.
        labeling_documents_per_second, labeling_tokens_per_second: of labeling_seconds, the rates that people are shown.
        padding_share: of the tokens that went through the model.
        ran_on: what labeled: Ray, one process, or, if that died, `one process, then Ray`; None: nothing was to be labeled.
        classifiers: how many actors held the model; classify_seconds: where the time of all of them went (ClassifySeconds).
        model_flops_per_second: of all classifiers together, on tokens without padding, in labeling_seconds.
        mfu: model FLOPs utilization: FLOP/s of a classifier, waiting included, over its GPU's peak (models/flops.py).
        values_misfit: by column, the values that do not fit its type: null in the output, and in its `_misfits/`.
        limit: of a trial, how many documents it labels at the most; None: all of the input.
        input_table: format and version (of Iceberg the id of the snapshot) of the table that the input is; None: files.
        table: format and version (of Iceberg the id of the snapshot) of the table that the output is published as; None: none.
        without_padding: which models had batches without padding in this run, and why.
        without_sharing: which models had passes of their own in this run though they have layers in common, and why.
        without_compiling: which models were not compiled in this run though `model.compile: auto` would have them so, and why.
        timings: of `run --timings`: see Timings.to_dict.
        report: path of the output's report; report_error: why there is none; report_seconds: how long it took.
    """

    documents: int
    labeled: int
    rejected: int
    units: int
    tokens: int
    truncated: int
    labels: dict[str, int]
    files: int
    files_incomplete: int
    files_changed: int
    files_passed_over: int
    passed_over: dict[str, dict[str, Any]]
    files_removed: int
    removed: list[str]
    files_mostly_rejected: int
    mostly_rejected: list[str]
    units_skipped: int
    units_failed: int
    failed: list[str]
    documents_run: int
    tokens_run: int
    padding_share: float
    seconds: float
    startup_seconds: float | None
    labeling_seconds: float | None
    finish_seconds: float | None
    documents_per_second: float
    tokens_per_second: float
    labeling_documents_per_second: float | None
    labeling_tokens_per_second: float | None
    ran_on: str | None
    classifiers: int
    classify_seconds: dict[str, float]
    model_flops_per_second: int | None
    mfu: float | None
    output: str
    values_misfit: dict[str, int] = field(default_factory=dict)
    limit: int | None = None
    input_table: dict[str, Any] | None = None
    table: dict[str, Any] | None = None
    without_padding: list[str] = field(default_factory=list)
    without_sharing: list[str] = field(default_factory=list)
    without_compiling: list[str] = field(default_factory=list)
    timings: dict[str, Any] | None = None
    report: str | None = None
    report_error: str | None = None
    report_seconds: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds of the whole run."""
        return self.seconds + (self.report_seconds or 0.0)

    @property
    def complete(self) -> bool:
        """Whether every input document stands in the output, labeled or rejected, and no file is rejected as good as whole."""
        return not self.files_incomplete and not self.units_failed and not self.files_mostly_rejected

    @property
    def trial(self) -> bool:
        """Whether this was a run of the first documents only, with an output of its own."""
        return self.limit is not None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "trial": self.trial}
