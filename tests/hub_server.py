"""A read-only stand-in for the Hugging Face Hub on the loopback interface, so that downloads are tested offline."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

REVISION = "main"


@dataclass
class Repository:
    """A folder as a model repository with one commit on ``main``: the files that were there when it was made."""

    folder: Path
    etags: dict[str, str] = field(default_factory=dict)
    commit: str = ""

    def __post_init__(self) -> None:
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            content = path.read_bytes()
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content)
            self.etags[path.relative_to(self.folder).as_posix()] = blob.hexdigest()
        self.commit = hashlib.sha1(json.dumps(self.etags).encode()).hexdigest()

    def tree(self, parent: str, recursive: bool) -> list[dict[str, object]]:
        """Files and direct subfolders of a folder, as the Hub lists them."""
        prefix = f"{parent}/" if parent else ""
        inside = [name for name in self.etags if name.startswith(prefix)]
        folders = {name[: len(prefix) + end] for name in inside if (end := name[len(prefix) :].find("/")) > 0}
        files = [name for name in inside if recursive or "/" not in name[len(prefix) :]]
        size = {name: (self.folder / name).stat().st_size for name in files}
        return [{"type": "directory", "path": name, "oid": self.commit, "size": 0} for name in sorted(folders)] + [
            {"type": "file", "path": name, "oid": self.etags[name], "size": size[name]} for name in files
        ]


@dataclass
class Hub:
    """What is served where, and what was asked for: ``requests`` holds method and path, in order of arrival."""

    repositories: dict[str, Repository]
    url: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)

    def asked_for(self, repository: str, suffix: str = "") -> list[str]:
        """Paths of requests about a repository that end like this."""
        return [path for _, path in self.requests if f"/{repository}/" in f"{path}/" and path.endswith(suffix)]


@contextmanager
def serve_hub(folders: Mapping[str, str | Path]) -> Iterator[Hub]:
    """Serve folders as model repositories, by name; point ``HF_ENDPOINT`` of a new process to ``url``."""
    hub = Hub({name: Repository(Path(folder)) for name, folder in folders.items()})
    handler = type("HubHandler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.hub.requests.append((self.command, path))
        parts = path.removeprefix("/api/models").strip("/").split("/")
        repository = self.hub.repositories.get("/".join(parts[:2]))
        if repository is None:
            return self._refuse("RepoNotFound", "Repository not found")
        kind, revision, inner = parts[2] if parts[2:] else "revision", (parts[3:4] or [REVISION])[0], parts[4:]
        if revision not in (REVISION, repository.commit):
            return self._refuse("RevisionNotFound", f"Invalid rev id: {revision}")
        api, name = path.startswith("/api/models/"), "/".join(inner)
        if api and kind == "revision" and not inner:
            siblings = [{"rfilename": file} for file in repository.etags]
            self._answer_json({"id": "/".join(parts[:2]), "sha": repository.commit, "siblings": siblings})
        elif api and kind == "tree" and (entries := repository.tree(name, "recursive=true" in url.query.lower())):
            self._answer_json(entries)
        elif not api and kind == "resolve" and name in repository.etags:
            headers = {"ETag": f'"{repository.etags[name]}"', "X-Repo-Commit": repository.commit}
            self._send(200, (repository.folder / name).read_bytes(), headers)
        else:
            self._refuse("EntryNotFound", "Entry not found", {"X-Repo-Commit": repository.commit})

    do_HEAD = do_GET

    def _answer_json(self, content: object) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _refuse(self, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        self._send(404, message.encode(), {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Keep quiet: the requests are in ``Hub.requests``."""
