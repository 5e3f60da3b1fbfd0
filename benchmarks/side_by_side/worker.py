"""The process of one contender: it reads a request a line and answers with a line, and is idle in between.

It imports nothing of this project but this package, so that it also runs in environments that lack the project's needs.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import time
from typing import Any, Protocol

from benchmarks.side_by_side.memory import Memory


class Subject(Protocol):
    """What a worker measures."""

    about: dict[str, Any]

    def touch(self) -> None:
        """Use every weight once."""

    def prepare(self, **job: Any) -> Any:
        """What is timed, as a function without arguments; the preparation is not."""

    def describe(self, value: Any, **job: Any) -> dict[str, Any]:
        """What to answer about the value that it returned."""


class Session:
    """A contender and what it is asked.

    Requests are ``{"do": "load", "subject": "module:class", "settings": {...}}``, ``{"do": "run", "job": {...},
    "memory": bool}`` and ``{"do": "matmul", "dtype": str}``; answers tell ``seconds`` and more, or an ``error``.
    """

    subject: Any
    memory: Memory

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        kinds = {"load": self.load, "run": self.run, "matmul": self.matmul}
        given = {key: value for key, value in request.items() if key != "do"}
        try:
            return kinds[request["do"]](**given)
        except Exception as error:  # noqa: BLE001 - whatever another library raises is a row of the table
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            return {"error": describe_error(error)}

    def load(self, subject: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Load a subject and use it once; its memory counts from here on."""
        module, name = subject.split(":")
        begun = time.perf_counter()
        self.subject = getattr(importlib.import_module(module), name)(**settings)
        loaded = time.perf_counter()
        self.subject.touch()
        touched = time.perf_counter()
        self.device = settings.get("device", "cpu")
        self.memory = Memory(self.device)
        return {"load_seconds": loaded - begun, "touch_seconds": touched - loaded, "about": self.subject.about}

    def run(self, job: dict[str, Any], memory: bool = False) -> dict[str, Any]:
        work = self.subject.prepare(**job)
        if memory:
            self.memory.start()
        begun = time.perf_counter()
        value = work()
        seconds = time.perf_counter() - begun
        grown = {"peak_mib": self.memory.growth()} if memory else {}
        return {"seconds": seconds, **grown, **self.subject.describe(value, **job)}

    def matmul(self, dtype: str) -> dict[str, Any]:
        """What the machine can do at this moment."""
        from benchmarks.side_by_side.flops import matmul_rate

        return {"flops_per_second": matmul_rate(dtype, self.device)}


def describe_error(error: Exception) -> str:
    """An error on one line of a table, without paths."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    short = re.sub(r"'?(/[\w.@+-]+){2,}'?", "…", line).replace("|", "\\|")
    return short if len(short) <= 200 else f"{short[:200]} …"


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print goes to the log
    session = Session()
    for line in sys.stdin:
        answers.write(json.dumps(session.answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
