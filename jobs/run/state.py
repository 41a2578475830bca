"""RunState: what a run has done so far. The live view, the JSON lines, the run record, the metrics and the result read it."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.attempts import StageActivity
from cluster.resources import Pools
from jobs.number_format import counted, of_about
from jobs.run.prepare import Prepared
from jobs.run.result import RunResult, misfit_lines, mostly_rejected_lines, removed_line
from jobs.timings.timings import FIRST_UNIT, PLANNING, Timings
from pipeline_ops.inputs import passed_over
from pipeline_ops.inputs.passed_over import PassedOver
from pipeline_ops.models.flops import peak_flops, utilization
from pipeline_ops.output.commit_log import current_commits, incomplete_files
from pipeline_ops.output.mostly_rejected import MostlyRejected, mostly_rejected
from pipeline_ops.schema.failures import Failure
from pipeline_ops.storage.paths import MOST_NAMES
from pipeline_ops.writing.commit_record import ClassifySeconds, Commit, WrittenFile

MAX_LISTED = 100  # failures, and files of which most is rejected, in the JSON line
UNITS = "pieces of input, each committed as a whole"  # what they are, for people
# steps of a run, as people see them
LOADING = "loading the model"
LABELING = "labeling"


@dataclass(frozen=True)
class Notice:
    """A message about the run as a whole."""

    text: str


@dataclass(frozen=True)
class Progress:
    """How far the labeling of the input is.

    Attributes:
        documents: labeled or rejected, by earlier runs too.
        share: of the input, estimated; from 0 to 1.
    """

    documents: int
    share: float

    @property
    def documents_expected(self) -> float | None:
        """Documents of the input, estimated; None: nothing is labeled yet."""
        return self.documents / self.share if self.documents and self.share else None


Event = Commit | Failure | Notice
Observer = Callable[[Event], None]


@dataclass
class RunState:
    """A run in progress. The driver's main thread writes it, other threads may read. Times are of time.monotonic.

    Counts are of this run, unless an attribute says otherwise. Observers are called after the counts include the event.
    """

    run: str  # id
    output: str
    files: int  # of the input
    limit: int | None = None  # of a trial: how many documents it labels
    input_table: dict[str, Any] | None = None  # the version of a table that the input is
    files_changed: int = 0  # since they were labeled
    passed_over: list[PassedOver] = field(default_factory=list)  # files below the input that are not read
    removed: tuple[str, ...] = ()  # input files of commits that no longer exist
    units_planned: int = 0  # estimated: line formats are divided into units while they are read
    unit_shares: Sequence[float] = ()  # of what this run reads, with each unit and those before it; see UnitSizes.shares
    units_skipped: int = 0  # committed before this run
    units_before: int = 0  # of these, those whose rows stay
    rejected_before: int = 0
    documents_before: int = 0  # of the input, committed before this run
    share_before: float = 0.0  # of the input, see Plan.share_done
    quarantined: list[Failure] = field(default_factory=list)  # of all runs, this one's last
    quarantined_before: int = 0
    observers: list[Observer] = field(default_factory=list)

    timings: Timings = field(default_factory=lambda: Timings(PLANNING))
    started: float = field(default_factory=time.monotonic)
    step: str = "starting"
    labeling_started: float | None = None  # when the first classifier had loaded the model and its first unit
    last_commit: float | None = None
    all_units_ended: bool = False  # each is committed or quarantined

    table: dict[str, Any] | None = None  # the version of the output's own table
    ran_on: str | None = None  # the executor's name
    pools: Pools | None = None
    device: str | None = None  # the GPU's name; None: CPUs
    dtypes: tuple[str, ...] = ()  # of the models
    activity: StageActivity = field(default_factory=StageActivity)
    without_padding: list[str] = field(default_factory=list)  # lines about models whose answers depend on it
    without_sharing: list[str] = field(default_factory=list)  # lines about models with layers in common that do not share them
    without_compiling: list[str] = field(default_factory=list)  # lines about models that the compiler does not work for

    units: int = 0
    documents: int = 0
    rejected: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    misfits: Counter[str] = field(default_factory=Counter)  # values that do not fit their column's type, by column
    misfits_files: dict[str, WrittenFile] = field(default_factory=dict)  # the first one by column
    classify_seconds: ClassifySeconds = field(default_factory=ClassifySeconds)
    flops: float | None = 0.0  # None: not known of each unit
    result: RunResult | None = None
    _furthest: Progress = field(default=Progress(0, 0.0), init=False)

    @property
    def failed_units(self) -> int:
        """Units quarantined by this run."""
        return len(self.quarantined) - self.quarantined_before

    @property
    def units_expected(self) -> int:
        """Units of this run when it is complete, estimated."""
        return max(self.units + self.failed_units, self.units_planned)

    def progress(self) -> Progress:
        """How far the labeling is, with what the classifiers have done of the units they work on; never less than before."""
        if self.all_units_ended:
            return self.committed
        units = list(self.activity.units.values())
        documents = self.documents_before + self.documents + int(sum(unit.documents for unit in units))
        share = self._share(documents, self.units + self.failed_units + sum(unit.share for unit in units))
        self._furthest = Progress(max(documents, self._furthest.documents), max(share, self._furthest.share))
        return self._furthest

    def rates(self) -> tuple[float, float] | None:
        """Documents and tokens per second of labeling_seconds, the classifiers' work in progress included; None before it."""
        seconds = self.labeling_seconds
        if not seconds:
            return None
        units = list(self.activity.units.values())
        documents = self.documents + sum(unit.documents for unit in units)
        return documents / seconds, (self.tokens + sum(unit.tokens for unit in units)) / seconds

    @property
    def labeling_seconds(self) -> float | None:
        """From the first classifier's first unit to now, or to the last commit when all is labeled."""
        if self.labeling_started is None:
            return None
        ended = time.monotonic() if self.step == LABELING else self.last_commit or self.labeling_started
        return ended - self.labeling_started

    def _share(self, documents: int, units: float) -> float:
        """The share of the input, or of a trial's documents, from 0 to 1, that is labeled with so many units of this run."""
        if self.all_units_ended:
            return 1.0
        if self.limit is not None:
            return min(documents / self.limit, 1.0)
        run = min(units / self.units_expected, 1.0) if self.units_expected else 1.0
        if self.unit_shares:  # the last ones are small
            shares = self.unit_shares
            whole, part = divmod(run * len(shares), 1)
            before = shares[int(whole) - 1] if whole else 0.0
            run = before + part * (shares[min(int(whole), len(shares) - 1)] - before)
        return self.share_before + (1 - self.share_before) * run

    @property
    def committed(self) -> Progress:
        """How far the labeling is, by what is committed or quarantined."""
        documents = self.documents_before + self.documents
        return Progress(documents, self._share(documents, self.units + self.failed_units))

    def labeled_text(self) -> str:
        """How much of the input is labeled, for people: 1,500 of about 4,000 documents are labeled."""
        if self.result is not None:
            return f"{counted(self.result.documents, 'document is', 'documents are')} labeled"
        done = self.committed
        if not done.documents:
            return "nothing is labeled yet"
        return f"{of_about(done.documents, done.documents_expected)} documents are labeled"

    def begin_step(self, step: str) -> None:
        """Sets what the run does from now on, for people and for its timings, which leave "finishing: " out."""
        self.step = step
        self.timings.begin(FIRST_UNIT if step == LOADING else step.rpartition(": ")[2])

    def begin_labeling(
        self, pools: Pools, device: str | None, dtypes: Sequence[str], unit_shares: Sequence[float] = ()
    ) -> None:
        """Marks the start of the stages.

        Args:
            device: the GPU's name, None for CPUs.
            dtypes: of each model, in the job's order.
            unit_shares: as UnitSizes.shares; empty: all units are of one size.
        """
        self.pools, self.device, self.dtypes = pools, device, tuple(dtypes)
        if unit_shares:
            self.unit_shares, self.units_planned = unit_shares, len(unit_shares)
        self.begin_step(LOADING)

    def set_activity(self, activity: StageActivity) -> None:
        """Sets what the stages work on at the moment; may be called from another thread."""
        self.activity = activity
        if self.step == LOADING and activity.busy.get("classify"):
            self._begin_classifying(time.monotonic())

    def _begin_classifying(self, moment: float) -> None:
        if self.labeling_started is None or moment < self.labeling_started:
            self.labeling_started = moment
        if self.step == LOADING:
            self.step = LABELING

    def end_labeling(self) -> None:
        """Marks that the stages have no unit left: how many there are is an estimate no longer."""
        self.units_planned, self.all_units_ended = self.units + self.failed_units, True

    def add(self, outcome: Commit | Failure) -> None:
        """Counts a unit that has been committed or quarantined."""
        if isinstance(outcome, Commit):
            self._count(outcome)
        else:
            self.quarantined.append(outcome)
        self._publish(outcome)

    def notify(self, text: str) -> None:
        """Shows a message about the run as a whole."""
        self._publish(Notice(text))

    def note_once(self, lines: list[str], line: str) -> None:
        """Keeps a line about a model among `lines`, and shows it the first time."""
        if line not in lines:
            lines.append(line)
            self.notify(line)

    def _count(self, commit: Commit) -> None:
        self.last_commit = time.monotonic()
        self.timings.unit_committed(LABELING)
        if self.units == 0:
            took = commit.classify_seconds.busy + commit.stage_seconds.get("write", 0.0)
            self._begin_classifying(max(self.last_commit - took, self.started))
        self.activity.units.pop(commit.unit, None)
        self.units += 1
        self.documents += commit.documents
        self.rejected += commit.rejected
        self.tokens += commit.tokens
        self.padded_tokens += commit.padded_tokens
        self.labels.update(commit.labels)
        self.misfits.update(commit.misfits)
        if commit.misfits_file is not None:
            self.misfits_files = dict.fromkeys(commit.misfits, commit.misfits_file) | self.misfits_files
        self.classify_seconds = ClassifySeconds.sum_of([self.classify_seconds, commit.classify_seconds])
        self.flops = None if self.flops is None or commit.flops is None else self.flops + commit.flops

    def _publish(self, event: Event) -> None:
        for observer in self.observers:
            observer(event)


def state_of(prepared: Prepared, run: str, started: float, timings: Timings) -> RunState:
    """The state of a run that has just been prepared.

    Args:
        started: of time.monotonic, when preparing began.
    """
    return RunState(
        run=run,
        output=prepared.job.output.path,
        files=len(prepared.files),
        limit=prepared.limit,
        input_table=prepared.table.to_dict() if prepared.table is not None else None,
        files_changed=len(prepared.plan.changed),
        passed_over=prepared.passed_over,
        removed=prepared.plan.removed,
        units_planned=prepared.plan.num_units,
        units_skipped=len(prepared.ledger.current),
        units_before=prepared.plan.units_done,
        rejected_before=sum(
            commit.rejected for commit in prepared.ledger.current.values() if commit.unit not in prepared.plan.stale
        ),
        documents_before=prepared.plan.documents_done,
        share_before=prepared.plan.share_done,
        quarantined=list(prepared.failures),
        quarantined_before=len(prepared.failures),
        timings=timings,
        started=started,
    )


def end_run(state: RunState, prepared: Prepared) -> RunResult:
    """Sets and returns the result of a run that ends now; names the input files that are not completely labeled."""
    # completeness is a comparison with the input, not the absence of an error
    incomplete = incomplete_files(prepared.files, prepared.ledger.commits)
    for path in incomplete:
        state.notify(f"not completely labeled: {path}")
    if state.quarantined:
        failed = counted(len(state.quarantined), "failed unit is", "failed units are")
        state.notify(
            f"{failed} quarantined; `run --retry-failed` labels {'it' if len(state.quarantined) == 1 else 'them'} again"
        )
    rejected = mostly_rejected(prepared.files, prepared.ledger.commits, prepared.job.input.max_reject_share)
    for line in mostly_rejected_lines(rejected):
        state.notify(line)
    for line in misfit_lines(state.misfits, state.misfits_files, prepared):
        state.notify(line)
    if state.removed:
        state.notify(removed_line(state.removed, len(state.removed), prepared.job.output.drop_removed))
    state.result = result_of(state, prepared.ledger.commits, len(incomplete), rejected)
    return state.result


def result_of(
    state: RunState, commits: dict[str, Commit], incomplete: int, rejected: Sequence[MostlyRejected] = ()
) -> RunResult:
    """The result of a run that ends now.

    Args:
        commits: of the whole output, by unit id.
        incomplete: input files not labeled from the first row to the last.
        rejected: input files of which most is rejected.
    """
    ended = time.monotonic()
    seconds = ended - state.started
    current = [commit for commit in current_commits(commits).values() if commit.pieces]
    labeling = _between(state.labeling_started, state.last_commit)
    flops = state.flops if state.units else None
    mfu = utilization(flops, state.classify_seconds.total, _peak_flops(state))
    quarantined = sorted(state.quarantined, key=lambda failure: failure.where)  # the same at every run
    labels, misfits = Counter[str](), Counter[str]()
    for commit in current:
        labels.update(commit.labels)
        misfits.update(commit.misfits)
    return RunResult(
        documents=sum(commit.documents for commit in current),
        labeled=sum(commit.labeled for commit in current),
        rejected=sum(commit.rejected for commit in current),
        units=len(current),
        tokens=sum(commit.tokens for commit in current),
        truncated=sum(commit.truncated for commit in current),
        labels=dict(sorted(labels.items())),
        files=state.files,
        files_incomplete=incomplete,
        files_changed=state.files_changed,
        files_passed_over=len(state.passed_over),
        passed_over=passed_over.summary_of(state.passed_over),
        files_removed=len(state.removed),
        removed=list(state.removed[:MOST_NAMES]),
        files_mostly_rejected=len(rejected),
        mostly_rejected=[str(one) for one in rejected[:MAX_LISTED]],
        units_skipped=state.units_skipped,
        units_failed=len(state.quarantined),
        failed=[str(failure) for failure in quarantined[:MAX_LISTED]],
        documents_run=state.documents,
        tokens_run=state.tokens,
        padding_share=round(1 - state.tokens / state.padded_tokens, 4) if state.padded_tokens else 0.0,
        seconds=round(seconds, 2),
        startup_seconds=_rounded(_between(state.started, state.labeling_started)),
        labeling_seconds=_rounded(labeling),
        finish_seconds=_rounded(_between(state.last_commit, ended)),
        documents_per_second=round(state.documents / seconds, 1),
        tokens_per_second=round(state.tokens / seconds, 1),
        labeling_documents_per_second=round(state.documents / labeling, 1) if labeling else None,
        labeling_tokens_per_second=round(state.tokens / labeling, 1) if labeling else None,
        ran_on=state.ran_on if state.pools else None,
        classifiers=state.pools.classifiers if state.pools else 0,
        classify_seconds={name: round(value, 2) for name, value in state.classify_seconds.to_dict().items()},
        model_flops_per_second=round(flops / labeling) if flops is not None and labeling else None,
        mfu=None if mfu is None else round(mfu, 4),
        output=state.output,
        values_misfit=dict(sorted(misfits.items())),
        limit=state.limit,
        input_table=state.input_table,
        table=state.table,
        without_padding=state.without_padding,
        without_sharing=state.without_sharing,
        without_compiling=state.without_compiling,
    )


def _peak_flops(state: RunState) -> float | None:
    """FLOP/s of the part of a GPU that a classifier has; None where it is not known, or the models' dtypes differ."""
    peak = peak_flops(state.device, state.dtypes[0]) if len(set(state.dtypes)) == 1 else None
    return peak * state.pools.gpus_per_classifier if peak and state.pools else None


def _between(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else end - begin


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)
