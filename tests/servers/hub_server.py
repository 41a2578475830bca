"""A stand-in of the Hugging Face hub's HTTP API on loopback, for dataset repositories, in a thread of the tests' process.

It answers as the hub does where huggingface_hub, `datasets` and HfFileSystem depend on it: commits with a stale parent are
refused (412), large files are stored by their SHA-256, which is checked, and must be there before a commit names them,
listings come in pages. There is no Xet storage: clients set HF_HUB_DISABLE_XET. Faults are injected by request.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

from tests.servers.hub_repositories import LARGE, Blob, Repository, Tree, entries_below

TOKEN = "hf_of_the_tests"
READ_TOKEN = "hf_that_may_only_read"
USER = "user"
PAGE = 5  # entries per page of a listing
PART_BYTES = 256 * 1024  # larger objects are uploaded in parts


@dataclass
class Fault:
    """What happens to the next `times` requests that match, after the first `skip` of them.

    status: answered in place of an answer; None: the connection is cut. done: the request is carried out first.
    """

    request: str  # regular expression for "METHOD /path"
    status: int | None = None
    times: int = 1
    skip: int = 0
    done: bool = False


class HubServer:
    """The hub. `requests` are (method, path, status) of what was answered; `before` is called with "METHOD /path" first."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}  # by SHA-256
        self.parts: dict[tuple[str, int], bytes] = {}
        self.requests: list[tuple[str, str, int]] = []
        self.faults: list[Fault] = []
        self.before: Callable[[str], None] = lambda request: None
        self.lock = threading.RLock()
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def environment(self, token: str | None = TOKEN) -> dict[str, str]:
        """For a process that shall use it; None: without a token."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": token or "",
            "HF_TOKEN_PATH": "/nonexistent",
        }

    def create(self, name: str, *, private: bool = False) -> Repository:
        repository = self.repositories[name] = Repository(private)
        repository.add_commit("main", {".gitattributes": Blob(b"*.parquet filter=lfs diff=lfs merge=lfs -text\n", False)})
        return repository

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """{path: content} at a branch or commit."""
        repository = self.repositories[name]
        tree = repository.commits[repository.branches.get(revision, revision)]
        return {path: blob.content for path, blob in tree.items()}

    def put(self, name: str, path: str, content: bytes) -> None:
        """A commit of somebody else's."""
        with self.lock:
            repository = self.repositories[name]
            tree = repository.commits[repository.branches["main"]] | {path: Blob(content, path.endswith(LARGE))}
            repository.add_commit("main", tree)

    def uploads(self) -> list[str]:
        """SHA-256 of the objects whose content was received, in order."""
        return [
            path.split("/")[2]
            for method, path, status in self.requests
            if method == "PUT" and status == 200 and path.startswith("/objects/")
        ]


@contextmanager
def hub_server() -> Iterator[HubServer]:
    server = HubServer()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()


class HubError(Exception):
    """An answer other than 200; `code` is its X-Error-Code."""

    def __init__(self, status: int, message: str, code: str | None = None):
        self.status, self.message, self.code = status, message, code


class Handler(BaseHTTPRequestHandler):
    """One request."""

    hub: ClassVar[HubServer]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def respond(self) -> None:
        url = urlsplit(self.path)
        request = f"{self.command} {unquote(url.path)}"
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(self._chunks())
        self.hub.before(request)
        fault = self._fault(request)
        if fault is not None and not fault.done:
            if fault.status is None:
                self._log(0)
                self.close_connection = True
            else:
                self._send(fault.status, json.dumps({"error": "injected"}).encode(), {})
            return
        try:
            with self.hub.lock:
                status, content, headers = self._answer(url, body)
        except HubError as error:
            status, content = error.status, json.dumps({"error": error.message}).encode()
            headers = {"X-Error-Message": error.message, "Content-Type": "application/json"}
            if error.code:
                headers["X-Error-Code"] = error.code
        if fault is not None:
            self._log(0)
            self.close_connection = True
        else:
            self._send(status, content, headers)

    do_GET = do_HEAD = do_POST = do_PUT = respond

    def _fault(self, request: str) -> Fault | None:
        for fault in self.hub.faults:
            if fault.times and re.search(fault.request, request):
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _log(self, status: int) -> None:
        self.hub.requests.append((self.command, unquote(urlsplit(self.path).path), status))

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self._log(status)
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _answer(self, url: Any, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        path, query = unquote(url.path), parse_qs(url.query)
        for pattern, answer in ROUTES:
            match = re.fullmatch(pattern, f"{self.command} {url.path}")
            if match:
                found = answer(self, body, query, *[unquote(group) for group in match.groups()])
                return (
                    found
                    if isinstance(found, tuple)
                    else (200, json.dumps(found).encode(), {"Content-Type": "application/json"})
                )
        raise HubError(404, f"no such endpoint: {path}")

    def _user(self, *, write: bool = False) -> str | None:
        """Who asks; None without a token."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in ("", TOKEN, READ_TOKEN):
            raise HubError(401, "Invalid credentials in Authorization header")
        if write and not token:
            raise HubError(401, "Invalid username or password.")
        if write and token == READ_TOKEN:
            raise HubError(403, "You don't have the required permissions: use a token with the role write")
        return USER if token else None

    def _repository(self, name: str, *, write: bool = False) -> Repository:
        user = self._user(write=write)
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and user is None):
            raise HubError(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and not name.startswith(f"{USER}/"):
            raise HubError(403, f"you have no write access to {name}")
        return repository

    def _at(self, name: str, revision: str) -> tuple[str, Tree]:
        repository = self._repository(name)
        sha = repository.branches.get(revision, revision)
        if sha not in repository.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha, repository.commits[sha]

    def whoami(self, body: bytes, query: dict) -> Any:
        self._user(write=False)
        return {"name": USER, "orgs": []}

    def validate_yaml(self, body: bytes, query: dict) -> Any:
        return {"errors": [], "warnings": []}

    def create_repository(self, body: bytes, query: dict) -> Any:
        wanted = json.loads(body)
        user = self._user(write=True)
        name = f"{wanted['organization'] or user}/{wanted['name']}"
        if not name.startswith(f"{user}/"):
            raise HubError(403, f"You don't have the rights to create a dataset under the namespace {wanted['organization']!r}")
        if name in self.hub.repositories:
            raise HubError(409, "You already created this dataset repo")
        self.hub.create(name, private=wanted.get("visibility") == "private")
        return {"url": f"{self.hub.endpoint}/datasets/{name}", "name": name, "id": name}

    def create_branch(self, body: bytes, query: dict, name: str, branch: str) -> Any:
        repository = self._repository(name, write=True)
        if branch in repository.branches:
            raise HubError(409, "Reference already exists")
        repository.branches[branch] = repository.branches[json.loads(body or b"{}").get("startingPoint", "main")]
        return {}

    def refs(self, body: bytes, query: dict, name: str) -> Any:
        branches = self._repository(name).branches
        listed = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha} for name, sha in branches.items()]
        return {"branches": listed, "converts": [], "tags": []}

    def info(self, body: bytes, query: dict, name: str, revision: str = "main") -> Any:
        sha, tree = self._at(name, revision)
        siblings = [{"rfilename": path} for path in sorted(tree)]
        private = self.hub.repositories[name].private
        return {"id": name, "_id": name, "sha": sha, "private": private, "gated": False, "siblings": siblings, "tags": []}

    def tree(self, body: bytes, query: dict, name: str, revision: str, folder: str = "") -> Any:
        _, tree = self._at(name, revision)
        entries = entries_below(tree, folder, recursive=query.get("recursive", ["false"])[0].lower() == "true")
        if folder and not entries:
            raise HubError(404, f"{folder} does not exist", "EntryNotFound")
        start = int(query.get("cursor", ["0"])[0])
        headers = {"Content-Type": "application/json"}
        if start + PAGE < len(entries):
            rest = "&".join(f"{key}={values[0]}" for key, values in query.items() if key != "cursor")
            address = f"{self.hub.endpoint}{urlsplit(self.path).path}?{rest}&cursor={start + PAGE}"
            headers["Link"] = f'<{address}>; rel="next"'
        return 200, json.dumps(entries[start : start + PAGE]).encode(), headers

    def paths_info(self, body: bytes, query: dict, name: str, revision: str) -> Any:
        _, tree = self._at(name, revision)
        is_json = "json" in self.headers.get("Content-Type", "")
        paths = json.loads(body)["paths"] if is_json else [value for key, value in parse_qsl(body.decode()) if key == "paths"]
        every = {entry["path"]: entry for entry in entries_below(tree, "", recursive=True)}
        return [every[path] for path in paths if path in every]

    def preupload(self, body: bytes, query: dict, name: str, revision: str) -> Any:
        self._repository(name, write=True)
        _, tree = self._at(name, revision)
        files = []
        for file in json.loads(body)["files"]:
            blob, large = tree.get(file["path"]), file["path"].endswith(LARGE)
            oid = None if blob is None else blob.sha256 if blob.large else blob.oid
            files.append({"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid})
        return {"files": files}

    def batch(self, body: bytes, query: dict, name: str) -> Any:
        self._repository(name, write=True)
        objects = []
        for wanted in json.loads(body)["objects"]:
            oid, size = wanted["oid"], wanted["size"]
            if oid in self.hub.objects:
                objects.append({"oid": oid, "size": size})
                continue
            href = f"{self.hub.endpoint}/objects/{oid}"
            upload: dict[str, Any] = {"href": f"{href}?X-Amz-Signature=secret"}
            if size > PART_BYTES:
                count = -(-size // PART_BYTES)
                parts = {str(number + 1): f"{href}/{number}?X-Amz-Signature=secret" for number in range(count)}
                upload = {"href": f"{href}/complete", "header": {"chunk_size": str(PART_BYTES), **parts}}
            objects.append({"oid": oid, "size": size, "actions": {"upload": upload, "verify": {"href": f"{href}/verify"}}})
        return {"transfer": "basic", "objects": objects}

    def put_object(self, body: bytes, query: dict, oid: str) -> Any:
        if hashlib.sha256(body).hexdigest() != oid:
            raise HubError(400, "the content has another SHA-256")
        self.hub.objects[oid] = body
        return {}

    def put_part(self, body: bytes, query: dict, oid: str, number: str) -> Any:
        self.hub.parts[oid, int(number)] = body
        return 200, b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}

    def complete(self, body: bytes, query: dict, oid: str) -> Any:
        content = b"".join(self.hub.parts.pop((oid, part["partNumber"] - 1)) for part in json.loads(body)["parts"])
        return self.put_object(content, query, oid)

    def verify(self, body: bytes, query: dict, oid: str) -> Any:
        if len(self.hub.objects.get(oid, b"")) != json.loads(body)["size"]:
            raise HubError(404, "no such object")
        return {}

    def commit(self, body: bytes, query: dict, name: str, branch: str) -> Any:
        repository = self._repository(name, write=True)
        if branch not in repository.branches:
            raise HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        lines = [json.loads(line) for line in body.splitlines()]
        head = repository.branches[branch]
        if lines[0]["value"].get("parentCommit") not in (None, head):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        tree = dict(repository.commits[head])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                tree[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    raise HubError(400, f"{value['path']}: the pointer names an object that was not uploaded")
                tree[value["path"]] = Blob(self.hub.objects[value["oid"]], True)
            elif line["key"] == "deletedFile" and tree.pop(value["path"], None) is None:
                raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
        sha = repository.add_commit(branch, tree)
        return {"success": True, "commitOid": sha, "commitUrl": f"{self.hub.endpoint}/datasets/{name}/commit/{sha}"}

    def resolve(self, body: bytes, query: dict, name: str, revision: str, path: str) -> Any:
        sha, tree = self._at(name, revision)
        if path not in tree:
            raise HubError(404, f"{path} does not exist", "EntryNotFound")
        blob = tree[path]
        etag = f'"{blob.sha256 if blob.large else blob.oid}"'
        headers = {"ETag": etag, "X-Linked-Etag": etag, "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        headers |= {"X-Linked-Size": str(len(blob.content)), "Content-Type": "application/octet-stream"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return 200, blob.content, headers
        start, stop = int(wanted[1]), int(wanted[2]) + 1 if wanted[2] else len(blob.content)
        content = blob.content[start:stop]
        headers["Content-Range"] = f"bytes {start}-{start + len(content) - 1}/{len(blob.content)}"
        return 206, content, headers


NAME, BRANCH = r"([^/]+/[^/]+)", r"([^/]+)"
API = f"/api/datasets/{NAME}"
ROUTES: list[tuple[str, Callable[..., Any]]] = [
    ("GET /api/whoami-v2", Handler.whoami),
    ("POST /api/validate-yaml", Handler.validate_yaml),
    ("POST /api/repos/create", Handler.create_repository),
    (f"POST {API}/branch/{BRANCH}", Handler.create_branch),
    (f"GET {API}/refs", Handler.refs),
    (f"GET {API}", Handler.info),
    (f"GET {API}/revision/{BRANCH}", Handler.info),
    (f"GET {API}/tree/{BRANCH}", Handler.tree),
    (f"GET {API}/tree/{BRANCH}/(.+)", Handler.tree),
    (f"POST {API}/paths-info/{BRANCH}", Handler.paths_info),
    (f"POST {API}/preupload/{BRANCH}", Handler.preupload),
    (f"POST {API}/commit/{BRANCH}", Handler.commit),
    (rf"POST /datasets/{NAME}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT /objects/([0-9a-f]+)", Handler.put_object),
    (r"PUT /objects/([0-9a-f]+)/(\d+)", Handler.put_part),
    ("POST /objects/([0-9a-f]+)/complete", Handler.complete),
    ("POST /objects/([0-9a-f]+)/verify", Handler.verify),
    (f"(?:GET|HEAD) /datasets/{NAME}/resolve/{BRANCH}/(.+)", Handler.resolve),
]
