"""The fault-injecting proxy: transparent without a rule, and each fault reaches the client as real ones do."""

import gzip
import http.client
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.servers.s3_proxy import FaultProxy, Kind, Rule
from tests.servers.s3_server import S3Server
from tests.support.running import wait_for

PATH = "/bucket/some/key"
CONTENT = bytes(range(256)) * 8
HALF = len(CONTENT) // 2
ARRIVES_WITHIN_S = 60
FOR_EVER_S = 600  # longer than pytest lets a test take


@dataclass
class Upstream:
    """A server that answers CONTENT to GET, and remembers what it was asked. Its conditional writes are not atomic."""

    url: str
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)  # method, path, headers, body
    written: set[str] = field(default_factory=set)  # paths
    meeting: threading.Barrier | None = None  # where requests wait for each other before they are answered

    @property
    def methods(self) -> list[str]:
        return [method for method, *_ in self.requests]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            known.requests.append((self.command, self.path, dict(self.headers.items()), body))
            content = b"" if self.command == "PUT" else CONTENT
            refused = "If-None-Match" in self.headers and self.path in known.written
            if known.meeting and not refused:
                with suppress(threading.BrokenBarrierError):
                    known.meeting.wait()
            known.written |= {self.path} if self.command == "PUT" else set()
            self.send_response(412 if refused else 200, "Fine")
            for name, value in (("Content-Length", str(len(content))), ("Content-Type", "x/y"), ("ETag", '"tag"')):
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_HEAD = do_PUT = do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        known = Upstream(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        yield known
        server.shutdown()


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[FaultProxy]:
    with FaultProxy(upstream.url) as proxy:
        yield proxy


def connect(url: str, timeout: float = 60) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout)


def ask(
    proxy: FaultProxy, method: str = "GET", path: str = PATH, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    connection = connect(proxy.endpoint_url)
    try:
        connection.request(method, path, body or None, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def received_until_the_end(proxy: FaultProxy) -> tuple[bytes, bytes, type[Exception] | None]:
    """Headers and body of an answer to GET as they came over the wire, and the error that the connection ended with."""
    ended: type[Exception] | None = None
    received = b""
    address = urlsplit(proxy.endpoint_url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(f"GET {PATH} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
        try:
            while chunk := connection.recv(2**16):
                received += chunk
        except ConnectionError as error:
            ended = type(error)
    headers, _, body = received.partition(b"\r\n\r\n")
    return headers, body, ended


def faulty_requests(proxy: FaultProxy, num_requests: int) -> list[bool]:
    return [ask(proxy)[0] != 200 for _ in range(num_requests)]


def test_request_without_a_rule_passes_byte_for_byte(upstream: Upstream, proxy: FaultProxy):
    path = "/bucket/a%2Fb%20c=%C3%BC+d//e?x-id=PutObject&empty=&odd=%7e"
    headers = {"Authorization": "AWS4 x", "x-amz-meta-Mixed": " a  b", "Host": "signed.example", "Content-Type": "a/b"}
    connection = connect(proxy.endpoint_url)
    connection.request("PUT", path, CONTENT, headers)
    answer = connection.getresponse()
    assert (answer.status, answer.reason, answer.read(), answer.headers["ETag"]) == (200, "Fine", b"", '"tag"')
    connection.request("GET", PATH, headers={"Range": "bytes=0-9", "Accept-Encoding": "gzip"})  # the connection is kept
    answer = connection.getresponse()
    assert (answer.read(), answer.headers["Content-Type"]) == (CONTENT, "x/y")
    connection.close()

    (put, get) = upstream.requests
    assert put[:2] == ("PUT", path)
    assert put[2] == headers | {"x-amz-meta-Mixed": "a  b", "Content-Length": str(len(CONTENT)), "Accept-Encoding": "identity"}
    assert put[3] == CONTENT
    assert get[2] == {"Host": urlsplit(proxy.endpoint_url).netloc, "Range": "bytes=0-9", "Accept-Encoding": "gzip"}

    first, second = proxy.journal.requests()
    assert (first.number, first.operation, first.bucket, first.key) == (1, "PutObject", "bucket", "a/b c=ü+d//e")
    assert (first.bytes_up, first.bytes_down, first.status, first.fault) == (len(CONTENT), 0, 200, None)
    assert (second.number, second.operation, second.range) == (2, "GetObject", "bytes=0-9")
    assert (second.bytes_up, second.bytes_down, second.status) == (0, len(CONTENT), 200)
    assert first.time < second.time < time.monotonic()
    assert proxy.journal.faults() == {}


def test_head_without_a_rule_keeps_the_length_and_has_no_body(proxy: FaultProxy):
    connection = connect(proxy.endpoint_url)
    connection.request("HEAD", PATH)
    answer = connection.getresponse()
    assert (answer.headers["Content-Length"], answer.read()) == (str(len(CONTENT)), b"")
    connection.close()


def test_compressed_upload_is_refused_as_the_proxy_would_decompress_it(upstream: Upstream, proxy: FaultProxy):
    connection = connect(proxy.endpoint_url)
    connection.request("PUT", PATH, gzip.compress(CONTENT), {"Content-Encoding": "gzip"})
    assert connection.getresponse().status == 501
    connection.close()
    assert upstream.requests == []


def test_status_answers_an_error_document_and_forwards_nothing(upstream: Upstream, proxy: FaultProxy):
    with proxy.faults(Rule("status", status=503, code="SlowDown", times=2)):
        status, body = ask(proxy)
        assert status == 503
        assert b"<Code>SlowDown</Code>" in body
        assert ask(proxy, "HEAD") == (503, b"")
    assert upstream.requests == []
    assert [request.status for request in proxy.journal.requests()] == [503, 503]
    assert proxy.journal.faults() == {"status": 2}


def test_ok_error_answers_an_error_document_with_status_200(upstream: Upstream, proxy: FaultProxy):
    with proxy.faults(Rule("ok_error", "CompleteMultipartUpload")):
        status, body = ask(proxy, "POST", f"{PATH}?uploadId=1", b"<CompleteMultipartUpload/>")
    assert status == 200
    assert b"<Error><Code>InternalError</Code>" in body
    assert upstream.requests == []


@pytest.mark.parametrize("kind", ["reset", "stall"])
def test_reset_and_stall_reset_the_connection_and_forward_nothing(kind: Kind, upstream: Upstream, proxy: FaultProxy):
    with proxy.faults(Rule(kind, seconds=0.1)):
        assert received_until_the_end(proxy) == (b"", b"", ConnectionResetError)
    assert upstream.requests == []
    assert [request.status for request in proxy.journal.requests()] == [None]


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_after_status_forwards_and_answers_an_error(method: str, upstream: Upstream, proxy: FaultProxy):
    with proxy.faults(Rule("after_status", status=502, code="BadGateway")):
        status, body = ask(proxy, method, body=b"written")
    assert status == 502
    assert b"BadGateway" in body
    assert [(asked, sent) for asked, _, _, sent in upstream.requests] == [(method, b"written")]


def test_after_reset_forwards_and_resets_the_connection(upstream: Upstream, proxy: FaultProxy):
    with proxy.faults(Rule("after_reset")), pytest.raises(ConnectionResetError) as raised:
        ask(proxy, "PUT", body=b"written")
    assert raised.type is ConnectionResetError, "http.client has a subclass for connections that were closed in order"
    assert [(asked, sent) for asked, _, _, sent in upstream.requests] == [("PUT", b"written")]
    assert [request.status for request in proxy.journal.requests()] == [None]


@pytest.mark.parametrize(("kind", "error"), [("reset_mid", ConnectionResetError), ("close_mid", None)])
def test_answer_cut_in_the_body_promises_the_whole(kind: Kind, error: type[Exception] | None, proxy: FaultProxy):
    with proxy.faults(Rule(kind, times=2)):
        headers, body, ended = received_until_the_end(proxy)
        assert f"Content-Length: {len(CONTENT)}".encode() in headers
        assert body == CONTENT[:HALF]
        assert ended is error
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            ask(proxy)
    assert proxy.journal.bytes_down() == 2 * HALF


def test_short_answer_has_its_own_honest_length(proxy: FaultProxy):
    with proxy.faults(Rule("short", fraction=0.25)):
        assert ask(proxy) == (200, CONTENT[: HALF // 2])


@pytest.mark.parametrize(("byte", "flipped"), [(None, HALF), (0, 0), (7, 7), (10**9, len(CONTENT) - 1)])
def test_flip_changes_one_bit_of_an_answer(byte: int | None, flipped: int, upstream: Upstream, proxy: FaultProxy):
    with proxy.faults(Rule("flip", byte=byte)):
        status, body = ask(proxy)
    assert status == 200
    assert [position for position in range(len(CONTENT)) if body[position] != CONTENT[position]] == [flipped]
    assert (body[flipped] ^ CONTENT[flipped]).bit_count() == 1


@pytest.mark.parametrize("query", ["", "?partNumber=1&uploadId=x"])
def test_flip_changes_one_bit_of_an_upload(query: str, upstream: Upstream, proxy: FaultProxy):
    with proxy.faults(Rule("flip", "PutObject|UploadPart", byte=3)):
        assert ask(proxy, "PUT", PATH + query, CONTENT) == (200, b"")
    [(_, _, _, sent)] = upstream.requests
    assert sent == CONTENT[:3] + bytes([CONTENT[3] ^ 1]) + CONTENT[4:]


@pytest.mark.parametrize("kind", ["delay", "stall_mid"])
def test_delay_and_stall_mid_make_the_client_wait_and_give_the_whole(kind: Kind, proxy: FaultProxy):
    with proxy.faults(Rule(kind, seconds=FOR_EVER_S)):
        connection = connect(proxy.endpoint_url, timeout=0.1)
        connection.request("GET", PATH)
        with pytest.raises(TimeoutError):
            connection.getresponse().read()
        wait_for(lambda: proxy.journal.faults() == {kind: 1}, "the request", ARRIVES_WITHIN_S)
        connection.close()
    with proxy.faults(Rule(kind, seconds=0.1)):
        assert ask(proxy) == (200, CONTENT)
    assert proxy.journal.faults() == {kind: 2}


@pytest.mark.parametrize("kind", ["flip", "short", "stall_mid"])
def test_faults_of_the_body_leave_an_answer_without_one_alone(kind: Kind, upstream: Upstream, proxy: FaultProxy):
    with proxy.faults(Rule(kind, seconds=0.1, times=2)):
        assert ask(proxy, "HEAD") == (200, b"")
        assert ask(proxy, "PUT") == (200, b"")
    assert upstream.methods == ["HEAD", "PUT"]


def test_rule_applies_after_skip_and_so_many_times(proxy: FaultProxy):
    proxy.fail(Rule("status", skip=1, times=2))
    assert faulty_requests(proxy, 5) == [False, True, True, False, False]
    proxy.fail(Rule("status", times=None))
    assert faulty_requests(proxy, 3) == [True, True, True]
    proxy.heal()
    assert faulty_requests(proxy, 2) == [False, False]


def test_rule_applies_to_whole_operations_and_keys_only(proxy: FaultProxy):
    with proxy.faults(Rule("status", "Get.*", "some/k.*", times=None)):
        assert ask(proxy)[0] == 500
        assert ask(proxy, path="/bucket/not/some/key")[0] == 200
        assert ask(proxy, "PUT")[0] == 200
        assert ask(proxy, path="/bucket?list-type=2")[0] == 200
    with pytest.raises(Exception, match="unterminated"):
        Rule("status", key="[")


def test_first_matching_rule_with_hits_left_wins(proxy: FaultProxy):
    with proxy.faults(Rule("status", status=403, skip=1), Rule("status", status=503, times=2), Rule("status", status=500)):
        assert [ask(proxy)[0] for _ in range(5)] == [503, 403, 503, 500, 200]


def test_faults_end_with_the_block_also_when_it_raises(proxy: FaultProxy):
    with pytest.raises(ZeroDivisionError), proxy.faults(Rule("status", times=None)):
        raise ZeroDivisionError
    assert ask(proxy) == (200, CONTENT)


def test_probability_is_drawn_from_the_seed_and_anew_after_heal(upstream: Upstream, proxy: FaultProxy):
    rule = Rule("status", times=None, probability=0.5)
    with proxy.faults(rule):
        first = faulty_requests(proxy, 40)
    with proxy.faults(rule):
        assert faulty_requests(proxy, 40) == first
    assert 5 < sum(first) < 35
    with FaultProxy(upstream.url, seed=1) as other, other.faults(rule):
        assert faulty_requests(other, 40) != first
    with proxy.faults(Rule("status", times=None, probability=0.0)):
        assert faulty_requests(proxy, 10) == [False] * 10


@pytest.mark.parametrize("client_stays", [True, False])
def test_proxy_closes_while_a_request_is_stalled(client_stays: bool, upstream: Upstream):
    others = {thread for thread in threading.enumerate() if thread.name == "s3-proxy"}  # that of the session's fixture
    with FaultProxy(upstream.url) as proxy:
        proxy.fail(Rule("stall", seconds=FOR_EVER_S))
        connection = connect(proxy.endpoint_url, timeout=0.3)
        connection.request("GET", PATH)
        with pytest.raises(TimeoutError):
            connection.getresponse()
        wait_for(lambda: proxy.journal.faults() == {"stall": 1}, "the request", ARRIVES_WITHIN_S)
        if not client_stays:
            connection.close()
    connection.close()
    assert {thread for thread in threading.enumerate() if thread.name == "s3-proxy"} == others


def test_conditional_writes_of_a_key_take_turns(upstream: Upstream, proxy: FaultProxy):
    upstream.meeting = threading.Barrier(2, timeout=0.3)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ask(proxy, "PUT", PATH, b"x", {"If-None-Match": "*"}), range(4)))
    assert upstream.meeting.broken, "the first was alone until it gave up waiting"
    assert sorted(status for status, _ in answers) == [200, 412, 412, 412]


@pytest.mark.parametrize(
    ("method", "other_path", "header"),
    [("PUT", PATH, "x-amz-meta-a"), ("PUT", f"{PATH}2", "If-None-Match"), ("GET", PATH, "If-Match")],
)
def test_other_requests_do_not_wait_for_each_other(
    method: str, other_path: str, header: str, upstream: Upstream, proxy: FaultProxy
):
    upstream.meeting = threading.Barrier(2, timeout=ARRIVES_WITHIN_S)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda path: ask(proxy, method, path, headers={header: "*"}), [PATH, other_path]))
    assert [status for status, _ in answers] == [200, 200]
    assert not upstream.meeting.broken


def s3_client(endpoint_url: str):
    once = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, max_pool_connections=16)
    return boto3.client("s3", endpoint_url=endpoint_url, config=once)


def status_and_code(error: ClientError) -> tuple[int | None, str | None]:
    response = error.response
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode"), response.get("Error", {}).get("Code")


def test_s3_client_takes_the_errors_for_those_of_s3(s3_server: S3Server):
    bucket = f"test-{uuid.uuid4().hex}"
    with FaultProxy(s3_server.endpoint_url) as proxy:
        client = s3_client(proxy.endpoint_url)
        client.create_bucket(Bucket=bucket)
        with proxy.faults(Rule("status", status=503, code="SlowDown")), pytest.raises(ClientError) as raised:
            client.put_object(Bucket=bucket, Key="key", Body=b"refused")
        assert status_and_code(raised.value) == (503, "SlowDown")
        with proxy.faults(Rule("after_status", "PutObject")), pytest.raises(ClientError) as raised:
            client.put_object(Bucket=bucket, Key="key", Body=b"written", IfNoneMatch="*")
        assert status_and_code(raised.value) == (500, "InternalError")
        with pytest.raises(ClientError) as raised:
            client.put_object(Bucket=bucket, Key="key", Body=b"again", IfNoneMatch="*")
        assert status_and_code(raised.value) == (412, "PreconditionFailed")
        assert client.get_object(Bucket=bucket, Key="key")["Body"].read() == b"written"
    s3_server.filesystem().rm(bucket, recursive=True)


def test_conditional_puts_at_once_have_exactly_one_winner(s3_server: S3Server):
    bodies = [bytes([number]) * 2**20 for number in range(16)]
    bucket = f"test-{uuid.uuid4().hex}"
    together = threading.Barrier(len(bodies))
    with FaultProxy(s3_server.endpoint_url) as proxy, ThreadPoolExecutor(len(bodies)) as pool:
        client = s3_client(proxy.endpoint_url)
        client.create_bucket(Bucket=bucket)

        def put(body: bytes) -> int | None:
            together.wait()
            try:
                client.put_object(Bucket=bucket, Key="key", Body=body, IfNoneMatch="*")
            except ClientError as error:
                return status_and_code(error)[0]
            return 200

        statuses = list(pool.map(put, bodies))
        assert sorted(map(str, statuses)) == ["200"] + ["412"] * (len(bodies) - 1)
        assert client.get_object(Bucket=bucket, Key="key")["Body"].read() == bodies[statuses.index(200)]
    s3_server.filesystem().rm(bucket, recursive=True)
