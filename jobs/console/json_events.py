"""The events of a run as JSON lines (json_logging.py); run_progress.py shows the same on a terminal."""

import logging
import time
from typing import Any

from jobs.console.json_logging import LOGGER, add_common_keys
from jobs.console.live_view import LINE_SECONDS
from jobs.number_format import counted, of_about
from jobs.run.state import Event, Notice, RunState
from pipeline_ops.schema.failures import Failure
from pipeline_ops.writing.commit_record import Commit

RESULT_KEYS = (  # of the result, in the event `run_ended`
    *("documents", "labeled", "rejected", "units", "units_skipped", "units_failed", "files", "files_incomplete"),
    "files_mostly_rejected",
    *("documents_run", "tokens_run", "padding_share", "seconds", "documents_per_second", "tokens_per_second"),
    *("startup_seconds", "labeling_documents_per_second"),
)


class JsonEvents:
    """Logs the events of a run to LOGGER during a with block."""

    is_drawn = shows_activity = False

    def __init__(self, state: RunState, *, quiet: bool):
        self.state, self.quiet = state, quiet
        self.last_line = time.monotonic()

    def __enter__(self) -> "JsonEvents":
        state = self.state
        add_common_keys(run=state.run)
        self._log(
            "run_started",
            "the run has begun",
            output=state.output,
            files=state.files,
            units_skipped=state.units_skipped,
            units_expected=state.units_planned,
        )
        state.observers.append(self.observe)
        return self

    def __exit__(self, *exception: object) -> None:
        result = self.state.result
        if result is not None and exception[0] is None:
            summary = result.to_dict()
            level = logging.INFO if result.complete else logging.WARNING
            self._log("run_ended", "the run has ended", level, **{name: summary[name] for name in RESULT_KEYS})

    def observe(self, event: Event) -> None:
        match event:
            case Notice():
                self._log("notice", event.text)
            case Commit():
                self._log_commit(event)
            case Failure():
                self._log(
                    "unit_failed",
                    f"quarantined: {event}",
                    logging.WARNING,
                    failure=event.id,
                    where=event.where,
                    step=event.step,
                    error=event.error,
                )

    def _log_commit(self, commit: Commit) -> None:
        seconds = commit.classify_seconds
        self._log(
            "unit_committed",
            f"{counted(commit.documents, 'document is', 'documents are')} committed",
            unit=commit.unit,
            documents=commit.documents,
            rejected=commit.rejected,
            tokens=commit.tokens,
            padded_tokens=commit.padded_tokens,
            classify_seconds=round(seconds.busy, 6),
        )
        now, state = time.monotonic(), self.state
        if now - self.last_line >= LINE_SECONDS:
            self.last_line = now
            done, (documents, _) = state.committed, state.rates() or (None, None)
            self._log(
                "progress",
                f"{of_about(done.documents, done.documents_expected)} documents ({done.share:.0%})",
                units=state.units,
                units_expected=state.units_expected,
                documents=state.documents,
                labeling_documents_per_second=None if documents is None else round(documents, 1),
            )

    def _log(self, event: str, message: str, level: int = logging.INFO, **facts: Any) -> None:
        if not self.quiet:
            LOGGER.log(level, "%s", message, extra={"facts": {"event": event, **facts}})
