"""Jobs on a Ray cluster, by Ray's Job Submission API; the token is found by Ray itself (RAY_AUTH_TOKEN and its like)."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cluster.session import jobs_address_is

# they log uploads and closed sockets
NOISY_LOGGERS = tuple(
    f"ray.{name}" for name in ("_private.runtime_env.packaging", "dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk")
)
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


class ClusterError(Exception):
    """A cluster that cannot be reached, does not let us in or refuses what it is asked; one line for people."""


class ClusterUnreachable(ClusterError):
    """No cluster answers: it may be starting, or away for a while."""


@dataclass(frozen=True)
class Submission:
    """A job on the cluster, as Ray's Jobs API has it."""

    id: str
    status: str  # PENDING, RUNNING, SUCCEEDED, FAILED, STOPPED
    exit_code: int | None  # of the entrypoint; None: it has not ended, or not by itself
    message: str
    started: datetime | None
    ended: datetime | None
    metadata: dict[str, str]

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


class Cluster:
    """A connection to a cluster's Jobs API.

    Args:
        address: of the dashboard, http://HEAD:8265; or of a cluster that Ray can ask for it.

    Raises:
        ClusterError: no cluster answers, or the token is wrong.
    """

    def __init__(self, address: str):
        self.address = address
        with translate_client_errors(address):
            from ray.job_submission import JobSubmissionClient

            for name in NOISY_LOGGERS:
                logging.getLogger(name).setLevel(logging.WARNING)
            with jobs_address_is(address):
                self.client = JobSubmissionClient(address)

    def submit(
        self,
        submission_id: str,
        entrypoint: str,
        *,
        runtime_env: dict[str, Any],
        metadata: dict[str, str],
        resources: dict[str, Any] | None = None,
    ) -> bool:
        """Submits a job; False: there is one with this id already, be it running or over.

        Args:
            entrypoint: a shell command, run on the head node, or where `resources` are.
            resources: any of Ray's entrypoint_num_cpus, entrypoint_num_gpus, entrypoint_memory (bytes), entrypoint_resources,
                entrypoint_label_selector.

        Raises:
            ClusterError: the cluster refuses it, or is gone.
        """
        with translate_client_errors(self.address):
            try:
                self.client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=submission_id,
                    runtime_env=runtime_env,
                    metadata=metadata,
                    **(resources or {}),
                )
            except RuntimeError:
                if self.find(submission_id) is None:
                    raise
                return False
        return True

    def find(self, submission_id: str) -> Submission | None:
        """The job of this id; None: there is none."""
        return next((job for job in self.list() if job.id == submission_id), None)

    def list(self) -> list[Submission]:
        """Submitted jobs, oldest first; the cluster forgets them when it ends."""
        with translate_client_errors(self.address):
            details = [job for job in self.client.list_jobs() if job.submission_id]
        jobs = [
            Submission(
                id=job.submission_id or "",
                status=str(job.status.value),
                exit_code=job.driver_exit_code,
                message=" ".join((job.message or "").split()),
                started=_time(job.start_time),
                ended=_time(job.end_time),
                metadata=job.metadata or {},
            )
            for job in details
        ]
        return sorted(jobs, key=lambda job: (job.started is None, job.started, job.id))

    def log(self, submission_id: str) -> str:
        """All that the job has written to stdout and stderr so far.

        Raises:
            ClusterError: the node is gone that ran the driver.
        """
        with translate_client_errors(self.address):
            return self.client.get_job_logs(submission_id)

    def stop(self, submission_id: str) -> bool:
        """Asks a job to end (SIGTERM, then SIGKILL); False: it has ended already.

        Raises:
            ClusterError: there is no such job.
        """
        with translate_client_errors(self.address):
            return self.client.stop_job(submission_id)


@contextmanager
def translate_client_errors(address: str) -> Iterator[None]:
    """Turns what Ray's client raises into a ClusterError."""
    from aiohttp import ClientError
    from ray.exceptions import AuthenticationError, RpcError

    try:
        yield
    except ClusterError:
        raise
    except AuthenticationError as error:
        raise ClusterError(
            f"the cluster at {address} does not let us in: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH)"
            f" to the cluster's token"
        ) from error
    except (OSError, RpcError) as error:
        raise ClusterUnreachable(
            f"no Ray cluster answers at {address}: give the dashboard's address, http://HEAD:8265"
        ) from error
    except (RuntimeError, ValueError, ClientError) as error:
        raise ClusterError(f"the cluster at {address} refuses: {' '.join(str(error).split())[:500]}") from error


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
