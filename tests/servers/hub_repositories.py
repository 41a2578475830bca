"""Dataset repositories as hub_server.py holds them: commits of files, of which large ones are known by their SHA-256."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

LARGE = (".parquet",)  # of .gitattributes


@dataclass(frozen=True)
class Blob:
    """A file of a commit."""

    content: bytes
    large: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        pointer = f"version 1\noid sha256:{self.sha256}\n".encode() if self.large else self.content
        return hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest()

    def entry(self, path: str) -> dict[str, Any]:
        """As listings have it."""
        entry: dict[str, Any] = {"type": "file", "path": path, "oid": self.oid, "size": len(self.content)}
        if self.large:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": 134}
        return entry


Tree = dict[str, Blob]


@dataclass
class Repository:
    """A dataset repository."""

    private: bool
    commits: dict[str, Tree] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)  # commits in the order of their creation
    branches: dict[str, str] = field(default_factory=dict)

    def add_commit(self, branch: str, tree: Tree) -> str:
        sha = hashlib.sha1(
            f"{branch} {self.log} {sorted((path, blob.oid) for path, blob in tree.items())}".encode()
        ).hexdigest()
        self.commits[sha] = tree
        self.log.append(sha)
        self.branches[branch] = sha
        return sha


def entries_below(tree: Tree, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    """A listing's files and folders."""
    prefix = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for path, blob in sorted(tree.items()):
        if not path.startswith(prefix):
            continue
        *folders, _ = path[len(prefix) :].split("/")
        for depth in range(1, len(folders) + 1 if recursive else min(len(folders), 1) + 1):
            name = prefix + "/".join(folders[:depth])
            entries[name] = {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0}
        if recursive or not folders:
            entries[path] = blob.entry(path)
    return list(entries.values())
