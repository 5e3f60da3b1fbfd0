"""What the stand-in for the Hugging Face Hub keeps: repositories with branches, commits and pull requests, and users."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

MAIN = "main"
LARGE = (".safetensors", ".bin", ".onnx")


class Refusal(Exception):
    """An answer other than yes: an HTTP status, the Hub's error code and a message."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass(frozen=True)
class Blob:
    """A file's content; a large one lies in the store of large files, under its sha256."""

    content: bytes = field(repr=False)
    large: bool

    @cached_property
    def etag(self) -> str:
        if self.large:
            return hashlib.sha256(self.content).hexdigest()
        return self.oid

    @cached_property
    def oid(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass(frozen=True)
class Commit:
    """A state of a repository."""

    files: dict[str, Blob]
    message: str
    number: int

    @property
    def oid(self) -> str:
        listed = {name: blob.oid for name, blob in self.files.items()}
        return hashlib.sha1(json.dumps([self.number, self.message, listed]).encode()).hexdigest()


@dataclass
class Repository:
    """Branches (pull requests are branches named ``refs/pr/N``), each with its commits, the first one first."""

    private: bool = False
    branches: dict[str, list[Commit]] = field(default_factory=lambda: {MAIN: [_first()]})

    @classmethod
    def of(cls, folder: Path) -> Repository:
        """A folder's files as the one commit of a public repository."""
        files = {}
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            files[path.relative_to(folder).as_posix()] = Blob(path.read_bytes(), path.suffix in LARGE)
        return cls(branches={MAIN: [Commit(files, "Files of a folder", 0)]})

    @property
    def files(self) -> dict[str, bytes]:
        """What ``main`` holds."""
        return {name: blob.content for name, blob in self.branches[MAIN][-1].files.items()}

    @property
    def pull_requests(self) -> list[str]:
        return [name for name in self.branches if name.startswith("refs/pr/")]

    def at(self, revision: str) -> Commit:
        """The state of a branch, or a commit."""
        if revision in self.branches:
            return self.branches[revision][-1]
        for commits in self.branches.values():
            for commit in commits:
                if commit.oid == revision:
                    return commit
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def commit(self, revision: str, lines: list[dict[str, Any]], large: dict[str, bytes], open_pr: bool) -> Commit:
        """Apply the operations of one request, all or none, to a branch or to a new pull request."""
        if revision not in self.branches:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        head = self.branches[revision][-1]
        header, operations = lines[0]["value"], lines[1:]
        if header.get("parentCommit") not in (None, head.oid):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for operation in operations:
            _apply(operation["key"], operation["value"], files, large)
        made = Commit(files, header["summary"], head.number + 1)
        if open_pr:
            self.branches[f"refs/pr/{len(self.pull_requests) + 1}"] = [*self.branches[revision], made]
        else:
            self.branches[revision].append(made)
        return made


def _first() -> Commit:
    return Commit({".gitattributes": Blob(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n", False)}, "initial", 0)


def _apply(key: str, value: dict[str, Any], files: dict[str, Blob], large: dict[str, bytes]) -> None:
    path = value["path"]
    if key == "file":
        files[path] = Blob(base64.b64decode(value["content"]), False)
    elif key == "lfsFile":
        if value["oid"] not in large:
            raise Refusal(400, f"The large file {path} was never uploaded")
        files[path] = Blob(large[value["oid"]], True)
    elif key == "deletedFile" and path in files:
        del files[path]
    else:
        raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")


@dataclass(frozen=True)
class User:
    """Who a token belongs to; they own their own name and their organisations'."""

    name: str
    organisations: tuple[str, ...] = ()
    may_write: bool = True

    def owns(self, repository: str) -> bool:
        return self.may_write and repository.split("/")[0] in (self.name, *self.organisations)


@dataclass
class Store:
    """All of it."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)

    def find(self, name: str, user: User | None) -> Repository:
        repository = self.repositories.get(name)
        if repository is None or (repository.private and (user is None or not user.owns(name))):
            raise Refusal(404 if user else 401, "Repository not found", "RepoNotFound")
        return repository

    def create(self, name: str, private: bool, user: User | None) -> None:
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        if name in self.repositories:
            raise Refusal(409, "You already created this model repo")
        if not user.owns(name):
            raise Refusal(
                403, f"You don't have the rights to create a model under the namespace {name.split('/')[0]!r}"
            )
        self.repositories[name] = Repository(private)

    def writable(self, name: str, user: User | None, pull_request: bool) -> Repository:
        """A repository that this user may commit to, or open a pull request in."""
        repository = self.find(name, user)
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        if not pull_request and not user.owns(name):
            raise Refusal(403, "Authorization error.")
        return repository


@dataclass
class Fault:
    """Something that goes wrong: for requests whose method and path match, so often.

    ``kind`` is ``"die"`` (the server stops in the middle of the request), ``"corrupt"`` (a byte of the answer is
    another one), ``"truncate"`` (the answer ends half-way) or an HTTP status.
    """

    pattern: str
    kind: str | int
    times: int = 1
