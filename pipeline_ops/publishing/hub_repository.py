"""A dataset repository on the Hugging Face hub, by huggingface_hub: its state at a commit, and commits that follow from one.

The address of the hub and the token come from huggingface_hub alone: HF_ENDPOINT, HF_TOKEN, `hf auth login`. It repeats failed
requests five times, uploads that it interrupted and did before are found by their SHA-256, and a commit names its parent, so
that of two publishers one is refused.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline_ops.publishing.hub_files import HUB_FILE
from pipeline_ops.schema.errors import StoreError, UserError, one_line

CARD = "README.md"
OWN_DATA = (".gitattributes", ".gitignore", CARD)
CONFLICTS = (409, 412)  # the hub says 412 for a stale parent, 409 for a commit that is being made
BUSY = (408, 429, 500, 502, 503, 504)


class RepositoryChangedError(Exception):
    """Somebody else has committed to the repository since it was read; nothing was committed."""


@dataclass(frozen=True)
class RepositoryState:
    """A branch of the repository at its newest commit.

    Attributes:
        head: that commit.
        files: paths of published files (HUB_FILE).
        others: paths of further files, but for the card and git's own.
        card: README.md; None: there is none.
    """

    head: str
    files: frozenset[str]
    others: tuple[str, ...]
    card: str | None


class HubRepository:
    """A branch of a dataset repository `user/name`, which the token may write to."""

    def __init__(self, name: str, branch: str = "main"):
        """Makes no request.

        Raises:
            UserError: the name is none of a repository, or there is no token.
        """
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import disable_progress_bars, logging, validate_repo_id

        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise UserError(f"--hub: {name!r} is no name of a repository: {one_line(error)}") from error
        if "/" not in name:
            raise UserError(f"--hub: {name!r} has no namespace; give user/name or organization/name")
        if get_token() is None:
            raise UserError("--hub: there is no token for the hub; log in with `hf auth login`, or set HF_TOKEN")
        logging.set_verbosity_error()  # its warnings have addresses with signatures in them
        disable_progress_bars()
        self.name, self.branch, self._api = name, branch, HfApi(library_name="label-corpus")

    @property
    def url(self) -> str:
        return f"{self._api.endpoint}/datasets/{self.name}"

    def create(self, *, private: bool) -> bool:
        """Creates the repository and the branch, as far as they do not exist.

        Args:
            private: of a new repository; one that exists must be private, too.

        Returns:
            Whether it is private.

        Raises:
            UserError: the hub refuses or cannot be reached, or the repository is public although `private` is asked for.
            StoreError: the hub keeps failing.
        """
        from huggingface_hub.errors import RepositoryNotFoundError

        with self._access():
            try:
                info = self._api.dataset_info(self.name)
            except RepositoryNotFoundError:
                self._api.create_repo(repo_id=self.name, repo_type="dataset", private=private or None, exist_ok=True)
                info = self._api.dataset_info(self.name)
            if private and not info.private:
                raise UserError(
                    f"--private: {self.name} exists on the hub and is public; make it private in its settings, or give another"
                    " name"
                )
            if self.branch != "main":
                self._api.create_branch(repo_id=self.name, repo_type="dataset", branch=self.branch, exist_ok=True)
            return bool(info.private)

    def read(self) -> RepositoryState:
        """The state of the branch; errors as create()."""
        with self._access():
            head = str(self._api.dataset_info(self.name, revision=self.branch).sha)
            found = self._api.list_repo_tree(repo_id=self.name, repo_type="dataset", revision=head, recursive=True)
            paths = sorted(entry.path for entry in found if hasattr(entry, "blob_id"))  # else it is a folder
            others = tuple(path for path in paths if not HUB_FILE.fullmatch(path) and path not in OWN_DATA)
            card = self._read_card(head) if CARD in paths else None
        return RepositoryState(head, frozenset(filter(HUB_FILE.fullmatch, paths)), others, card)

    def _read_card(self, head: str) -> str:
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

        answer = http_backoff("GET", f"{self.url}/resolve/{head}/{CARD}", headers=build_hf_headers(), follow_redirects=True)
        hf_raise_for_status(answer)
        return answer.content.decode(errors="replace")

    def upload(self, contents: Mapping[str, str | bytes]) -> list[Any]:
        """Uploads files, which a commit is to name later; those that the hub has received before are not sent again.

        Args:
            contents: {path in the repository: content, or the local path of a file that the hub stores as a large one}. The
                local files may be deleted afterwards.

        Returns:
            The commit operations that add them.
        """
        from huggingface_hub import CommitOperationAdd

        added = [CommitOperationAdd(path, content) for path, content in contents.items()]
        with self._access():
            self._api.preupload_lfs_files(repo_id=self.name, repo_type="dataset", additions=added, revision=self.branch)
        return added

    def commit(self, head: str, added: Sequence[Any], removed: Sequence[str], card: str | None, message: str) -> str:
        """Commits additions and removals in one step, as the successor of `head`.

        Args:
            added: of upload().
            card: the new README.md; None: it stays.

        Returns:
            The new head.

        Raises:
            RepositoryChangedError: the branch's head is another commit.
            UserError, StoreError: as create(); after a StoreError the commit may have been made.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        operations = [*added, *(CommitOperationDelete(path, is_folder=False) for path in removed)]
        if card is not None:
            operations.append(CommitOperationAdd(CARD, card.encode()))
        with self._access():
            made = self._api.create_commit(
                repo_id=self.name,
                repo_type="dataset",
                operations=operations,
                commit_message=message,
                revision=self.branch,
                parent_commit=head,
            )
        return str(made.oid)

    @contextmanager
    def _access(self) -> Iterator[None]:
        """Turns what huggingface_hub and its HTTP client raise into the errors that the methods name."""
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HTTPError,  # pyright: ignore[reportPrivateImportUsage] of the HTTP library that this version uses
            OfflineModeIsEnabled,
        )

        try:
            yield
        except OfflineModeIsEnabled as error:
            raise UserError("--hub: HF_HUB_OFFLINE is set, so that no request is made; unset it") from error
        except (RuntimeError, HTTPError) as error:
            # an upload's failure is the cause of a RuntimeError that names the file
            cause = error if isinstance(error, HTTPError) else error.__cause__
            if isinstance(cause, HfHubHTTPError):
                raise self._refusal(cause) from error
            if isinstance(cause, HTTPError):
                reason = f"{type(cause).__name__}: {_without_queries(one_line(cause))}"
                raise StoreError(f"the hub at {self._api.endpoint} cannot be reached: {reason}", unreachable=True) from error
            raise
        except UserError:
            raise
        except ValueError as error:  # the card's metadata, or what the hub says of a large file
            raise UserError(f"--hub: {self.name!r}: {one_line(error)}") from error

    def _refusal(self, error: Any) -> Exception:
        status = error.response.status_code
        said = _without_queries(" ".join((error.server_message or error.response.reason_phrase).split()))
        if status in CONFLICTS:
            return RepositoryChangedError(said)
        if status in BUSY:
            return StoreError(f"the hub answered {status} for {self.name}: {said}")
        remedy = {
            401: "the token is not valid, or not for this repository: `hf auth login`, or set HF_TOKEN",
            403: f"the token needs the right to write to {self.name.partition('/')[0]!r}",
            404: "check the name",
        }.get(status, f"see {self.url}")
        return UserError(f"--hub: {self.name!r}: the hub answered {status}, {said}; {remedy}")


def _without_queries(text: str) -> str:
    """Without what follows the ? of addresses: signatures are there."""
    return re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]*", r"\1", text)
