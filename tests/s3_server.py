"""A real S3 server for the tests: moto as a process of its own, behind a reverse proxy that keeps a journal.

The proxy passes every request through byte for byte (host, raw path, headers, body), so signatures still hold, and streams
the answers. Tests assert on its journal: which keys were asked for, and how many bytes moved.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote

import aiohttp
import boto3
import s3fs
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

REGION = "us-east-1"
START_TIMEOUT_S = 60
HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-authorization", "expect"}
RUN_MOTO = """
import os, sys, threading
from moto.server import main
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()  # ends when the tests are gone
main(["-H", "127.0.0.1", "-p", "0"])
"""
AUTOMATIC_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")  # what aiohttp's client would add


@dataclass(frozen=True)
class S3Server:
    """A running server and the credentials it takes."""

    endpoint_url: str
    access_key: str
    secret_key: str

    def filesystem(self) -> s3fs.S3FileSystem:
        """For the test's own reading and writing: straight to this endpoint, nothing cached."""
        return s3fs.S3FileSystem(
            key=self.access_key,
            secret=self.secret_key,
            endpoint_url=self.endpoint_url,
            use_listings_cache=False,
            skip_instance_cache=True,
        )


@contextmanager
def moto_server(folder: Path, check_credentials: bool = False) -> Iterator[S3Server]:
    """Runs moto as a subprocess on a free loopback port; its log goes to `folder`.

    Args:
        check_credentials: know one user only and refuse every other key and wrong secrets with 403. Otherwise moto takes
            any credentials.
    """
    log = folder / "moto.log"
    environment = os.environ | ({"INITIAL_NO_AUTH_ACTION_COUNT": "3"} if check_credentials else {})
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN_MOTO],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C in the terminal is for the tests
        )
    try:
        endpoint_url = _announced_address(process, log)
        if check_credentials:
            yield S3Server(endpoint_url, *_create_user(endpoint_url))
        else:
            yield S3Server(endpoint_url, "testing", "testing")
    finally:
        process.kill()
        process.communicate()


def _announced_address(process: subprocess.Popen, log: Path) -> str:
    """The address that the server prints once it listens: port 0 leaves the choice to the system, so no port is raced for."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        announced = re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text())
        if announced:
            return announced.group(1)
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"the S3 server did not start; its log: {log.read_text()}")


def _create_user(endpoint_url: str) -> tuple[str, str]:
    """The one user of a server with checks. These are the three calls that pass unchecked."""
    iam = boto3.client(
        "iam",
        endpoint_url=endpoint_url,
        region_name=REGION,
        aws_access_key_id="initial",
        aws_secret_access_key="initial",
    )
    allow_all = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.create_user(UserName="tests")
    iam.put_user_policy(UserName="tests", PolicyName="all", PolicyDocument=json.dumps(allow_all))
    key = iam.create_access_key(UserName="tests")["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


@dataclass
class Request:
    """One request as the proxy saw it. Bytes are of bodies, and counted before they are passed on."""

    operation: str  # GetObject, PutObject, ListObjects, ... as S3 names them
    bucket: str
    key: str  # decoded; empty for requests about a bucket
    range: str | None  # the Range header, for example bytes=0-99
    bytes_up: int
    bytes_down: int = 0
    status: int | None = None  # None while unanswered


class Journal:
    """Requests in the order they came. One thread writes, others read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[Request] = []

    def add(self, request: Request) -> None:
        with self._lock:
            self._requests.append(request)

    def clear(self) -> None:
        with self._lock:
            self._requests.clear()

    def requests(self, operation: str = ".*", key: str = ".*") -> list[Request]:
        """Those whose whole operation and whole key match the regular expressions."""
        with self._lock:
            return [
                request
                for request in self._requests
                if re.fullmatch(operation, request.operation) and re.fullmatch(key, request.key, re.DOTALL)
            ]

    def bytes_down(self, operation: str = ".*", key: str = ".*") -> int:
        return sum(request.bytes_down for request in self.requests(operation, key))


def _operation(method: str, key: str, query: str) -> str:
    parameters = parse_qs(query, keep_blank_values=True)
    if not key:
        if method == "POST" and "delete" in parameters:
            return "DeleteObjects"
        return {"GET": "ListObjects", "PUT": "CreateBucket", "DELETE": "DeleteBucket", "HEAD": "HeadBucket"}.get(method, method)
    if "uploadId" in parameters:
        return {
            "GET": "ListParts",
            "PUT": "UploadPart",
            "POST": "CompleteMultipartUpload",
            "DELETE": "AbortMultipartUpload",
        }[method]
    if method == "POST" and "uploads" in parameters:
        return "CreateMultipartUpload"
    return {"GET": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject", "HEAD": "HeadObject"}.get(method, method)


class RecordingProxy:
    """A reverse proxy in a thread of its own, for as long as the `with` block lasts."""

    def __init__(self, upstream_url: str) -> None:
        self.journal = Journal()
        self.endpoint_url = ""
        self._upstream_url = upstream_url
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), name="s3-proxy")

    def __enter__(self) -> "RecordingProxy":
        self._thread.start()
        if not self._listening.wait(START_TIMEOUT_S):
            raise RuntimeError("the proxy did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        async with aiohttp.ClientSession(
            auto_decompress=False,
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=AUTOMATIC_HEADERS,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as self._client:
            runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            self.endpoint_url = f"http://{host}:{port}"
            self._listening.set()
            await self._closing.wait()
            await runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # the answer itself has not begun
        body = await request.content.read()
        path, _, query = request.raw_path.partition("?")
        bucket, _, key = unquote(path).lstrip("/").partition("/")
        record = Request(_operation(request.method, key, query), bucket, key, request.headers.get("Range"), len(body))
        self.journal.add(record)
        async with self._client.request(
            request.method,
            URL(self._upstream_url + request.raw_path, encoded=True),
            headers=_end_to_end(request.headers),
            data=body or None,
            allow_redirects=False,
        ) as upstream:
            answer = web.StreamResponse(status=upstream.status, reason=upstream.reason, headers=_end_to_end(upstream.headers))
            record.status = upstream.status
            await answer.prepare(request)
            async for chunk in upstream.content.iter_any():
                record.bytes_down += len(chunk)
                await answer.write(chunk)
            await answer.write_eof()
            return answer


def _end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP)
