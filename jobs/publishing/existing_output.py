"""The output of a job that has run: its commits and its table, for a command that writes to them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jobs.config import JobConfig
from pipeline_ops.joining.parts import parts_of
from pipeline_ops.output.commit_log import Ledger, read_ledger
from pipeline_ops.output.lease import Lease, check_free, hold_lease
from pipeline_ops.publishing.publish import Publication
from pipeline_ops.publishing.publisher import Publisher
from pipeline_ops.schema.errors import UserError, store_access


@dataclass(frozen=True)
class ExistingOutput:
    """An output whose lease is held, and whose table has the files of its commits.

    Attributes:
        publication: the version that was published when the lease was acquired; None: the table was as it should be.
    """

    ledger: Ledger
    lease: Lease
    publisher: Publisher
    publication: Publication | None


@contextmanager
def existing_output(job: JobConfig, command: str) -> Iterator[ExistingOutput]:
    """Hold the lease of an output that has labels, and publish its table, while the block runs.

    Args:
        command: for the metadata of the versions that are published.

    Raises:
        UserError: there is no output, or it cannot be read or written, or its table cannot.
        LeaseError: another run holds the lease.
    """
    store = job.output_store
    with store_access("output.path", store.path, "read"):
        seen = check_free(store)
        ledger = read_ledger(store)
        parts = parts_of(store)
    if parts:
        raise UserError(f"output.path: {store.path!r} holds the parts of a split job; give one at a time, as {parts[0].name}")
    if seen is None and not ledger.commits:
        raise UserError(f"output.path: {store.path!r} holds no labels; run the job first")
    publisher = Publisher(store, job.output, ledger, command)
    with hold_lease(store, job.output.lease_seconds, seen, ledger) as lease:
        yield ExistingOutput(ledger, lease, publisher, publisher.publish(lease, fence=lease.must_fence))
