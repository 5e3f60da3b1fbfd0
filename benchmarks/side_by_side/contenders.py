"""Who takes part. A new contender is a line here, and a class beside those in ``encoders.py`` if it is of a new kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.side_by_side.process import Asked, InProcess, Process, Turns, interpreter
from benchmarks.side_by_side.shapes import LLM2VEC, SHAPES, build, build_for_llm2vec

ENCODERS = "benchmarks.side_by_side.encoders"
PLAIN, OURS, THEIRS = (f"{ENCODERS}:{name}" for name in ("PlainSentenceTransformers", "ThisLibrary", "LLM2Vec"))


@dataclass(frozen=True)
class Contender:
    """An encoder that takes part.

    Args:
        label: What the tables call it.
        subject: ``"module:class"`` of its worker.
        dtype: Weights' type.
        options: More arguments of the class.
        own_environment: Whether it runs in llm2vec's environment, on the recipe ``llm2vec`` only.
        on_gpu: Whether it takes part on GPUs alone.
    """

    label: str
    subject: str
    dtype: str
    options: dict[str, Any] = field(default_factory=dict)
    own_environment: bool = False
    on_gpu: bool = False


CONTENDERS = {
    "plain-float32": Contender("Sentence Transformers, float32", PLAIN, "float32"),
    "plain-bfloat16": Contender("Sentence Transformers, bfloat16", PLAIN, "bfloat16"),
    "plain-large": Contender(
        "Sentence Transformers, bfloat16, batches of 256", PLAIN, "bfloat16", {"batch": 256}, on_gpu=True
    ),
    "llm2vec-float32": Contender("llm2vec 0.2.3, float32", THEIRS, "float32", own_environment=True),
    "llm2vec-bfloat16": Contender("llm2vec 0.2.3, bfloat16", THEIRS, "bfloat16", own_environment=True),
    "ours-float32": Contender("this library, float32", OURS, "float32"),
    "ours-bfloat16": Contender("this library, bfloat16", OURS, "bfloat16"),
    "ours-compiled": Contender("this library, bfloat16, compiled", OURS, "bfloat16", {"compiled": True}),
    "ours-auto": Contender('this library, dtype="auto"', OURS, "auto"),
}
REFERENCES = ("plain-float32", "plain-bfloat16")
"""With whose vectors all others are compared: the first that takes part."""


class Field:
    """The contenders of one shape and recipe, loaded, each in its own process.

    Args:
        shape: Of ``SHAPES``.
        recipe: Their recipe.
        names: Of ``CONTENDERS``.
        work: Folder for models, vectors and logs.
        llm2vec: llm2vec's environment.
        threads: Threads of each.
        in_process: Whether all work in this process, which spares each its start.
    """

    def __init__(
        self,
        shape: str,
        recipe: str,
        names: Iterable[str],
        work: Path,
        llm2vec: Path,
        threads: int,
        in_process: bool = False,
    ) -> None:
        self.missing: dict[str, str] = {}
        workers: dict[str, Asked] = {}
        settings: dict[str, dict[str, Any]] = {}
        subjects: dict[str, str] = {}
        for name in names:
            contender = CONTENDERS[name]
            if contender.own_environment and recipe != LLM2VEC:
                continue
            python = interpreter(llm2vec if contender.own_environment else None)
            if not python.exists():
                self.missing[name] = "its environment is not there: python -m benchmarks.llm2vec_environment"
                continue
            folder = build_for_llm2vec(shape, work) if contender.own_environment else build(shape, recipe, work)
            given = {"folder": str(folder), "dtype": contender.dtype, "device": SHAPES[shape].device}
            settings[name] = {**given, **contender.options}
            subjects[name] = contender.subject
            log = work / "logs" / f"{shape}-{recipe}-{name}.log"
            workers[name] = InProcess() if in_process else Process(python, threads, log)
        self.turns = Turns(workers)
        self.loaded = self.turns.once(do="load", subject=subjects.__getitem__, settings=settings.__getitem__)

    def dtype(self, name: str) -> str:
        """The type that a contender computes in, which ``"auto"`` chose."""
        about: dict[str, str] = self.loaded[name]["about"]
        return about["dtype"]

    def absent(self) -> dict[str, str]:
        """Who is not here, and why."""
        return {**self.missing, **self.turns.failed}

    def close(self) -> None:
        """End all processes."""
        self.turns.close()
