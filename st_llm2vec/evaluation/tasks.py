"""Score encoders on tasks, and keep what was found: a run that is interrupted goes on."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from sentence_transformers import SentenceTransformer

from st_llm2vec.evaluation.fingerprint import encoder_fingerprint
from st_llm2vec.evaluation.kept import keep, read_kept
from st_llm2vec.evaluation.task_data import TaskData, read_task
from st_llm2vec.evaluation.task_encoder import TaskEncoder
from st_llm2vec.evaluation.task_plan import TaskSpec
from st_llm2vec.evaluation.task_scores import score, score_baseline, texts_of, unseen
from st_llm2vec.host.memory import peak_memory

VERSION = 1
"""Raised when the same encoder and task give other scores, so that kept ones are not read."""


@dataclass(frozen=True)
class Task:
    """A task and what its files hold.

    Args:
        spec: The task as a plan says it.
        data: What its files hold.
    """

    spec: TaskSpec
    data: TaskData

    @classmethod
    def read(cls, spec: TaskSpec) -> Task:
        """Read its files, see :func:`~st_llm2vec.evaluation.task_data.read_task`."""
        return cls(spec, read_task(spec))

    @property
    def texts(self) -> int:
        """How many texts it has."""
        return texts_of(self.data)

    @property
    def unseen(self) -> dict[str, int]:
        """Labels that only what is tested has, with their numbers; they count as wrong."""
        return unseen(self.data)

    def fingerprint(self) -> str:
        """A digest of all that a score depends on, beside the encoder: the texts, not the files' names."""
        written = json.dumps([VERSION, self.spec.kind, self.spec.instruction, asdict(self.data)])
        return hashlib.sha256(written.encode()).hexdigest()


@dataclass(frozen=True)
class TaskResult:
    """What an encoder scored on a task.

    Args:
        task: The task's name.
        kind: Its kind.
        metric: The score to show.
        scores: All of its scores, 100 being the best.
        instruction: The instruction that the encoder was told, if any.
        texts: How many texts were encoded.
        seconds: How long it took to encode and to score.
        memory: The most memory that the process had held by then, in bytes.
        unseen: Labels that only test texts have, which count as wrong.
    """

    task: str
    kind: str
    metric: str
    scores: dict[str, float]
    instruction: str | None
    texts: int
    seconds: float
    memory: int
    unseen: dict[str, int]

    @property
    def main(self) -> float:
        """The score to show."""
        return self.scores[self.metric]


def run_baseline(task: Task) -> TaskResult:
    """Score what needs no model on a task (TF-IDF, each word's most frequent label), which is not kept.

    Args:
        task: The task.

    Returns:
        Its scores.
    """
    begun = time.perf_counter()
    return _result(task, score_baseline(task.spec.kind, task.data), None, begun)


def run_task(
    encoder: SentenceTransformer,
    task: Task,
    cache: str | Path | None = None,
    fingerprint: str = "",
    again: bool = False,
    advance: Callable[[int], object] = lambda texts: None,
) -> TaskResult:
    """Score an encoder on a task, or read what it scored before.

    Args:
        encoder: Any ``SentenceTransformer``.
        task: The task.
        cache: The folder of kept results; nothing is kept without one.
        fingerprint: The encoder's, if it is known already, see
            :func:`~st_llm2vec.evaluation.fingerprint.encoder_fingerprint`; it is only looked at with a cache.
        again: Whether to compute it anew.
        advance: Called with the numbers of texts as they are done.

    Returns:
        Its scores.

    Raises:
        ValueError: If it cannot be scored, or a kept result cannot be read.
        OSError: If the result cannot be written.

    Example:
        >>> from st_llm2vec import convert, decoder_path
        >>> from st_llm2vec.evaluation.task_data import Pairs
        >>> pairs = Pairs(["a cat", "the sea", "a red car"], ["a kitten", "a stone", "an auto"], [5, 0, 4])
        >>> task = Task(TaskSpec("three", "sts", {"data": "none"}), pairs)
        >>> -100 <= run_task(convert(decoder_path(), "sgpt", measure=False), task).main <= 100
        True
    """
    target = None
    if cache is not None:
        known = fingerprint or encoder_fingerprint(encoder)
        target = Path(cache) / f"{known[:20]}-{task.fingerprint()[:20]}.json"
    if target is not None and target.is_file() and not again:
        advance(task.texts)
        found: TaskResult = read_kept(target, TaskResult, task=task.spec.name, metric=task.spec.metric)
        _require_metric(task, found.scores)
        return found
    begun = time.perf_counter()
    told = TaskEncoder(encoder, task.spec.instruction, advance, Path(cache) / "words" if cache is not None else None)
    try:
        found = _result(task, score(told, task.spec.kind, task.data), told.instruction, begun)
    except ValueError as error:
        raise ValueError(f"The task {task.spec.name!r}: {error}") from error
    if target is not None:
        keep(target, asdict(found))
    return found


def _require_metric(task: Task, scores: dict[str, float]) -> None:
    name, metric = task.spec.name, task.spec.metric
    if metric not in scores:
        raise ValueError(f"The task {name!r}: its labels mark no chunks or entities, which {metric} counts.")


def _result(task: Task, scores: dict[str, float], instruction: str | None, begun: float) -> TaskResult:
    spec = task.spec
    _require_metric(task, scores)
    measured = (task.texts, time.perf_counter() - begun, peak_memory())
    return TaskResult(spec.name, spec.kind, spec.metric, scores, instruction, *measured, task.unseen)
