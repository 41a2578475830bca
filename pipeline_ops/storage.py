"""Files and objects by path, on local disk and wherever fsspec reaches; the only module that uses fsspec.

Guarantee: an object appears whole or not at all. It is built in memory and put by one request (object stores) or written
beside its target and renamed (local disk); closing a half-written fsspec stream would publish the half (fsspec/spec.py,
`AbstractBufferedFile.__exit__`), so streams are used for reading only.
"""

import os
import uuid
from dataclasses import dataclass
from functools import cache
from typing import Any, BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline_ops.schema import UserError

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
        return url


def store_errors() -> tuple[type[Exception], ...]:
    """What a store that refuses or cannot be reached raises; botocore's and aiohttp's errors are no OSErrors."""
    import aiohttp
    from botocore.exceptions import BotoCoreError, ClientError

    return (OSError, BotoCoreError, ClientError, aiohttp.ClientError)


@dataclass(frozen=True)
class StoredFile:
    """One listed file. `identity` changes whenever the content does: etag, or size and modification time."""

    path: str
    size: int  # bytes
    identity: str


@cache
def _s3_filesystem(config: StorageConfig, process: int) -> Any:
    """One s3fs per process and config: `process` is in the key because s3fs must not cross a fork."""
    import s3fs
    import s3fs.core
    from botocore.exceptions import FlexibleChecksumError

    # One layer retries: botocore tries once, s3fs up to five times with back-off. Left alone they multiply: a permanent
    # SlowDown is then 25 requests and 40 s. Both hooks are process-wide and idempotent.
    s3fs.core.add_retryable_error(FlexibleChecksumError)
    s3fs.core.set_custom_error_handler(_is_transient_answer)
    checksums = "when_supported" if config.checksums else "when_required"
    return s3fs.S3FileSystem(
        anon=config.anonymous,
        endpoint_url=config.endpoint_url,
        client_kwargs={"region_name": config.region} if config.region else {},
        config_kwargs={
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "connect_timeout": 5,
            "read_timeout": 30,
            "max_pool_connections": 32,
            "request_checksum_calculation": checksums,
            "response_checksum_validation": checksums,
            **({"s3": {"addressing_style": "path"}} if config.path_style else {}),
        },
        use_listings_cache=False,  # a listing made before another process wrote would stay stale
        # parallel ranges in cat_file read bodies outside the retry: a short body would be silently wrong bytes
        max_concurrency=1,
        default_fill_cache=False,
    )


def _is_transient_answer(error: BaseException) -> bool:
    response = getattr(error, "response", None) or {}
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode") in (429, 500, 502, 503, 504)


def filesystem(path: str, config: StorageConfig) -> tuple[Any, str]:
    """The fsspec file system for `path` and the path as that file system spells it.

    Raises:
        UserError: the path's protocol is unknown or its plug-in is not installed.
    """
    protocol = path.split("://", 1)[0] if "://" in path else "file"
    if protocol in ("s3", "s3a"):
        fs = _s3_filesystem(config, os.getpid())  # pyright: ignore[reportArgumentType] frozen models are hashable
        return fs, path.split("://", 1)[1].rstrip("/")
    try:
        fs, inner = fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise UserError(f"{path!r}: {error}; install the fsspec plug-in for {protocol}://") from error
    return fs, inner.rstrip("/") or "/"


def is_local(path: str) -> bool:
    return "://" not in path or path.startswith(("file://", "local://"))


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


def open_to_read(path: str, config: StorageConfig, *, sequential: bool) -> BinaryIO:
    """A seekable binary file. `sequential` reads ahead; otherwise each read moves just the bytes asked for."""
    fs, inner = filesystem(path, config)
    if isinstance(fs, LocalFileSystem):
        return open(inner, "rb")
    if sequential:
        return fs.open(inner, "rb", block_size=8 * 2**20, cache_type="readahead")
    return fs.open(inner, "rb", cache_type="none")


def read_bytes(path: str, config: StorageConfig) -> bytes:
    fs, inner = filesystem(path, config)
    return fs.cat_file(inner)


def read_many(paths: list[str], config: StorageConfig) -> list[bytes]:
    """The contents of many small files of one file system, in the order of `paths`; concurrent where the store allows."""
    if not paths:
        return []
    fs = filesystem(paths[0], config)[0]
    inner = [filesystem(path, config)[1] for path in paths]
    contents = fs.cat(inner)
    return [contents] if isinstance(contents, bytes) else [contents[name] for name in inner]


def read_tails(files: list[StoredFile], tail_bytes: int, config: StorageConfig) -> list[bytes]:
    """The last `tail_bytes` of each file, concurrently where the store allows."""
    if not files:
        return []
    fs = filesystem(files[0].path, config)[0]
    inner = [filesystem(file.path, config)[1] for file in files]
    starts = [max(0, file.size - tail_bytes) for file in files]
    return fs.cat_ranges(inner, starts, [file.size for file in files], on_error="raise")


def put_many(contents: dict[str, Any], config: StorageConfig) -> None:
    """Puts each object whole: one PUT each, side by side, on an object store; write, sync, rename on local disk."""
    if not contents:
        return
    fs = filesystem(next(iter(contents)), config)[0]
    inner = {filesystem(path, config)[1]: data for path, data in contents.items()}
    if isinstance(fs, LocalFileSystem):
        for path, data in inner.items():
            os.replace(_write_beside(path, data), path)
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
            return read_bytes(path, config) == data
        finally:
            os.unlink(beside)
    try:
        fs.pipe_file(inner, data, mode="create")
        return True
    except FileExistsError:
        return read_bytes(path, config) == data
    except OSError as error:
        # radosgw answers the same 412 without the element that s3fs turns into FileExistsError
        response = getattr(error.__cause__, "response", None) or {}
        if response.get("Error", {}).get("Code") != "PreconditionFailed":
            raise
        return read_bytes(path, config) == data


def delete_many(paths: list[str], config: StorageConfig) -> None:
    """Deletes the files; one that is gone already is fine."""
    if not paths:
        return
    fs = filesystem(paths[0], config)[0]
    inner = [filesystem(path, config)[1] for path in paths]
    if isinstance(fs, LocalFileSystem):
        for path in inner:
            if os.path.exists(path):
                os.unlink(path)
    else:
        fs.rm(inner)


def remove_empty_folders(folder: str, config: StorageConfig) -> None:
    """Removes empty hive folders below `folder` on local disk; object stores have none."""
    fs, inner = filesystem(full_path(folder), config)
    if isinstance(fs, LocalFileSystem):
        for path, _, _ in os.walk(inner, topdown=False):
            if "=" in path.removeprefix(inner) and not os.listdir(path):
                os.rmdir(path)


def exists(path: str, config: StorageConfig) -> bool:
    fs, inner = filesystem(path, config)
    return fs.exists(inner)


def check_writable(folder: str, config: StorageConfig) -> None:
    """Creates and deletes a probe object in `folder`, and leaves nothing behind.

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
