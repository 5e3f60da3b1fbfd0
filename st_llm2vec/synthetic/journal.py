"""Answers on the disk, each kept before the next is paid for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from st_llm2vec.folder.held import held

NAME = "requests.jsonl"


@dataclass(frozen=True)
class Answer:
    """What a chat model answered.

    Args:
        text: The answer.
        finish: Why it ended, as its provider says it: ``stop``, ``length``, ...
        tokens: How many tokens were read and written, where the provider says it: ``input`` and ``output``.
        model: What answered, by the provider's own name.
        attempts: How often it was asked, errors included.
        seconds: How long the last attempt took.
        refused: Whether the provider says that it refused.
    """

    text: str
    finish: str = ""
    tokens: dict[str, int] = field(default_factory=dict)
    model: str = ""
    attempts: int = 1
    seconds: float = 0.0
    refused: bool = False


class Journal:
    """The answers of a folder, by the identity of their request.

    A line is on the disk before :meth:`write` returns, so that a process that is killed has paid for no answer that is not
    there but those that were on their way. Memory holds where each line begins, not the lines.

    Args:
        folder: The folder.

    Raises:
        ValueError: If the folder holds something else.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is a file; give a folder for the generated data.")
        self.folder = folder
        self.file = folder / NAME
        if folder.is_dir() and not self.file.is_file():
            strange = sorted(one.name for one in folder.iterdir() if not one.name.startswith("."))
            if strange:
                raise ValueError(f"{folder} holds {strange[0]} and no {NAME}; give a new or an empty folder.")
        self._places: dict[str, int] = {}
        self._reader: BinaryIO | None = None
        self._writer: FileIO | None = None

    @contextmanager
    def held(self) -> Iterator[Journal]:
        """Hold the folder for this process, and read which answers it has; a torn last line is cut off.

        Raises:
            ValueError: If another process has it, or a line cannot be read.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with held(self.folder, "generating into"):
            try:
                with open(self.file, "ab", buffering=0) as self._writer, open(self.file, "rb") as self._reader:
                    self._read()
                    yield self
            finally:
                self._reader = self._writer = None

    def __contains__(self, identity: str) -> bool:
        return identity in self._places

    def __len__(self) -> int:
        return len(self._places)

    def answer(self, identity: str) -> Answer:
        """The answer to a request.

        Raises:
            KeyError: If there is none.
        """
        assert self._reader is not None, "the folder is not held"
        self._reader.seek(self._places[identity])
        data = json.loads(self._reader.readline())
        return Answer(**data["answer"])

    def write(self, identity: str, asked: dict[str, Any], answer: Answer) -> None:
        """Keep an answer.

        Args:
            identity: That of its request.
            asked: What else is worth knowing of the request, for people.
            answer: The answer.

        Raises:
            OSError: If the disk is full; the line is not there then.
        """
        assert self._writer is not None, "the folder is not held"
        place = self._writer.seek(0, os.SEEK_END)
        data = json.dumps({"request": identity, **asked, "answer": asdict(answer)}, ensure_ascii=False)
        line = data.encode("utf-8", "backslashreplace") + b"\n"
        try:
            while line:
                line = line[self._writer.write(line) :]
            os.fsync(self._writer.fileno())
        except OSError:
            self._writer.truncate(place)
            raise
        self._places[identity] = place

    def _read(self) -> None:
        assert self._reader is not None and self._writer is not None
        place = 0
        for number, line in enumerate(self._reader, start=1):
            if not line.endswith(b"\n"):
                self._writer.truncate(place)
                break
            try:
                self._places[json.loads(line)["request"]] = place
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{self.file}, line {number}: this is no answer that was kept ({error}). Remove the line; its request is "
                    "then made again."
                ) from error
            place += len(line)
