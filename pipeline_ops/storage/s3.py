"""S3 through s3fs: one retry policy, and reads and writes with checked bytes.

| failure | tries | then |
|---|---|---|
| a request: 409, 429, 5xx, "slow down", reset, no answer within 15 s | 5 times, 2 s of pauses in all | StoreError |
| an answer's body: cut, stalled, not what its checksum says | 5 requests | the client's own error; see is_store_fault |
| an empty response, without even the fields of an empty listing | 3 requests | StoreError |
| a whole object: other length than listed, other MD5 than its etag | 3 reads | StoreError |
| a put: refused for its checksum | 5 times | StoreError |
| a put: the etag of the response is not the MD5 of the bytes sent | 3 puts | StoreError |
| 403, 404, 412 and other responses | once | the response's error |

No other layer retries: botocore tries once, and Ray has no retryable errors configured. s3fs nests two loops, one around a
request and one around request and body; StoreError, which the inner one ends with, is not retried by the outer one. Left alone
they multiply: a permanent "slow down" was 25 requests and 40 s, a server that never answers would hold a run for minutes.
"""

import asyncio
from functools import cache
from typing import Any, BinaryIO, NoReturn

import aiohttp
import s3fs
import s3fs.core
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.exceptions import FlexibleChecksumError, HTTPClientError
from fsspec.asyn import _run_coros_in_chunks, sync_wrapper
from fsspec.exceptions import FSTimeoutError

from pipeline_ops.schema.errors import StoreError, http_status_of, response_of
from pipeline_ops.storage.config import READ_AHEAD_BYTES, StorageConfig
from pipeline_ops.storage.etags import MD5_ETAG, PART_BYTES, has_right_bytes, sent_etag

REQUEST_TRIES = 5
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 15  # five stalled requests are 75 s: a store that never answers ends a run within two minutes
CHECKED_TRIES = 3
CONNECTIONS = 32
MAX_DELETED_PER_REQUEST = 1000  # S3's limit
CONNECTION_ERRORS = (
    HTTPClientError,
    BotoConnectionError,
    FlexibleChecksumError,
    aiohttp.ClientError,
    asyncio.TimeoutError,
    FSTimeoutError,
)
TRANSIENT_STATUS = (409, 429, 500, 502, 503, 504)
# fields that every complete response has: botocore parses one without a body as an empty listing
REQUIRED_FIELDS = {"list_objects_v2": "IsTruncated", "create_multipart_upload": "UploadId"}
TRANSIENT_CODES = (
    "BadDigest",
    "XAmzContentSHA256Mismatch",
    "SlowDown",
    "RequestTimeout",
    "ThrottlingException",
    "TooManyRequests",
)


class CheckedS3FileSystem(s3fs.S3FileSystem):
    """s3fs with StoreError after the last retry, checked puts and reads, and errors for objects that were not deleted."""

    async def _call_s3(self, method: str, *akwarglist: Any, **kwargs: Any) -> Any:
        place = "/".join(filter(None, [kwargs.get("Bucket"), kwargs.get("Key") or kwargs.get("Prefix")]))
        for _ in range(CHECKED_TRIES):
            try:
                answer = await super()._call_s3(method, *akwarglist, **kwargs)
            except Exception as error:
                _name_answer(error)
                _raise_store_error(method, place, error)
            if REQUIRED_FIELDS.get(method, "ResponseMetadata") in answer:
                return answer
        raise StoreError(f"{method} s3://{place}: empty response, {CHECKED_TRIES} times")

    call_s3 = sync_wrapper(_call_s3)

    async def _cat_file(self, path: str, *arguments: Any, **options: Any) -> bytes:
        try:
            return await super()._cat_file(path, *arguments, **options)
        except Exception as error:
            _raise_store_error("the body of", path, error)

    async def _put_checked(self, path: str, data: bytes, mode: str = "overwrite") -> None:
        """Puts the object, again while the store holds other bytes than were sent; `mode` "create" as in s3fs.

        Raises:
            StoreError: other bytes arrived each time.
            FileExistsError, or an OSError with the 412 as its cause: mode "create", and the object exists.
        """
        again = False
        # so that a browser shows the report instead of downloading it
        kind = {"ContentType": "text/html; charset=utf-8"} if path.endswith(".html") else {}
        for _ in range(CHECKED_TRIES):
            answer = await self._pipe_file(path, data, chunksize=PART_BYTES, mode=mode, **kind) or {}
            etag = (answer.get("ETag") or (await self._info(path))["ETag"]).strip('"')
            if etag == sent_etag(data):
                return
            # etags of SSE-KMS, SSE-C and some stores are no MD5: then the object is read back. One that looks like an MD5 is
            # put again first, so that wrong bytes are replaced at once
            if (again or not MD5_ETAG.match(etag) or _has_other_etags(answer)) and await self._holds(path, data):
                return
            mode, again = "overwrite", True  # the wrong object is this one's
        raise StoreError(f"s3://{path}: the store holds other bytes than were sent, {CHECKED_TRIES} times")

    put_checked = sync_wrapper(_put_checked)

    async def _holds(self, path: str, data: bytes) -> bool:
        try:
            return await self._cat_file(path) == data
        except StoreError:  # its bytes do not match its own checksum
            return False

    async def _put_all_checked(self, contents: dict[str, bytes]) -> None:
        """_put_checked of many objects, concurrently."""
        puts = [self._put_checked(path, data) for path, data in contents.items()]
        await _run_coros_in_chunks(puts, batch_size=self.batch_size, nofiles=True)

    put_all_checked = sync_wrapper(_put_all_checked)

    async def _delete_all(self, paths: list[str]) -> None:
        """Deletes the objects; `rm` would expand a name with *, ? or [ as a glob and delete what matches."""
        parts = [paths[start : start + MAX_DELETED_PER_REQUEST] for start in range(0, len(paths), MAX_DELETED_PER_REQUEST)]
        await _run_coros_in_chunks([self._bulk_delete(part) for part in parts], batch_size=3, nofiles=True)

    delete_all = sync_wrapper(_delete_all)

    async def _bulk_delete(self, pathlist: list[str], **kwargs: Any) -> list[str]:
        if not pathlist:
            return []
        bucket = self.split_path(pathlist[0])[0]
        keys = [{"Key": self.split_path(path)[1]} for path in pathlist]
        answer = await self._call_s3("delete_objects", kwargs, Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
        refused = [error for error in answer.get("Errors", []) if error.get("Code") != "NoSuchKey"]
        if refused:
            first = refused[0]
            raise StoreError(
                f"{len(refused)} objects were not deleted, such as s3://{bucket}/{first.get('Key')}: {first.get('Code')}"
            )
        return pathlist

    def read_checked(self, path: str, size: int, etag: str) -> bytes:
        """The whole object, read again when its length is not the listed one or its MD5 not its etag.

        Raises:
            StoreError: the bytes are wrong each time.
            FileNotFoundError, PermissionError: the store's response.
        """
        data = b""
        for _ in range(CHECKED_TRIES):
            data = bytes(self.cat_file(path))  # pyright: ignore[reportArgumentType] fsspec's annotation says text, too
            if has_right_bytes(data, size, etag):
                return data
        if len(data) == size and _has_other_etags(self._head(path)):
            return data
        raise StoreError(f"s3://{path}: read {len(data)} bytes that are not those of the listed object of {size} bytes, {etag}")

    def _head(self, path: str) -> dict[str, Any]:
        bucket, key, _ = self.split_path(path)
        return self.call_s3("head_object", Bucket=bucket, Key=key) or {}

    def open_pinned(self, path: str, size: int, etag: str, *, sequential: bool) -> BinaryIO:
        """See PinnedFile. `sequential` reads ahead; otherwise each read moves just the bytes asked for."""
        return PinnedFile(self, path, size, etag, sequential=sequential)  # pyright: ignore[reportReturnType]


@cache
def s3_filesystem(config: StorageConfig, process: int) -> CheckedS3FileSystem:
    """One s3fs per process and config: `process` is in the key because s3fs must not cross a fork."""
    s3fs.core.add_retryable_error(FlexibleChecksumError)  # both hooks are process-wide and idempotent
    s3fs.core.set_custom_error_handler(lambda error: not isinstance(error, StoreError) and is_transient(error))
    checksums = "when_supported" if config.checksums else "when_required"
    filesystem = CheckedS3FileSystem(
        anon=config.anonymous,
        endpoint_url=config.endpoint_url,
        client_kwargs={"region_name": config.region} if config.region else {},
        config_kwargs={
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
            "max_pool_connections": CONNECTIONS,
            "request_checksum_calculation": checksums,
            "response_checksum_validation": checksums,
            **({"s3": {"addressing_style": "path"}} if config.path_style else {}),
        },
        use_listings_cache=False,  # a listing made before another process wrote would stay stale
        # parallel ranges in cat_file read bodies outside the retry: a short body would be silently wrong bytes
        max_concurrency=1,
        default_fill_cache=False,
    )
    filesystem.retries = REQUEST_TRIES
    # fsspec starts 1,280 requests at once by default, and polls all of them whenever one ends
    filesystem.batch_size = 2 * CONNECTIONS
    return filesystem


def _name_answer(error: Exception) -> None:
    """Gives an error of a store that sends codes without messages (radosgw) its code for a message.

    Without one s3fs fails with a TypeError where it looks for the message of a 412 (s3fs/core.py, S3File._fetch_range).
    """
    code = response_of(error).get("Error", {}).get("Code")
    if code and isinstance(error, OSError) and error.args[-1:] == (None,):
        message = (
            "PreconditionFailed: at least one of the pre-conditions did not hold" if code == "PreconditionFailed" else code
        )
        error.args = (*error.args[:-1], message)
        if error.errno is not None:
            error.strerror = message


def _raise_store_error(what: str, place: str, error: Exception) -> NoReturn:
    """How a request ends: StoreError when it may succeed later, `error` itself when that was the store's answer."""
    if isinstance(error, StoreError) or not is_transient(error):
        raise error  # not `from` anything: its cause holds the answer
    reason = f"{type(error).__name__}: {error}"
    message = f"{what} s3://{place}: tried {REQUEST_TRIES} times, the last time: {reason}"
    raise StoreError(message, unreachable=isinstance(error, BotoConnectionError)) from error


def is_transient(error: BaseException) -> bool:
    """Whether a request may succeed when it is made again: the store was busy or broken, or the connection was."""
    if isinstance(error, CONNECTION_ERRORS):
        return True
    return http_status_of(error) in TRANSIENT_STATUS or response_of(error).get("Error", {}).get("Code") in TRANSIENT_CODES


def _has_other_etags(answer: dict[str, Any]) -> bool:
    """Whether the object of an answer is encrypted in a way that makes its etag something else than an MD5 sum.

    Source: Amazon S3 API reference, Object, ETag: SSE-C and SSE-KMS.
    """
    return "SSECustomerAlgorithm" in answer or str(answer.get("ServerSideEncryption", "")).startswith("aws:kms")


class PinnedFile(s3fs.S3File):
    """The listed object, and no later version, as a seekable file: each request carries its etag (If-Match).

    Over plain http every range is fetched twice and compared: nothing else detects a flipped byte, as S3 has no checksum
    of a range. Over https, TLS does.
    """

    def __init__(self, filesystem: CheckedS3FileSystem, path: str, size: int, etag: str, *, sequential: bool):
        super().__init__(
            filesystem,
            path,
            "rb",
            block_size=READ_AHEAD_BYTES,
            cache_type="readahead" if sequential else "none",
            size=size,
        )
        self.details = {"name": path, "size": size, "ETag": f'"{etag}"', "type": "file"}
        self.read_kw = {**self.read_kw, "IfMatch": f'"{etag}"'}
        self.twice = str(filesystem.endpoint_url or "").startswith("http://")

    def _fetch_range(self, start: int, end: int) -> bytes:
        data = self._fetch_length(start, end)
        for _ in range(CHECKED_TRIES if self.twice else 0):
            again = self._fetch_length(start, end)
            if again == data:
                return data
            data = again
        if self.twice:
            raise StoreError(f"s3://{self.path}: bytes {start} to {end} differ from one read to the next")
        return data

    def _fetch_length(self, start: int, end: int) -> bytes:
        end = min(end, self.size)
        data = b""
        for _ in range(CHECKED_TRIES):
            try:
                data = super()._fetch_range(start, end) or b""
            except Exception as error:
                _raise_store_error("the body of", self.path, error)
            if len(data) == end - start:
                return data
        raise StoreError(f"s3://{self.path}: bytes {start} to {end} were asked for, {len(data)} came")
