"""Files and objects by path, on local disk and wherever fsspec reaches; only this module and s3.py use fsspec.

Guarantee: an object appears whole or not at all. It is built in memory and put by one request (object stores) or written
beside its target and renamed (local disk); closing a half-written fsspec stream would publish the half (fsspec/spec.py,
`AbstractBufferedFile.__exit__`), so streams are used for reading only.
"""

import contextlib
import os
import uuid
from dataclasses import dataclass
from typing import Any, BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline_ops.schema.errors import PRECONDITION_FAILED, UserError, http_status_of
from pipeline_ops.storage.etags import has_right_bytes

TEMPORARY_PREFIX = ".incomplete-"


class StorageConfig(BaseModel):
    """How object storage is reached. Credentials come from the usual AWS chain only, never from the job file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint_url: str | None = Field(default=None, description="S3 endpoint, for stores that are not AWS")
    region: str | None = Field(default=None, description="S3 region; default: the AWS chain's")
    anonymous: bool = Field(default=False, description="read public buckets without credentials")
    path_style: bool = Field(default=False, description="address buckets as path, not as host name")
    cache_folder: str = Field(default="~/.cache/label-corpus", description="where each node keeps models from object storage")
    checksums: bool = Field(default=True, description="false for S3-compatible stores that refuse the newer checksum headers")

    @field_validator("endpoint_url")
    @classmethod
    def _no_secrets(cls, url: str | None) -> str | None:
        if url is not None and "@" in url:
            raise ValueError("credentials do not belong into the job file; use the AWS chain (environment, profile, role)")
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError(f"give it with http:// or https://, such as https://{url.split('://')[-1]}")
        return url


@dataclass(frozen=True)
class StoredFile:
    """One listed file. `identity` changes whenever the content does: etag, or size and modification time."""

    path: str
    size: int  # bytes
    identity: str


def filesystem(path: str, config: StorageConfig) -> tuple[Any, str]:
    """The fsspec file system for `path` and the path as that file system spells it.

    Raises:
        UserError: the path's protocol is unknown or its plug-in is not installed.
    """
    if is_local(path):
        return LocalFileSystem(), LocalFileSystem._strip_protocol(path)
    if _is_s3(path):
        from pipeline_ops.storage.s3 import s3_filesystem  # half a second of CPU

        fs = s3_filesystem(config, os.getpid())  # pyright: ignore[reportArgumentType] frozen models are hashable
        return fs, path.split("://", 1)[1].rstrip("/")
    try:
        fs, inner = fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise UserError(f"{path!r}: {error}; install the fsspec plug-in for {path.split('://', 1)[0]}://") from error
    return fs, inner.rstrip("/") or "/"


def arrow_filesystem(path: str, config: StorageConfig) -> tuple[Any, str]:
    """As filesystem(), for pyarrow's own readers."""
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    fs, inner = filesystem(path, config)
    return PyFileSystem(FSSpecHandler(fs)), inner


def is_local(path: str) -> bool:
    return "://" not in path or path.startswith(("file://", "local://"))


def _is_s3(path: str) -> bool:
    return path.startswith(("s3://", "s3a://"))


def full_path(path: str) -> str:
    """`path` in the form that is recorded: absolute for local paths, a URL without trailing slash otherwise."""
    if is_local(path):
        return os.path.abspath(os.path.expanduser(path.split("://", 1)[-1]))
    return path.rstrip("/").replace("s3a://", "s3://", 1)


def join(folder: str, *names: str) -> str:
    return "/".join([folder.rstrip("/"), *names])


def _url(path_in_fs: str, like: str) -> str:
    """`path_in_fs`, as listed by the file system of `like`, spelled the way `like` is."""
    return path_in_fs if is_local(like) else f"{like.split('://', 1)[0]}://{path_in_fs.lstrip('/')}"


def _identity(info: dict[str, Any]) -> str:
    for key in ("ETag", "etag", "md5Hash", "crc32c"):
        if info.get(key):
            return str(info[key]).strip('"')
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        if info.get(key) is not None:
            return f"{info['size']}@{info[key]}"
    return str(info["size"])


def _stored_file(path: str, info: dict[str, Any], like: str) -> StoredFile:
    return StoredFile(_url(path, like), int(info["size"] or 0), _identity(info))


def list_files(path: str, config: StorageConfig) -> list[StoredFile]:
    """The files at `path`: a file, all files below a folder, or those a glob matches; sorted by path, [] if there are none.

    Names that start with `_` or `.` are left out below a folder, as Spark, Arrow and Ray do: they hold markers and metadata.
    """
    path = full_path(path)
    fs, inner = filesystem(path, config)
    if any(character in inner for character in "*?[") and not fs.isfile(inner):
        found = fs.glob(inner, detail=True)
        return sorted(
            (_stored_file(name, info, path) for name, info in found.items() if info["type"] == "file"),
            key=lambda file: file.path,
        )
    found = fs.find(inner, detail=True)
    if list(found) == [inner] and fs.isfile(inner):
        return [_stored_file(inner, found[inner], path)]
    visible = []
    for name, info in found.items():
        below = name[len(inner) :].lstrip("/")
        hidden = any(part.startswith(("_", ".")) for part in below.split("/"))
        if not hidden and not name.endswith("/"):  # "folder/" objects are markers that some S3 tools leave
            visible.append(_stored_file(name, info, path))
    return sorted(visible, key=lambda file: file.path)


def list_all(folder: str, config: StorageConfig) -> list[StoredFile]:
    """Every file below `folder`, hidden ones too, sorted by path; [] when there is no such folder."""
    folder = full_path(folder)
    fs, inner = filesystem(folder, config)
    found = fs.find(inner, detail=True)
    return sorted((_stored_file(name, info, folder) for name, info in found.items()), key=lambda file: file.path)


def open_to_read(file: StoredFile, config: StorageConfig, *, sequential: bool) -> BinaryIO:
    """A seekable binary file. `sequential` reads ahead; otherwise each read moves just the bytes asked for.

    On S3 it is the listed object, and no later one: see s3.PinnedFile.
    """
    fs, inner = filesystem(file.path, config)
    if isinstance(fs, LocalFileSystem):
        opened = open(inner, "rb")  # noqa: SIM115 the caller closes it
        stat = os.fstat(opened.fileno())
        if _identity({"size": stat.st_size, "mtime": stat.st_mtime}) != file.identity:
            opened.close()
            raise OSError(f"{file.path}: has changed since it was listed")
        return opened
    if _is_s3(file.path):
        return fs.open_pinned(inner, file.size, file.identity, sequential=sequential)
    if sequential:
        return fs.open(inner, "rb", block_size=8 * 2**20, cache_type="readahead")
    return fs.open(inner, "rb", cache_type="none")


def read_bytes(path: str, config: StorageConfig) -> bytes:
    """The object as it is now; raises FileNotFoundError when there is none, and what read_files does."""
    return read_files([stat_file(path, config)], config)[0]


def read_files(files: list[StoredFile], config: StorageConfig) -> list[bytes]:
    """The contents of listed files of one file system, in that order; concurrent where the store allows.

    Raises:
        StoreError: the bytes are not those of the listed object, three times.
        OSError: what try_read_files gives.
    """
    contents = []
    for content in try_read_files(files, config):
        if isinstance(content, Exception):
            raise content
        contents.append(content)
    return contents


def try_read_files(files: list[StoredFile], config: StorageConfig) -> list[bytes | Exception]:
    """As read_files, but a file that cannot be read gives its error in place of its content."""
    if not files:
        return []
    fs = filesystem(files[0].path, config)[0]
    inner = [filesystem(file.path, config)[1] for file in files]
    if isinstance(fs, LocalFileSystem):
        contents = [_read_local(path) for path in inner]
    else:  # not `cat`, which takes a name with one of *?[ in it for a pattern
        contents = fs.cat_ranges(inner, None, None, on_error="return")
    return [_checked(fs, path, file, content) for path, file, content in zip(inner, files, contents, strict=True)]


def _read_local(path: str) -> bytes | Exception:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        return error


def _checked(fs: Any, path: str, file: StoredFile, content: bytes | Exception) -> bytes | Exception:
    if isinstance(content, Exception):
        return content
    if _is_s3(file.path):
        if has_right_bytes(content, file.size, file.identity):
            return content
        try:
            return fs.read_checked(path, file.size, file.identity)
        except OSError as error:
            return error
    if len(content) != file.size:
        return OSError(f"{file.path}: read {len(content)} bytes, listed {file.size}; it changed meanwhile")
    return content


def read_tails(files: list[StoredFile], tail_bytes: int, config: StorageConfig) -> list[bytes | Exception]:
    """The last `tail_bytes` of each file, concurrently where the store allows; its error where one cannot be read."""
    if not files:
        return []
    fs = filesystem(files[0].path, config)[0]
    inner = [filesystem(file.path, config)[1] for file in files]
    starts = [max(0, file.size - tail_bytes) for file in files]
    return fs.cat_ranges(inner, starts, [file.size for file in files], on_error="return")


def put_many(contents: dict[str, Any], config: StorageConfig) -> None:
    """Puts each object whole: one PUT each, side by side, on an object store; write, sync, rename on local disk.

    Raises:
        StoreError: S3 holds other bytes than were sent, three times.
    """
    if not contents:
        return
    fs = filesystem(next(iter(contents)), config)[0]
    inner = {filesystem(path, config)[1]: data for path, data in contents.items()}
    if isinstance(fs, LocalFileSystem):
        for path, data in inner.items():
            os.replace(_write_beside(path, data), path)
    elif _is_s3(next(iter(contents))):
        fs.put_all_checked({path: bytes(data) for path, data in inner.items()})
    else:
        fs.pipe({path: bytes(data) for path, data in inner.items()})


def put(path: str, data: bytes, config: StorageConfig) -> None:
    put_many({path: data}, config)


def put_new(path: str, data: bytes, config: StorageConfig) -> bool:
    """Creates the object unless it exists; says whether the object there is this one.

    Exactly one of several concurrent callers wins. A lost answer to a put that was done makes the client's retry report
    "exists", so the object is read back: `data` must hold something unique to this attempt.
    """
    fs, inner = filesystem(path, config)
    if isinstance(fs, LocalFileSystem):
        beside = _write_beside(inner, data)
        try:
            os.link(beside, inner)  # fails if it exists, atomically; rename would replace
            return True
        except FileExistsError:
            return _holds(path, data, config)
        finally:
            os.unlink(beside)
    try:
        if _is_s3(path):
            fs.put_checked(inner, data, mode="create")
        else:
            fs.pipe_file(inner, data, mode="create")
        return True
    except FileExistsError:
        return _holds(path, data, config)
    except OSError as error:
        # s3fs goes by the answer's body: radosgw's lacks the element that it looks for, and a body may be cut
        if http_status_of(error) != PRECONDITION_FAILED:
            raise
        return _holds(path, data, config)


def _holds(path: str, data: bytes, config: StorageConfig) -> bool:
    try:
        return read_bytes(path, config) == data
    except FileNotFoundError:  # deleted since: it was another's
        return False


def delete_many(paths: list[str], config: StorageConfig) -> None:
    """Deletes the files; one that is gone already is fine."""
    if not paths:
        return
    fs = filesystem(paths[0], config)[0]
    inner = [filesystem(path, config)[1] for path in paths]
    if isinstance(fs, LocalFileSystem):
        for path in inner:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
    elif _is_s3(paths[0]):
        fs.delete_all(inner)
    else:
        for path in inner:  # not `rm`: it takes names for patterns, and fails where one is gone
            with contextlib.suppress(FileNotFoundError):
                fs.rm_file(path)


def remove_empty_folders(folder: str, config: StorageConfig) -> None:
    """Removes empty hive folders below `folder` on local disk; object stores have none."""
    fs, inner = filesystem(full_path(folder), config)
    if isinstance(fs, LocalFileSystem):
        for path, _, _ in os.walk(inner, topdown=False):
            if "=" in path.removeprefix(inner) and not os.listdir(path):
                os.rmdir(path)


def remove_folder_if_empty(folder: str, config: StorageConfig) -> None:
    """Removes a folder on local disk if nothing is in it; object stores have none."""
    fs, inner = filesystem(folder, config)
    if isinstance(fs, LocalFileSystem) and os.path.isdir(inner) and not os.listdir(inner):
        os.rmdir(inner)


def stat_file(path: str, config: StorageConfig) -> StoredFile:
    """One file as a listing would give it; raises FileNotFoundError when it is not there."""
    fs, inner = filesystem(path, config)
    return _stored_file(inner, fs.info(inner), path)


def check_writable(folder: str, config: StorageConfig) -> list[str]:
    """Creates and deletes a probe object in `folder`, and leaves nothing behind.

    Returns:
        The folders that do not exist yet, innermost first; [] on object stores, which have none.

    Raises:
        OSError: it cannot be written; the reason is the store's own.
    """
    probe = join(folder, f"{TEMPORARY_PREFIX}probe-{uuid.uuid4().hex}")
    fs, inner = filesystem(probe, config)
    created = []
    if isinstance(fs, LocalFileSystem):
        parent = os.path.dirname(inner)
        while not os.path.exists(parent):
            created.append(parent)
            parent = os.path.dirname(parent)
    put(probe, b"", config)
    delete_many([probe], config)
    for path in created:
        os.rmdir(path)
    return created


def _write_beside(path: str, data: Any) -> str:
    """Writes and syncs `data` to a temporary name in the folder of `path`; returns that name."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    beside = os.path.join(os.path.dirname(path), f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        with open(beside, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        if os.path.exists(beside):
            os.unlink(beside)
        raise
    return beside
