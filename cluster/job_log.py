"""The log of a submitted job as it is written: each character once, over connections that break."""

import asyncio
import time
from collections.abc import Iterator

from cluster.jobs_api import Cluster, ClusterError, translate_client_errors

IDLE_S = 1  # at most, between two pieces of the log
PATIENCE_S = 120  # with a cluster that does not answer: a dashboard starts anew in less


def read_log(cluster: Cluster, submission_id: str) -> Iterator[str]:
    """The job's log in pieces until the job has ended; empty ones while there is nothing new, at least one a second.

    Raises:
        ClusterError: there is no such job, or the cluster has not answered for PATIENCE_S seconds.
    """
    yielded = 0  # characters
    answered = time.monotonic()
    while True:
        try:
            job = cluster.find(submission_id)
            answered = time.monotonic()
            if job is None or job.has_ended:
                break
            read = 0  # of this stream, which begins at the log's beginning
            for text in _stream(cluster, submission_id):
                yield text[max(0, yielded - read) :]
                read += len(text)
                yielded = max(yielded, read)
                answered = time.monotonic()
        except ClusterError:
            if time.monotonic() - answered > PATIENCE_S:
                raise
        yield ""
        time.sleep(IDLE_S)
    if job is None:
        raise ClusterError(f"the cluster at {cluster.address} knows no job {submission_id}")
    try:
        yield cluster.log(submission_id)[yielded:]  # a stream that ended may have broken off
    except ClusterError as error:
        yield f"the end of the log cannot be read: {error}\n"  # the node that ran the driver is gone


def _stream(cluster: Cluster, submission_id: str) -> Iterator[str]:
    """The texts of Ray's websocket until it ends for whatever reason; empty ones while there is nothing new."""
    with translate_client_errors(cluster.address), asyncio.Runner() as runner:
        texts = cluster.client.tail_job_logs(submission_id)

        async def following() -> str | None:
            return await anext(texts, None)

        while True:
            text = runner.get_loop().create_task(following())
            # asyncio prints what nobody asks for: a Ctrl-C that came while the task ran
            text.add_done_callback(lambda done: done.cancelled() or done.exception())
            while not text.done():
                runner.run(asyncio.wait({text}, timeout=IDLE_S))
                if not text.done():
                    yield ""
            piece = text.result()
            if piece is None:
                return
            yield piece
