"""Store: the files at a path, on local disk and wherever fsspec reaches; only this module and s3.py use fsspec.

Guarantee: an object appears whole or not at all. It is built in memory and put by one request (object stores) or written to a
temporary file in the same folder and renamed (local disk). Streams are used for reading only: closing a half-written fsspec
stream would publish the half (fsspec/spec.py, `AbstractBufferedFile.__exit__`).
"""

import contextlib
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO

import fsspec
import pydantic
from fsspec.implementations.local import LocalFileSystem

from pipeline_ops.schema.errors import PRECONDITION_FAILED, UserError, http_status_of
from pipeline_ops.storage.config import READ_AHEAD_BYTES, StorageConfig
from pipeline_ops.storage.etags import has_right_bytes, identity_of
from pipeline_ops.storage.paths import full_path, is_hub, is_local, is_s3, join

TEMPORARY_PREFIX = ".incomplete-"


@dataclass(frozen=True)
class StoredFile:
    """One listed file. `identity` changes whenever the content does: etag, or size and modification time."""

    path: str  # full path
    size: int  # bytes
    identity: str


@pydantic.dataclasses.dataclass(frozen=True)
class Store:
    """The files at `path`: a folder, a single file, or a glob. `path` may be given as users write it; it becomes a full path.

    A `name` is a path relative to the store's; a StoredFile, from a listing or stat(), has a full path. The client of an object
    store is made at the first request and cached per process (s3.s3_filesystem), so a Store can be pickled and sent to workers.
    """

    path: Annotated[str, pydantic.AfterValidator(full_path)]
    config: StorageConfig = StorageConfig()

    @property
    def is_local(self) -> bool:
        return is_local(self.path)

    def join(self, *names: str) -> str:
        """The full path of a name."""
        return join(self.path, *names)

    def relative(self, path: str) -> str:
        """The name of a full path below the store's."""
        return path.removeprefix(self.path).lstrip("/")

    def list_files(self) -> list[StoredFile]:
        """The data files: the file at `path`, all files below the folder, or those that the glob matches; sorted by path.

        [] where nothing is found. Below a folder, names that start with `_` or `.` are left out, as Spark, Arrow and Ray do:
        they hold markers and metadata. So are links to folders, which may lead to where they stand.

        Raises:
            UserError: the path's protocol is unknown or its plug-in is not installed.
        """
        return self.list_with_hidden()[0]

    def list_with_hidden(self) -> tuple[list[StoredFile], list[StoredFile]]:
        """(the files of list_files, the hidden ones below the folder), of one listing; of a file or a glob none is hidden.

        Among the hidden ones are empty folders with such names; their paths end with a slash.
        """
        fs, inner = self._locate(self.path)
        if any(character in inner for character in "*?[") and not fs.isfile(inner):
            found = fs.glob(inner, detail=True)
            return self._sorted(
                (name, info) for name, info in found.items() if info["type"] == "file" or self._is_link_to_file(info)
            ), []
        found = fs.find(inner, detail=True, withdirs=self.is_local)
        if list(found) == [inner] and fs.isfile(inner):
            return self._sorted(found.items()), []
        if self.is_local:
            found = _with_empty_hidden_folders(found, inner)
        hidden = {name for name, info in found.items() if is_hidden(name[len(inner) :]) or self._is_link_to_folder(info)}
        return (
            self._sorted((name, info) for name, info in found.items() if name not in hidden),
            self._sorted((name, found[name]) for name in hidden),
        )

    def list_all(self, folder: str = "") -> list[StoredFile]:
        """Every file below the folder, or below the sub-folder of that name, hidden ones too, sorted by path; [] if none."""
        fs, inner = self._locate(self.join(folder) if folder else self.path)
        return self._sorted(fs.find(inner, detail=True).items())

    def names_in(self, folder: str) -> list[str]:
        """The names of the files and folders right in the sub-folder of that name; [] if there is none."""
        fs, inner = self._locate(self.join(folder))
        try:
            return [path.rstrip("/").rpartition("/")[2] for path in fs.ls(inner, detail=False)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def has_folder(self, name: str) -> bool:
        """Whether there is a folder of that name on local disk, be it empty; object stores have none."""
        return self.is_local and os.path.isdir(self.join(name))

    def stat(self, name: str) -> StoredFile:
        """One file as a listing would give it; raises FileNotFoundError where there is none."""
        fs, inner = self._locate(self.join(name))
        return self._stored_file(inner, fs.info(inner))

    def open(self, file: StoredFile, *, sequential: bool) -> BinaryIO:
        """A seekable binary file. `sequential` reads ahead; otherwise each read moves just the bytes asked for.

        On S3 it is the listed object, and no later one: see s3.PinnedFile.

        Raises:
            OSError: a local file has changed since it was listed.
        """
        fs, inner = self._locate(file.path)
        if isinstance(fs, LocalFileSystem):
            opened = open(inner, "rb")  # noqa: SIM115 the caller closes it
            stat = os.fstat(opened.fileno())
            if identity_of({"size": stat.st_size, "mtime": stat.st_mtime}) != file.identity:
                opened.close()
                raise OSError(f"{file.path}: has changed since it was listed")
            return opened
        if is_s3(file.path):
            return fs.open_pinned(inner, file.size, file.identity, sequential=sequential)
        cache = {"block_size": READ_AHEAD_BYTES, "cache_type": "readahead"} if sequential else {"cache_type": "none"}
        if is_hub(file.path):
            return fs.open_pinned(inner, file.identity, **cache)
        return fs.open(inner, "rb", **cache)

    def read(self, name: str) -> bytes:
        """The object as it is now; raises FileNotFoundError where there is none, and what read_files does."""
        return self.read_files([self.stat(name)])[0]

    def read_files(self, files: list[StoredFile]) -> list[bytes]:
        """The contents of listed files, in that order; concurrent where the store allows.

        Raises:
            StoreError: the bytes are not those of the listed object, three times.
            OSError: what try_read_files gives.
        """
        contents = []
        for content in self.try_read_files(files):
            if isinstance(content, Exception):
                raise content
            contents.append(content)
        return contents

    def try_read_files(self, files: list[StoredFile]) -> list[bytes | Exception]:
        """As read_files, but a file that cannot be read gives its error in place of its content."""
        if not files:
            return []
        fs, inner = self._locate_all(file.path for file in files)
        if isinstance(fs, LocalFileSystem):
            contents = [_read_local(path) for path in inner]
        else:  # not `cat`, which takes a name with one of *?[ in it for a pattern
            contents = fs.cat_ranges(inner, None, None, on_error="return")
        return [_checked(fs, path, file, content) for path, file, content in zip(inner, files, contents, strict=True)]

    def read_tails(self, files: list[StoredFile], tail_bytes: int) -> list[bytes | Exception]:
        """The last `tail_bytes` of each file, concurrently where the store allows; its error where one cannot be read."""
        if not files:
            return []
        fs, inner = self._locate_all(file.path for file in files)
        starts = [max(0, file.size - tail_bytes) for file in files]
        return fs.cat_ranges(inner, starts, [file.size for file in files], on_error="return")

    def put(self, name: str, data: bytes) -> None:
        self.put_many({name: data})

    def put_many(self, contents: Mapping[str, Any]) -> None:
        """Puts {name: bytes}, each whole: one concurrent PUT each on an object store; write, sync, rename on local disk.

        Raises:
            StoreError: S3 holds other bytes than were sent, three times.
        """
        if not contents:
            return
        fs, inner = self._locate_all(self.join(name) for name in contents)
        if isinstance(fs, LocalFileSystem):
            for path, data in zip(inner, contents.values(), strict=True):
                os.replace(_write_temporary(path, data), path)
            return
        as_bytes = {path: bytes(data) for path, data in zip(inner, contents.values(), strict=True)}
        if is_s3(self.path):
            fs.put_all_checked(as_bytes)
        else:
            fs.pipe(as_bytes)

    def put_new(self, name: str, data: bytes) -> bool:
        """Creates the object unless it exists; returns whether the object that exists is this one.

        Exactly one of several concurrent callers wins. A lost answer to a put that was done makes the client's retry report
        "exists", so the object is read back: `data` must hold something unique to this attempt.
        """
        fs, inner = self._locate(self.join(name))
        if isinstance(fs, LocalFileSystem):
            temporary = _write_temporary(inner, data)
            try:
                os.link(temporary, inner)  # fails if it exists, atomically; rename would replace
                return True
            except FileExistsError:
                return self._holds(name, data)
            finally:
                os.unlink(temporary)
        try:
            if is_s3(self.path):
                fs.put_checked(inner, data, mode="create")
            else:
                fs.pipe_file(inner, data, mode="create")
            return True
        except FileExistsError:
            return self._holds(name, data)
        except OSError as error:
            # s3fs goes by the answer's body: radosgw's lacks the element that it looks for, and a body may be cut
            if http_status_of(error) != PRECONDITION_FAILED:
                raise
            return self._holds(name, data)

    def _holds(self, name: str, data: bytes) -> bool:
        try:
            return self.read(name) == data
        except FileNotFoundError:  # deleted since: it was another writer's
            return False

    def delete(self, names: Iterable[str]) -> None:
        """Deletes the objects; one that is gone already is fine."""
        paths = [self.join(name) for name in names]
        if not paths:
            return
        fs, inner = self._locate_all(paths)
        if isinstance(fs, LocalFileSystem):
            for path in inner:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        elif is_s3(self.path):
            fs.delete_all(inner)
        else:
            for path in inner:  # not `rm`: it takes names for patterns, and fails where one is gone
                with contextlib.suppress(FileNotFoundError):
                    fs.rm_file(path)

    def remove_empty_partitions(self) -> None:
        """Removes empty hive folders (`column=value`) on local disk; object stores have no folders."""
        if self.is_local:
            for path, _, _ in os.walk(self.path, topdown=False):
                if "=" in path.removeprefix(self.path) and not os.listdir(path):
                    os.rmdir(path)

    def remove_folder_if_empty(self, path: str) -> None:
        """Removes the folder at this full path on local disk if it is empty; object stores have no folders."""
        if self.is_local and os.path.isdir(path) and not os.listdir(path):
            os.rmdir(path)

    def check_writable(self) -> list[str]:
        """Creates and deletes a probe object in the folder, and leaves nothing behind.

        Returns:
            The full paths of the folders that do not exist yet, innermost first; [] on object stores, which have none.

        Raises:
            OSError: it cannot be written; the reason is the store's own.
        """
        created = []
        parent = self.path
        while self.is_local and not os.path.exists(parent):
            created.append(parent)
            parent = os.path.dirname(parent)
        probe = f"{TEMPORARY_PREFIX}probe-{uuid.uuid4().hex}"
        self.put(probe, b"")
        self.delete([probe])
        for path in created:
            os.rmdir(path)
        return created

    def arrow_filesystem(self) -> tuple[Any, str]:
        """The file system for pyarrow's own readers, and the store's path as it spells it."""
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        fs, inner = self._locate(self.path)
        return PyFileSystem(FSSpecHandler(fs)), inner

    def _locate(self, path: str) -> tuple[Any, str]:
        """The fsspec file system, and the full path as that file system spells it."""
        if is_local(path):
            return LocalFileSystem(), LocalFileSystem._strip_protocol(path)
        if is_s3(path):
            from pipeline_ops.storage.s3 import s3_filesystem  # half a second of CPU

            fs = s3_filesystem(self.config, os.getpid())  # pyright: ignore[reportArgumentType] frozen models are hashable
            return fs, path.split("://", 1)[1].rstrip("/")
        if is_hub(path):
            from pipeline_ops.storage.hub import HubFileSystem

            return HubFileSystem(), path.split("://", 1)[1].rstrip("/")
        try:
            fs, inner = fsspec.core.url_to_fs(path)
        except (ValueError, ImportError) as error:
            raise UserError(f"{path!r}: {error}; install the fsspec plug-in for {path.split('://', 1)[0]}://") from error
        return fs, inner.rstrip("/") or "/"

    def _locate_all(self, paths: Iterable[str]) -> tuple[Any, list[str]]:
        """_locate of several paths of one file system."""
        located = [self._locate(path) for path in paths]
        return located[0][0], [inner for _, inner in located]

    def _sorted(self, found: Iterable[tuple[str, dict[str, Any]]]) -> list[StoredFile]:
        return sorted((self._stored_file(path, info) for path, info in found), key=lambda file: file.path)

    def _is_link_to_file(self, info: dict[str, Any]) -> bool:
        """Whether a listed name, whose type is "other", is a link to a file, or to nothing, which reading it then says."""
        return self.is_local and info.get("islink", False) and not os.path.isdir(info["name"])

    def _is_link_to_folder(self, info: dict[str, Any]) -> bool:
        return self.is_local and info.get("islink", False) and os.path.isdir(info["name"])

    def _stored_file(self, inner: str, info: dict[str, Any]) -> StoredFile:
        path = inner if self.is_local else f"{self.path.split('://', 1)[0]}://{inner.lstrip('/')}"
        if self._is_link_to_file(info) and os.path.exists(inner):  # the size is the target's, but the time is the link's
            info = {**info, "mtime": os.stat(inner).st_mtime}
        return StoredFile(path, int(info["size"] or 0), identity_of(info))


def is_hidden(name: str) -> bool:
    """Whether a name below a folder is none of a data file."""
    # "folder/" objects are markers that some S3 tools leave
    return name.endswith("/") or any(part.startswith(("_", ".")) for part in name.lstrip("/").split("/"))


def _with_empty_hidden_folders(found: Mapping[str, dict[str, Any]], root: str) -> dict[str, dict[str, Any]]:
    """What was found below a local folder, without the folders but those, and those named as markers on object stores are."""
    parents = {path.rpartition("/")[0] for path in found}
    kept = {}
    for path, info in found.items():
        if info["type"] != "directory" or info.get("islink"):
            kept[path] = info
        elif path not in parents and is_hidden(path[len(root) :]):
            kept[path + "/"] = info
    return kept


def _read_local(path: str) -> bytes | Exception:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        return error


def _checked(fs: Any, inner: str, file: StoredFile, content: bytes | Exception) -> bytes | Exception:
    """`content` if it is the listed object's; on S3 it is read again otherwise."""
    if isinstance(content, Exception):
        return content
    if is_s3(file.path):
        if has_right_bytes(content, file.size, file.identity):
            return content
        try:
            return fs.read_checked(inner, file.size, file.identity)
        except OSError as error:
            return error
    if len(content) != file.size:
        return OSError(f"{file.path}: read {len(content)} bytes, listed {file.size}; it changed meanwhile")
    if is_hub(file.path) and not fs.has_listed_bytes(content, file.identity):
        return OSError(f"{file.path}: its content is not what was listed; it changed meanwhile")
    return content


def _write_temporary(path: str, data: Any) -> str:
    """Writes and syncs `data` to a temporary name in the folder of `path`; returns that name."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = os.path.join(os.path.dirname(path), f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    return temporary
