"""What a run tells about itself as JSON lines (logs.py), with the same calls as progress.Progress, which tells it to people."""

import logging
import time
from typing import Any

from cluster.attempts import StageActivity
from cluster.resources import Pools
from jobs.console.json_logging import LOGGER, about
from jobs.console.live_view import LINE_SECONDS
from pipeline_ops.planning.work_plan import Plan
from pipeline_ops.schema.failures import Failure
from pipeline_ops.writing.commit_record import ClassifySeconds, Commit

ENDED = (  # of the run's JSON line
    *("documents", "labeled", "rejected", "units", "units_skipped", "units_failed", "files", "files_incomplete"),
    *("documents_run", "tokens_run", "padding_share", "seconds", "documents_per_second", "tokens_per_second"),
)


class JsonLines:
    """A run's events as records of LOGGER."""

    watches = False

    def __init__(self, run: str, plan: Plan, *, quiet: bool):
        self.quiet = quiet
        self.units = self.documents = 0
        self.total = plan.num_units
        self.started = self.last_line = time.monotonic()
        about(run=run)

    def __enter__(self) -> "JsonLines":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def begin(self, **facts: Any) -> None:
        self._tell("run_started", "the run has begun", **facts)

    def doing(self, what: str, pools: Pools | None = None) -> None:
        """Nothing that a machine would have to be told."""

    def works(self, at_work: StageActivity) -> None:
        """The metrics tell it better."""

    def say(self, text: str) -> None:
        self._tell("notice", text)

    def add(self, commit: Commit) -> None:
        self.units += 1
        self.documents += commit.documents
        seconds = commit.classify_seconds or ClassifySeconds()
        self._tell(
            "unit_committed",
            f"{commit.documents} documents are committed",
            unit=commit.unit,
            documents=commit.documents,
            rejected=commit.rejected,
            tokens=commit.tokens,
            padded_tokens=commit.padded_tokens,
            classify_seconds=round(seconds.total - seconds.waiting, 6),
        )
        now = time.monotonic()
        if now - self.last_line >= LINE_SECONDS:
            self.last_line = now
            expected = max(self.units, self.total)
            self._tell(
                "progress",
                f"{self.documents:,} documents, {self.units:,} of about {expected:,} units",
                units=self.units,
                units_expected=expected,
                documents=self.documents,
                documents_per_second=round(self.documents / (now - self.started), 1),
            )

    def quarantine(self, failure: Failure) -> None:
        self._tell(
            "unit_failed",
            f"quarantined: {failure.where}: {failure.error}: {failure.message}",
            logging.WARNING,
            failure=failure.id,
            where=failure.where,
            step=failure.step,
            error=failure.error,
        )

    def end(self, summary: dict[str, Any]) -> None:
        counts = {name: summary[name] for name in ENDED}
        incomplete = bool(summary["units_failed"] or summary["files_incomplete"])
        self._tell("run_ended", "the run has ended", logging.WARNING if incomplete else logging.INFO, **counts)

    def _tell(self, event: str, message: str, level: int = logging.INFO, **facts: Any) -> None:
        if not self.quiet:
            LOGGER.log(level, "%s", message, extra={"facts": {"event": event, **facts}})
