"""A reverse proxy between the tests' clients and an S3 server: it keeps a journal, and fails the requests that its rules name.

Without a rule every request passes byte for byte (host, raw path, headers, body), so signatures still hold, and the answer is
streamed. Tests assert on the journal: which keys were asked for, how many bytes moved, which faults were applied.
"""

import asyncio
import random
import re
import socket
import struct
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import count
from typing import Literal, assert_never
from urllib.parse import parse_qs, unquote

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

START_TIMEOUT_S = 60
HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-authorization", "expect"}
AUTOMATIC_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")  # what aiohttp's client would add
DECOMPRESSED = {"gzip", "deflate", "br", "zstd"}  # by aiohttp's server, in bodies of requests; there is no way to turn that off
UPLOADS = ("PutObject", "UploadPart")
ERROR = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>a fault of the test</Message></Error>'

Unheard = Literal["status", "ok_error", "reset", "stall"]  # the server never sees the request
Heard = Literal["delay", "after_status", "after_reset"]
Spoilt = Literal["flip", "short", "reset_mid", "close_mid", "stall_mid"]
Kind = Unheard | Heard | Spoilt


@dataclass(frozen=True)
class Rule:
    """Which requests fail, and how.

    The kinds:
        status: answers `status` and an error document with `code`; the server never sees the request.
        ok_error: the same with status 200, as S3 may answer CompleteMultipartUpload; the server never sees the request.
        reset: resets the connection instead of answering; the server never sees the request.
        stall: says nothing for `seconds`, then resets the connection; the server never sees the request.
        delay: waits `seconds`, then passes the request on.
        after_status: the server does what was asked, and the client gets `status` and `code`.
        after_reset: the server does what was asked, and the connection is reset instead of an answer.
        flip: one bit of the body changes at `byte`: of the request for PutObject and UploadPart, else of the answer.
        short: the answer ends after `fraction` of its body, and its Content-Length agrees: the client cannot see the cut.
        reset_mid: the connection is reset after `fraction` of the body; Content-Length is that of the whole. A reset drops
            what is still on its way, so of large bodies less than that may arrive.
        close_mid: the connection is closed after `fraction` of the body; Content-Length is that of the whole.
        stall_mid: pauses for `seconds` after `fraction` of the body, then sends the rest.

    Where there is no body (HEAD, most answers to writes), flip, short and the pauses inside it change nothing, and reset_mid
    and close_mid come right after the headers.

    Attributes:
        operation: a regular expression for the whole operation, as S3 names them.
        key: a regular expression for the whole key; requests about a bucket have the empty key.
        skip: so many matching requests pass first.
        times: so many requests fail; None for all.
        probability: of a matching request to fail, drawn from the proxy's seeded generator.
        byte: where `flip` flips; None for `fraction` of the body. Past the end means the last byte.
    """

    kind: Kind
    operation: str = ".*"
    key: str = ".*"
    skip: int = 0
    times: int | None = 1
    probability: float = 1.0
    status: int = 500
    code: str = "InternalError"
    seconds: float = 1.0
    fraction: float = 0.5
    byte: int | None = None

    def __post_init__(self) -> None:
        for pattern in (self.operation, self.key):
            re.compile(pattern)  # a mistake shows in the test, not in the proxy's thread

    def matches(self, operation: str, key: str) -> bool:
        return _matches(self.operation, operation) and _matches(self.key, key)


@dataclass
class Request:
    """One request as the proxy saw it. Bytes are of bodies, and counted before they are passed on."""

    number: int  # from 1 in the order of the journal, for the proxy's whole life
    time: float  # time.monotonic() when it began to arrive
    operation: str  # GetObject, PutObject, ListObjects, ... as S3 names them
    bucket: str
    key: str  # decoded; empty for requests about a bucket
    range: str | None  # the Range header, for example bytes=0-99
    bytes_up: int
    bytes_down: int = 0
    status: int | None = None  # that the client got; None while, or if never, answered
    fault: Kind | None = None
    prefix: str = ""  # of a listing


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
                request for request in self._requests if _matches(operation, request.operation) and _matches(key, request.key)
            ]

    def bytes_down(self, operation: str = ".*", key: str = ".*") -> int:
        return sum(request.bytes_down for request in self.requests(operation, key))

    def faults(self, operation: str = ".*", key: str = ".*") -> Counter[str]:
        """How many faults of each kind these requests met; also those under way."""
        return Counter(request.fault for request in self.requests(operation, key) if request.fault)


@dataclass
class _Armed:
    """A rule and what it has met so far."""

    rule: Rule
    matched: int = 0
    applied: int = 0


class FaultProxy:
    """A reverse proxy in a thread of its own, for as long as the `with` block lasts.

    Conditional writes of one key reach the server one after the other: S3 checks and writes in one step, moto does not.
    """

    def __init__(self, upstream_url: str, seed: int = 0, host: str = "127.0.0.1") -> None:
        self.journal = Journal()
        self.endpoint_url = ""
        self._upstream_url = upstream_url
        self._seed, self._host = seed, host
        self._rules: list[_Armed] = []
        self._in_a_row: int | None = None
        self._failed: Counter[tuple[str, str]] = Counter()  # in a row, by operation and key
        self._random = random.Random(seed)
        self._rules_lock = threading.Lock()
        self._numbers = count(1)
        self._turns: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._listening = threading.Event()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="s3-proxy")

    def __enter__(self) -> "FaultProxy":
        self._thread.start()
        if not self._listening.wait(START_TIMEOUT_S):
            raise RuntimeError("the proxy did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def fail(self, *rules: Rule) -> None:
        """Adds rules after those there are. A request meets the first that matches and has hits left."""
        with self._rules_lock:
            self._rules += [_Armed(rule) for rule in rules]

    def heal(self) -> None:
        """Removes all rules, and starts the draws of `probability` anew, so that no test depends on the one before."""
        with self._rules_lock:
            self._rules.clear()
            self._random.seed(self._seed)
            self._in_a_row, self._failed = None, Counter()

    @contextmanager
    def faults(self, *rules: Rule, in_a_row: int | None = None) -> Iterator[None]:
        """Has these rules, after those there are, until the block ends; `in_a_row`: of one object, so many at the most."""
        self._in_a_row = in_a_row
        self.fail(*rules)
        try:
            yield
        finally:
            self.heal()

    def _next_fault(self, operation: str, key: str) -> Rule | None:
        with self._rules_lock:
            if self._failed[operation, key] == self._in_a_row:
                self._failed[operation, key] = 0
                return None
            for armed in self._rules:
                rule = armed.rule
                if armed.applied == rule.times or not rule.matches(operation, key):
                    continue
                armed.matched += 1
                if armed.matched > rule.skip and self._random.random() < rule.probability:
                    armed.applied += 1
                    self._failed[operation, key] += 1
                    return rule
            self._failed[operation, key] = 0
        return None

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession(
            auto_decompress=False,
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=AUTOMATIC_HEADERS,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as self._client:
            runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=1)
            await runner.setup()
            await web.TCPSite(runner, self._host, 0).start()
            host, port = runner.addresses[0][:2]
            self.endpoint_url = f"http://{host}:{port}"
            self._listening.set()
            await self._closing.wait()
            await runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        started = time.monotonic()
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # the answer itself has not begun
        body = await request.content.read()
        if body and request.headers.get("Content-Encoding", "").lower() in DECOMPRESSED:
            raise web.HTTPNotImplemented(text="the proxy cannot pass this body on as it came: see DECOMPRESSED")
        path, _, query = request.raw_path.partition("?")
        bucket, _, key = unquote(path).lstrip("/").partition("/")
        operation = _operation(request.method, key, query)
        record = Request(next(self._numbers), started, operation, bucket, key, request.headers.get("Range"), len(body))
        record.prefix = parse_qs(query).get("prefix", [""])[0]
        rule = self._next_fault(operation, key)
        record.fault = rule and rule.kind
        self.journal.add(record)
        if rule is None:
            return await self._pass_on(request, body, record)
        return await self._apply(rule, request, body, record)

    async def _pass_on(self, request: web.BaseRequest, body: bytes, record: Request) -> web.StreamResponse:
        async with self._upstream(request, body, record) as upstream:
            answer = _begin(upstream, record)
            await answer.prepare(request)
            async for chunk in upstream.content.iter_any():
                await _send(answer, chunk, record)
            await answer.write_eof()
            return answer

    async def _apply(self, rule: Rule, request: web.BaseRequest, body: bytes, record: Request) -> web.StreamResponse:
        match rule.kind:
            case "status":
                return _error(request, record, rule.status, rule.code)
            case "ok_error":
                return _error(request, record, 200, rule.code)
            case "reset":
                return _reset(request)
            case "stall":
                await self._pause(rule.seconds)
                return _reset(request)
            case "delay":
                await self._pause(rule.seconds)
                return await self._pass_on(request, body, record)
            case "flip" if record.operation in UPLOADS:
                return await self._pass_on(request, _flipped(body, rule), record)
            case "after_status" | "after_reset":
                async with self._upstream(request, body, record) as upstream:
                    await upstream.read()
                if rule.kind == "after_reset":
                    return _reset(request)
                return _error(request, record, rule.status, rule.code)
            case "flip" | "short" | "reset_mid" | "close_mid" | "stall_mid":
                async with self._upstream(request, body, record) as upstream:
                    answer, content = _begin(upstream, record), await upstream.read()
                return await self._spoil(rule, request, answer, content, record)
            case _:
                assert_never(rule.kind)

    async def _spoil(
        self, rule: Rule, request: web.BaseRequest, answer: web.StreamResponse, content: bytes, record: Request
    ) -> web.StreamResponse:
        """Sends the answer with the fault that the rule has for its body."""
        if rule.kind == "flip":
            content = _flipped(content, rule)
        cut = int(len(content) * rule.fraction)
        if content:  # else the length stays as announced: to HEAD it is that of a body that does not come
            answer.content_length = cut if rule.kind == "short" else len(content)
        await answer.prepare(request)
        await _send(answer, content[:cut], record)
        match rule.kind:
            case "reset_mid":
                return _reset(request)
            case "close_mid" if request.transport:
                request.transport.close()
            case "stall_mid":
                await self._pause(rule.seconds)
                await _send(answer, content[cut:], record)
            case "flip":
                await _send(answer, content[cut:], record)
        await answer.write_eof()
        return answer

    @asynccontextmanager
    async def _upstream(self, request: web.BaseRequest, body: bytes, record: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        async with self._turn(request, record):
            upstream = await self._client.request(
                request.method,
                URL(self._upstream_url + request.raw_path, encoded=True),
                headers=_end_to_end(request.headers),
                data=body or None,
                allow_redirects=False,
            )  # moto has done its work when the answer begins: the turn does not wait for a client that reads slowly
        async with upstream:
            yield upstream

    def _turn(self, request: web.BaseRequest, record: Request) -> AbstractAsyncContextManager[None]:
        reads = ("GET", "HEAD")  # s3fs sends If-Match with every range it reads: no reason to wait for each other
        conditional = "If-None-Match" in request.headers or "If-Match" in request.headers
        return self._turns[record.bucket, record.key] if conditional and request.method not in reads else nullcontext()

    async def _pause(self, seconds: float) -> None:
        """Ends early when the proxy closes."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)


def _begin(upstream: aiohttp.ClientResponse, record: Request) -> web.StreamResponse:
    record.status = upstream.status
    return web.StreamResponse(status=upstream.status, reason=upstream.reason, headers=_end_to_end(upstream.headers))


async def _send(answer: web.StreamResponse, part: bytes, record: Request) -> None:
    record.bytes_down += len(part)
    await answer.write(part)


def _error(request: web.BaseRequest, record: Request, status: int, code: str) -> web.Response:
    text = "" if request.method == "HEAD" else ERROR.format(code=code)
    record.status = status
    record.bytes_down += len(text)
    return web.Response(status=status, text=text, content_type="application/xml")


def _reset(request: web.BaseRequest) -> web.StreamResponse:
    """Resets the connection; the answer returned is for aiohttp, which finds nobody to send it to."""
    if request.transport:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST instead of FIN
        request.transport.abort()
    return web.StreamResponse()


def _flipped(body: bytes, rule: Rule) -> bytes:
    if not body:
        return body
    spoilt = bytearray(body)
    spoilt[min(int(len(body) * rule.fraction) if rule.byte is None else rule.byte, len(body) - 1)] ^= 1
    return bytes(spoilt)


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


def _matches(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern, text, re.DOTALL) is not None  # a key may hold line breaks


def _end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP)
