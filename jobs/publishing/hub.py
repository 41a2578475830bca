"""`label-corpus publish --hub`: the committed rows as a dataset repository on the Hugging Face hub.

It brings a branch to what the commit log says, as publish() does with a table: what is to be done is the difference of two
sets, the repository's files and those that the commits come to (hub_files), so that any later publication continues an
interrupted one. There is no local state. The output's lease is not needed: nothing is written there, a file that a run deletes
meanwhile starts the publication anew, and so does another publisher's commit.
"""

import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jobs.console import signals
from jobs.console.step_progress import Steps
from jobs.number_format import byte_size, counted
from jobs.publishing.dataset_card import Place, dataset_card, output_id, published_output
from jobs.results.open_output import find_labeled
from pipeline_ops.output.labeled_output import Labeled, schema_of
from pipeline_ops.publishing.hub_files import HubFile, hub_files, published_schema, rows_id, write_hub_file
from pipeline_ops.publishing.hub_repository import HubRepository, RepositoryChangedError, RepositoryState
from pipeline_ops.schema.errors import ReplacedError, StoreError, UserError

BATCH_FILES = 50  # per commit: the hub recommends fewer than 100, and `datasets` takes as many
BATCH_BYTES = 256 * 2**20  # of committed files: they are in memory, or on this machine's disk, while they are uploaded
IN_MEMORY_BYTES = 8 * 2**20  # of a file: a smaller one may be none of the hub's large files, and is then sent with the commit
MAX_COMMIT_FILES = 20_000  # the hub takes 25,000 large files in a commit
MAX_FILES = 100_000  # in a repository, as the hub recommends
MAX_FAILURES = 5  # without a commit between them
FIRST_PAUSE_S = 0.5  # doubled with each failure


@dataclass
class Progress:
    """What this publication has done so far."""

    head: str = ""
    private: bool = False
    commits: int = 0
    added: int = 0
    removed: int = 0
    bytes: int = 0  # of the files that were added, as they are in the output


@dataclass(frozen=True)
class Publisher:
    """A publication of an output: job file or folder, with overrides, as find_labeled takes them."""

    target: str
    overrides: Sequence[str]
    repository: HubRepository
    replace: bool
    steps: Steps
    progress: Progress

    def publish(self) -> Labeled:
        """Brings the branch to what the commit log says; returns the labels that it has now.

        Raises:
            UserError: there are no labels, or they are not to be in this repository, or the hub refuses.
            RepositoryChangedError, ReplacedError, StoreError: it has to be called again, and continues.
        """
        self.steps.begin("comparing the repository with the labels")
        # the repository first: of two publishers the one whose commits are read later has the newer ones, and a commit of
        # the other's that was not seen in the repository is refused as a stale parent
        state = self.repository.read()
        labeled = find_labeled(self.target, list(self.overrides))
        schema = published_schema(schema_of(labeled))
        files = hub_files(labeled, schema)
        self._check(state, labeled, files)
        self.progress.head = state.head
        place = Place(self.repository.name, self.repository.branch)
        card = dataset_card(labeled, schema, place, state.card, complete=True)
        missing = [file for path, file in files.items() if path not in state.files]
        removed = sorted(state.files.difference(files))
        if missing or removed or card != state.card:
            unfinished = dataset_card(labeled, schema, place, state.card, complete=False)
            self._commit_all(labeled, schema, missing, removed, card, unfinished)
        return labeled

    def _check(self, state: RepositoryState, labeled: Labeled, files: dict[str, HubFile]) -> None:
        name, earlier = self.repository.name, published_output(state.card)
        if not files:
            raise UserError(f"--hub: {labeled.path!r} holds no labeled documents; run the job first")
        if len(files) > MAX_FILES:
            raise UserError(
                f"--hub: {labeled.path!r} would be {len(files):,} files, and the hub takes {MAX_FILES:,};"
                f" `label-corpus compact {self.target}` first"
            )
        if earlier is None and state.others:
            raise UserError(f"--hub: {name} holds other files, such as {state.others[0]}; give the name of a new repository")
        if earlier not in (None, output_id(labeled)) and not self.replace:
            raise UserError(
                f"--hub: {name} holds the labels of another job; give another name, or --replace to have these in their place"
            )

    def _commit_all(
        self, labeled: Labeled, schema: pa.Schema, missing: list[HubFile], removed: list[str], card: str, unfinished: str
    ) -> None:
        """Uploads and commits the missing files, in commits of a bounded size.

        No revision has a document twice, and none is missing in between: the first commit removes all files whose commits were
        replaced, and adds all files of commits that replace others, or had other columns. They are uploaded before, batch by
        batch. Of more than MAX_COMMIT_FILES successors, the rest is missing until the next commit.
        """
        self.steps.begin("uploading", sum(file.bytes for file in missing), is_bytes=True)
        groups = _groups(missing, removed)
        for number, group in enumerate(groups):
            is_last = number == len(groups) - 1
            added = [one for batch in _batches(group) for one in self._upload(labeled, schema, batch)]
            what = card if is_last else unfinished if number == 0 else None
            message = f"Labels: {counted(len(added), 'file')} added, {len(removed):,} removed"
            self.progress.head = self.repository.commit(self.progress.head, added, removed, what, message)
            self.progress.commits += 1
            self.progress.added += len(added)
            self.progress.removed += len(removed)
            self.progress.bytes += sum(file.bytes for file in group)
            removed = []

    def _upload(self, labeled: Labeled, schema: pa.Schema, batch: Iterable[HubFile]) -> list[Any]:
        contents: dict[str, str | bytes] = {}
        with tempfile.TemporaryDirectory(prefix="label-corpus-") as folder:
            for number, file in enumerate(batch):
                signals.raise_pending()
                path = os.path.join(folder, f"{number}.parquet")
                write_hub_file(labeled, file, schema, path)
                contents[file.path] = path
                if os.path.getsize(path) <= IN_MEMORY_BYTES:
                    with open(path, "rb") as content:
                        contents[file.path] = content.read()
                    os.unlink(path)
            added = self.repository.upload(contents)
        self.steps.add(sum(file.bytes for file in batch))
        return added


def _groups(missing: list[HubFile], removed: list[str]) -> list[list[HubFile]]:
    """The files of each commit, at least one commit; the first one removes files."""
    first: list[list[HubFile]] = []
    if removed:
        in_other_columns = {rows_id(path) for path in removed}
        successors = [file for file in missing if file.replaces or rows_id(file.path) in in_other_columns]
        chosen = {file.path for file in successors}
        missing = [file for file in missing if file.path not in chosen]
        first = [successors[start : start + MAX_COMMIT_FILES] for start in range(0, len(successors), MAX_COMMIT_FILES)] or [[]]
    return [*first, *_batches(missing)] or [[]]


def _batches(files: Iterable[HubFile]) -> Iterator[list[HubFile]]:
    batch: list[HubFile] = []
    size = 0
    for file in files:
        if len(batch) == BATCH_FILES or (batch and size + file.bytes > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.bytes
    if batch:
        yield batch


def publish_to_hub(
    target: str,
    overrides: Sequence[str],
    name: str,
    *,
    private: bool = False,
    branch: str = "main",
    replace: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Publishes an output's labeled rows as a dataset repository.

    Args:
        target, overrides: as find_labeled.
        name: `user/name`; the repository is created if there is none.
        private: create it as a private one; one that exists must be private.
        replace: take the place of another job's labels.

    Returns:
        hub (its address), private, revision (the commit's id), documents, added, removed and bytes (of files), commits,
        seconds, output.

    Raises:
        UserError: the name, the token, or the output; the hub refuses or cannot be reached.
        StoreError: the hub or the store kept failing.
    """
    started = time.monotonic()
    repository, progress = HubRepository(name, branch), Progress()
    with Steps("publish", quiet=quiet) as steps:
        publisher = Publisher(target, overrides, repository, replace, steps, progress)
        labeled = _persistently(publisher, private)
    return {
        "hub": repository.url,
        "private": progress.private,
        "revision": progress.head,
        "documents": sum(commit.labeled for commit in labeled.commits),
        "added": progress.added,
        "removed": progress.removed,
        "bytes": progress.bytes,
        "commits": progress.commits,
        "seconds": round(time.monotonic() - started, 2),
        "output": labeled.path,
    }


def _persistently(publisher: Publisher, private: bool) -> Labeled:
    """Publishes again after a failure that passes, a few times; what was committed or uploaded stays."""
    repository, progress = publisher.repository, publisher.progress
    reached, failures = False, 0
    while True:
        commits = progress.commits
        try:
            if not reached:
                progress.private = repository.create(private=private)
                reached = True
            return publisher.publish()
        except (RepositoryChangedError, ReplacedError, StoreError) as error:
            if isinstance(error, StoreError) and error.unreachable and not reached:
                raise UserError(f"--hub: {error}") from error
            failures = 1 if progress.commits > commits else failures + 1
            if failures == MAX_FAILURES and isinstance(error, RepositoryChangedError):
                raise UserError(f"--hub: others keep committing to {repository.name}; publish again afterwards") from error
            if failures == MAX_FAILURES:
                raise
            time.sleep(FIRST_PAUSE_S * 2**failures)


def publish_lines(result: dict[str, Any]) -> list[str]:
    """The result for people."""
    visibility = "private" if result["private"] else "public"
    what = f"{counted(result['documents'], 'document')} at {result['hub']} ({visibility})"
    if not result["commits"]:
        return [f"nothing new; {what}"]
    removed = f", {result['removed']:,} replaced or dropped" if result["removed"] else ""
    return [f"{counted(result['added'], 'file')} added ({byte_size(result['bytes'])}){removed}; {what}"]
