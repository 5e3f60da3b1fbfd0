"""The parent's side: processes that take turns."""

from __future__ import annotations

import gc
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from benchmarks.side_by_side.worker import Session

ROOT = Path(__file__).resolve().parents[2]


class Asked(Protocol):
    """Whoever answers requests."""

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer."""

    def close(self) -> None:
        """End it."""


class Process:
    """A worker process.

    Args:
        python: Its interpreter.
        threads: Threads that it may use.
        log: File for what it prints.
    """

    def __init__(self, python: Path, threads: int, log: Path) -> None:
        counted = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        quiet = {"TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [str(python), "-m", "benchmarks.side_by_side.worker"],
                cwd=ROOT,
                env={**os.environ, **counted, **quiet},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def ask(self, **request: Any) -> dict[str, Any]:
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            return {"error": f"the process ended with status {self.process.wait()}; see {self.log.name}"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class InProcess:
    """A worker in this process: on a GPU, where all share one, and for tests."""

    def __init__(self) -> None:
        self.session = Session()

    def ask(self, **request: Any) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(json.dumps(self.session.answer(request)))
        return answer

    def close(self) -> None:
        self.session = Session()  # the subject's memory is free from here on
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class Turns:
    """Workers that take turns, in another order each round; who fails is left out from then on.

    Args:
        workers: By name, loaded.
        seed: Of the orders.
    """

    def __init__(self, workers: Mapping[str, Asked], seed: int = 0) -> None:
        self.workers = dict(workers)
        self.failed: dict[str, str] = {}
        self._random = random.Random(seed)

    def once(self, only: list[str] | None = None, **requests: Any) -> dict[str, dict[str, Any]]:
        """Ask each of them once, one at a time.

        Args:
            only: Names of those to ask; all if not given.
            **requests: The request; a function is called with the worker's name.

        Returns:
            The answers by name, without those that failed.
        """
        names = [name for name in self.workers if only is None or name in only]
        self._random.shuffle(names)
        answers = {}
        for name in names:
            request = {key: value(name) if callable(value) else value for key, value in requests.items()}
            answer = self.workers[name].ask(**request)
            if "error" in answer:
                self.failed[name] = answer["error"]
                self.workers.pop(name).close()
            else:
                answers[name] = answer
        return answers

    def close(self) -> None:
        """End all processes."""
        for worker in self.workers.values():
            worker.close()


def interpreter(environment: Path | None) -> Path:
    """This Python, or that of a virtual environment."""
    return Path(sys.executable) if environment is None else environment / "bin" / "python"
