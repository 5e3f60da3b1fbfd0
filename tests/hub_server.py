"""A stand-in for the Hugging Face Hub on the loopback interface: what the installed client sends, it answers.

It speaks the client's own protocol for accounts, repositories, branches, pull requests, commits, large files (LFS, in
parts too) and downloads with redirects and ranges. Large files go by LFS, so clients must run with
``HF_HUB_DISABLE_XET=1``: the storage service that replaces LFS on the real Hub is not imitated.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SHUT_RDWR
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .hub_store import LARGE, MAIN, Fault, Refusal, Repository, Store, User

PART = 4 * 2**20


@dataclass
class Hub:
    """What is served, and what was asked for: ``requests`` holds method and path, in order of arrival."""

    store: Store
    url: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    server: _Server | None = None
    restart: Callable[[], None] = lambda: None
    counting: Lock = field(default_factory=Lock)

    @property
    def repositories(self) -> dict[str, Repository]:
        return self.store.repositories

    def environment(self, home: Path) -> dict[str, str]:
        """The environment of a process that knows no other Hub and caches in ``home``."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
        own = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1,localhost", "OMP_NUM_THREADS": "1"}
        quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        return {**kept, **own, **quiet}

    def asked_for(self, repository: str, suffix: str = "") -> list[str]:
        """Paths of requests about a repository that end like this."""
        return [path for _, path in self.requests if f"/{repository}/" in f"{path}/" and path.endswith(suffix)]

    def fault_for(self, method: str, path: str) -> str | int | None:
        with self.counting:
            for fault in self.faults:
                if fault.times and re.search(fault.pattern, f"{method} {path}"):
                    fault.times -= 1
                    return fault.kind
        return None


@contextmanager
def serve_hub(
    folders: Mapping[str, str | Path] | None = None, users: Mapping[str, User] | None = None
) -> Iterator[Hub]:
    """Serve folders as model repositories, by name; point ``HF_ENDPOINT`` of a new process to ``url``.

    ``users`` maps tokens to whom they belong to. A server that died serves the same again after ``hub.restart()``.
    """
    repositories = {name: Repository.of(Path(folder)) for name, folder in (folders or {}).items()}
    hub = Hub(Store(repositories, dict(users or {})))
    handler = type("HubHandler", (_Handler,), {"hub": hub})
    threads: list[Thread] = []

    def start(port: int = 0) -> None:
        hub.server = _Server(("127.0.0.1", port), handler)
        hub.url = f"http://127.0.0.1:{hub.server.server_address[1]}"
        threads.append(Thread(target=hub.server.serve_forever, daemon=True))
        threads[-1].start()

    start()
    hub.restart = lambda: start(int(hub.url.rpartition(":")[2]))
    try:
        yield hub
    finally:
        if hub.server is not None:
            hub.server.shutdown()
            hub.server.server_close()


class _Server(ThreadingHTTPServer):
    """Knows its connections, to end them all when it dies: a client may wait for an answer without end."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.connections: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def die(self, last: Any) -> None:
        """End all connections; ``last``, by which a test learns of it, when none of the others is left."""
        self.shutdown()
        self.socket.close()
        for connection in [*(self.connections - {last}), last]:
            with suppress(OSError):
                connection.shutdown(SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet where a connection broke off: clients and ``die`` do that on purpose."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    server: _Server
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        url = urlsplit(self.path)
        path, self.query = unquote(url.path), parse_qs(url.query)
        self.hub.requests.append((self.command, path))
        self.fault = self.hub.fault_for(self.command, path)
        if self.fault == "die":
            return self._die()
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if isinstance(self.fault, int):
                raise Refusal(self.fault, "Injected by the test")
            for pattern, name in ROUTES:
                found = re.fullmatch(pattern, f"{self.command.replace('HEAD', 'GET')} {path}")
                if found:
                    return getattr(self, name)(**found.groupdict())
            raise Refusal(404, f"Nothing answers {self.command} {path}")
        except Refusal as refusal:
            headers = {"X-Error-Message": refusal.message, "Content-Type": "application/json"}
            headers |= {"X-Error-Code": refusal.code} if refusal.code else {}
            self._send(refusal.status, json.dumps({"error": refusal.message}).encode(), headers)

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _die(self) -> None:
        """Read some of what is being sent, then stop answering anyone."""
        self.rfile.read(min(1000, int(self.headers.get("Content-Length") or 0)))
        self.close_connection = True
        self.hub.server = None
        self.server.die(self.connection)

    @property
    def user(self) -> User | None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given and given not in self.hub.store.users:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.hub.store.users.get(given)

    # Accounts and repositories

    def whoami(self) -> None:
        user = self.user
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        role = "write" if user.may_write else "read"
        orgs = [{"name": name} for name in user.organisations]
        self._json({"name": user.name, "type": "user", "orgs": orgs, "auth": {"accessToken": {"role": role}}})

    def create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or (self.user.name if self.user else '')}/{asked['name']}"
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.store.create(name, private, self.user)
        self._json({"url": f"{self.hub.url}/{name}", "name": name, "id": name})

    def validate(self) -> None:
        import yaml

        content = json.loads(self.body)["content"]
        try:
            metadata = yaml.safe_load(content.split("---")[1]) if content.startswith("---") else {}
        except yaml.YAMLError as error:
            return self._json({"errors": [{"message": str(error)}], "warnings": []}, 400)
        wrong = [] if isinstance(metadata.get("tags", []), list) else [{"message": "tags must be a list"}]
        self._json({"errors": wrong, "warnings": []}, 400 if wrong else 200)

    def branch(self, repository: str, revision: str) -> None:
        found = self.hub.store.writable(repository, self.user, pull_request=False)
        if revision in found.branches:
            raise Refusal(409, "Reference already exists")
        found.branches[revision] = list(found.branches[json.loads(self.body).get("startingPoint", MAIN)])
        self._json({})

    # What is there

    def info(self, repository: str, revision: str | None) -> None:
        found = self.hub.store.find(repository, self.user)
        commit = found.at(revision or MAIN)
        siblings = [{"rfilename": name} for name in commit.files]
        self._json({"id": repository, "sha": commit.oid, "private": found.private, "siblings": siblings})

    def tree(self, repository: str, revision: str, parent: str | None) -> None:
        files = self.hub.store.find(repository, self.user).at(revision).files
        prefix = f"{parent}/" if parent else ""
        inside = [name for name in files if name.startswith(prefix)]
        recursive = self.query.get("recursive", ["false"])[0].lower() == "true"
        folders = {name[: len(prefix) + end] for name in inside if (end := name[len(prefix) :].find("/")) > 0}
        if not inside:
            raise Refusal(404, "Entry not found", "EntryNotFound")
        listed: list[dict[str, Any]] = [
            {"type": "directory", "path": one, "oid": "0" * 40, "size": 0} for one in folders
        ]
        for name in inside:
            if recursive or "/" not in name[len(prefix) :]:
                blob = files[name]
                entry = {"type": "file", "path": name, "oid": blob.oid, "size": len(blob.content)}
                lfs = {"lfs": {"oid": blob.etag, "size": len(blob.content), "pointerSize": 130}} if blob.large else {}
                listed.append(entry | lfs)
        self._json(listed)

    def resolve(self, repository: str, revision: str, name: str) -> None:
        """Small files by a redirect on this host, large ones by a redirect to another, as on the Hub."""
        commit = self.hub.store.find(repository, self.user).at(revision)
        headers = {"X-Repo-Commit": commit.oid}
        blob = commit.files.get(name)
        if blob is None:
            return self._send(404, b"Entry not found", {**headers, "X-Error-Code": "EntryNotFound"})
        if not blob.large:
            location = f"/api/resolve-cache/models/{repository}/{commit.oid}/{name}"
            return self._send(307, b"", {**headers, "Location": location})
        headers |= {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.content))}
        self.hub.store.large[blob.etag] = blob.content
        self._send(302, b"", {**headers, "Location": f"{self._elsewhere}/cdn/{blob.etag}/{name}"})

    def cached(self, repository: str, revision: str, name: str) -> None:
        commit = self.hub.store.find(repository, self.user).at(revision)
        self._content(commit.files[name].content, {"ETag": f'"{commit.files[name].etag}"', "X-Repo-Commit": commit.oid})

    def cdn(self, oid: str) -> None:
        self._content(self.hub.store.large[oid], {"ETag": f'"{oid}"'})

    # What arrives

    def preupload(self, repository: str, revision: str) -> None:
        files = self.hub.store.writable(repository, self.user, "create_pr" in self.query).at(revision).files
        answers = []
        for one in json.loads(self.body)["files"]:
            mode = "lfs" if one["path"].endswith(LARGE) else "regular"
            held = files.get(one["path"])
            answers.append({"path": one["path"], "uploadMode": mode, "shouldIgnore": False, "oid": held and held.etag})
        self._json({"files": answers})

    def batch(self, repository: str) -> None:
        self.hub.store.find(repository, self.user)
        objects = []
        for one in json.loads(self.body)["objects"]:
            oid, size = one["oid"], one["size"]
            if oid in self.hub.store.large:
                objects.append(one)
                continue
            href, header = f"{self._elsewhere}/lfs/{oid}", {}
            if size > PART:
                header = {str(1 + at // PART): f"{href}/{1 + at // PART}" for at in range(0, size, PART)}
                header["chunk_size"] = str(PART)
            verify = {"href": f"{self.hub.url}/{repository}.git/info/lfs/verify"}
            objects.append({**one, "actions": {"upload": {"href": href, "header": header}, "verify": verify}})
        self._json({"transfer": "multipart", "objects": objects})

    def put(self, oid: str, part: str | None) -> None:
        if part is not None:
            self.hub.store.parts.setdefault(oid, {})[int(part)] = self.body
        else:
            self._keep(oid, self.body)
        self._send(200, b"", {"ETag": f'"{hashlib.md5(self.body).hexdigest()}"'})

    def complete(self, oid: str) -> None:
        parts = self.hub.store.parts.pop(oid, {})
        numbers = [one["partNumber"] for one in json.loads(self.body)["parts"]]
        self._keep(oid, b"".join(parts[number] for number in numbers))
        self._json({})

    def verify(self, repository: str) -> None:
        asked = json.loads(self.body)
        if len(self.hub.store.large.get(asked["oid"], b"")) != asked["size"]:
            raise Refusal(404, f"There is no object {asked['oid']} of this size in {repository}")
        self._json({})

    def commit(self, repository: str, revision: str) -> None:
        open_pr = "create_pr" in self.query
        found = self.hub.store.writable(repository, self.user, open_pr)
        lines = [json.loads(line) for line in self.body.splitlines()]
        made = found.commit(revision, lines, self.hub.store.large, open_pr)
        answer = {"commitUrl": f"{self.hub.url}/{repository}/commit/{made.oid}", "commitOid": made.oid}
        number = len(found.pull_requests)
        self._json(
            {**answer, "pullRequestUrl": f"{self.hub.url}/{repository}/discussions/{number}" if open_pr else None}
        )

    def _keep(self, oid: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refusal(400, "The content's sha256 is not the object's name")
        self.hub.store.large[oid] = content

    @property
    def _elsewhere(self) -> str:
        """This server under another name, so that clients treat it as the storage service's host."""
        return self.hub.url.replace("127.0.0.1", "localhost")

    def _json(self, content: object, status: int = 200) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _content(self, content: bytes, headers: Mapping[str, str]) -> None:
        """The content, or the range of it that is asked for."""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if self.fault == "corrupt":
            content = content[:-1] + bytes([content[-1] ^ 1])
        if not wanted:
            return self._send(200, content, headers)
        start, end = int(wanted.group(1)), int(wanted.group(2) or len(content) - 1)
        self._send(206, content[start : end + 1], {**headers, "Content-Range": f"bytes {start}-{end}/{len(content)}"})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            truncated = self.fault == "truncate"
            self.wfile.write(content[: len(content) // 2] if truncated else content)
            self.close_connection = self.close_connection or truncated

    def log_message(self, *args: object) -> None:
        """Keep quiet: the requests are in ``Hub.requests``."""


_REPOSITORY = r"(?P<repository>[^/]+/[^/]+?)"
_PR = r"(?P<revision>refs/pr/\d+|[^/]+)"
ROUTES = (
    (r"GET /api/whoami-v2", "whoami"),
    (r"POST /api/repos/create", "create"),
    (r"POST /api/validate-yaml", "validate"),
    (rf"GET /api/models/{_REPOSITORY}(/revision/{_PR})?", "info"),
    (rf"GET /api/models/{_REPOSITORY}/tree/{_PR}(/(?P<parent>.+))?", "tree"),
    (rf"POST /api/models/{_REPOSITORY}/branch/(?P<revision>.+)", "branch"),
    (rf"POST /api/models/{_REPOSITORY}/preupload/{_PR}", "preupload"),
    (rf"POST /api/models/{_REPOSITORY}/commit/{_PR}", "commit"),
    (rf"GET /api/resolve-cache/models/{_REPOSITORY}/{_PR}/(?P<name>.+)", "cached"),
    (rf"POST /{_REPOSITORY}\.git/info/lfs/objects/batch", "batch"),
    (rf"POST /{_REPOSITORY}\.git/info/lfs/verify", "verify"),
    (r"PUT /lfs/(?P<oid>\w+)(/(?P<part>\d+))?", "put"),
    (r"POST /lfs/(?P<oid>\w+)", "complete"),
    (r"GET /cdn/(?P<oid>\w+)/.+", "cdn"),
    (rf"GET /{_REPOSITORY}/resolve/{_PR}/(?P<name>.+)", "resolve"),
)
