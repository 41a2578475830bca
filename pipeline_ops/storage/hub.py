"""hf:// through HfFileSystem: listings that are never stale, and files that are read at one commit of their repository.

The token and the hub's address are huggingface_hub's own, which repeats failed requests five times.
"""

import hashlib
from dataclasses import replace
from typing import Any, BinaryIO

from huggingface_hub import HfApi, HfFileSystem

from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.etags import identity_of


class HubFileSystem(HfFileSystem):
    """HfFileSystem with open_pinned, and without listings of its cache."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.heads: dict[tuple[str, str, str], str] = {}  # newest commits seen, by type and name of repository, and branch

    def resolve_path(self, path: str, revision: str | None = None) -> Any:
        try:
            return super().resolve_path(path, revision)
        except ValueError as error:
            raise UserError(f"'hf://{path}' is no path of the hub: {error}; give hf://datasets/user/name") from error

    def find(self, path: str, *arguments: Any, **options: Any) -> Any:
        return super().find(path, *arguments, **{"refresh": True, **options})

    def open_pinned(self, path: str, identity: str, **options: Any) -> BinaryIO:
        """Opens the file with that identity, at a commit that has it: whoever commits while it is read does not matter.

        Raises:
            OSError: the branch has another file of that name now, or none.
        """
        place = self.resolve_path(path)
        if not hasattr(place, "repo_id"):  # a bucket, which has no commits
            return self.open(path, "rb", **options)  # pyright: ignore[reportReturnType] fsspec's files are binary ones
        branch = (place.repo_type, place.repo_id, place.revision)
        for is_known in (branch in self.heads, False):
            if not is_known:
                api = HfApi(endpoint=self.endpoint, token=self.token)
                info = api.repo_info(place.repo_id, repo_type=place.repo_type, revision=place.revision)
                self.heads[branch] = str(info.sha)
            pinned = replace(place, revision=self.heads[branch], _raw_revision=None).unresolve()
            if self.isfile(pinned) and identity_of(self.info(pinned)) == identity:
                return self.open(pinned, "rb", **options)  # pyright: ignore[reportReturnType]
        raise OSError(f"hf://{path}: has changed since it was listed")

    @staticmethod
    def has_listed_bytes(data: bytes, identity: str) -> bool:
        """Whether the bytes are those of a listed file: by their SHA-256, of small files git's SHA-1 of a blob."""
        if len(identity) == 64:
            return hashlib.sha256(data).hexdigest() == identity
        blob = hashlib.sha1(b"blob %d\0" % len(data), usedforsecurity=False)
        blob.update(data)
        return len(identity) != 40 or blob.hexdigest() == identity
