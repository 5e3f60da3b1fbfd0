"""What a report says of a model: its scores on tasks, its layers, and where it puts texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from st_llm2vec.evaluation.analyses import analyse
from st_llm2vec.evaluation.future_tokens import built_in_triples
from st_llm2vec.evaluation.kept import keep, read_kept
from st_llm2vec.evaluation.layers import similarity, states_under
from st_llm2vec.evaluation.sentence_score import GRADES, sentence_groups
from st_llm2vec.evaluation.task_data import Pairs
from st_llm2vec.evaluation.task_encoder import TaskEncoder
from st_llm2vec.evaluation.task_plan import TaskSpec
from st_llm2vec.evaluation.tasks import Task, TaskResult, run_baseline, run_task
from st_llm2vec.evaluation.words import readers
from st_llm2vec.reporting.embedding_map import MappedTexts, mapped_texts, place_texts

VERSION = 1
"""Raised when the same encoder has other layers or places by what is computed here, so that kept ones are not read."""
STEPS = 1  # of a map, and of a look at the layers


@dataclass(frozen=True)
class Places:
    """Where a model puts the texts of a report's map: two coordinates for each."""

    places: list[tuple[float, float]]


@dataclass(frozen=True)
class Inside:
    """A model's layers, under both kinds of attention, whichever it was given.

    Args:
        analysis: What :meth:`~st_llm2vec.evaluation.analyses.Analysis.to_dict` says; empty where there are no layers to see.
        pieces: The tokens of a sentence, as its text has them.
        states: For each layer, from the embeddings on, the cosine of each token's causal and bidirectional states.
        refusal: Why there is nothing to see, or one kind of attention only.
    """

    analysis: dict[str, Any] = field(default_factory=dict)
    pieces: list[str] = field(default_factory=list)
    states: list[list[float]] = field(default_factory=list)
    refusal: str = ""

    @property
    def future(self) -> dict[str, Any]:
        """The test of future tokens under bidirectional attention; empty where there was none."""
        found: dict[str, Any] = self.analysis.get("future", {}).get("bidirectional", {})
        return found

    @property
    def similarity(self) -> list[float]:
        """For each layer the mean cosine of causal and bidirectional states; empty where there is one kind of attention."""
        found: list[float] = self.analysis.get("similarity", [])
        return found


@dataclass(frozen=True)
class ModelReport:
    """A model of a report.

    Args:
        source: How it was named.
        facts: What it is, in words.
        results: Its scores, task by task.
        places: Where it puts the texts of the map.
        mteb: MTEB's results, as :func:`~st_llm2vec.evaluation.mteb_encoder.run_mteb` has them; the same tasks for each model.
    """

    source: str
    facts: dict[str, str]
    results: list[TaskResult]
    places: list[tuple[float, float]]
    mteb: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """Models beside each other.

    Args:
        tasks: The tasks.
        baseline: What TF-IDF, and for words each one's most frequent label, scores on them.
        mapped: The texts of the map.
        models: The models, in the order in which they were named.
        insides: The layers of each decoder and each encoder, by how it was named: a decoder under two kinds of attention has
            one inside.
    """

    tasks: list[Task]
    baseline: list[TaskResult]
    mapped: MappedTexts
    models: list[ModelReport] = field(default_factory=list)
    insides: dict[str, Inside] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "tasks": [asdict(task.spec) for task in self.tasks],
            "baseline": [asdict(one) for one in self.baseline],
            "map": asdict(self.mapped),
            "models": [asdict(one) for one in self.models],
            "insides": {name: asdict(one) for name, one in self.insides.items()},
        }


def built_in_task() -> Task:
    """The built-in sentences as a task, which needs no file: the score is that of ``inspect`` and ``convert``."""
    groups = sentence_groups()
    pairs = [(group["text"], group[part], float(grade)) for part, grade in GRADES.items() for group in groups]
    others = [*groups[1:], groups[0]]
    pairs += [(group["text"], other["text"], 0.0) for group, other in zip(others, groups, strict=True)]
    first, second, targets = (list(column) for column in zip(*pairs, strict=True))
    return Task(TaskSpec("Built-in sentences", "sts", {"data": "built in"}), Pairs(first, second, targets))


def begin_report(tasks: Sequence[Task]) -> Report:
    """A report without models yet.

    Args:
        tasks: Tasks beside the built-in sentences.

    Returns:
        The report, with the baseline's scores.
    """
    every = [built_in_task(), *tasks]
    return Report(every, [run_baseline(task) for task in every], mapped_texts(every))


def steps(report: Report) -> int:
    """How many steps :func:`measure_model` and :func:`look_inside` tell of."""
    return sum(task.texts for task in report.tasks) + 2 * STEPS


def measure_model(
    encoder: SentenceTransformer,
    source: str,
    report: Report,
    cache: str | Path | None = None,
    fingerprint: str = "",
    again: bool = False,
    advance: Callable[[int], object] = lambda steps: None,
) -> ModelReport:
    """Score an encoder on a report's tasks and put the report's texts on its map, or read what was found before.

    Args:
        encoder: Any ``SentenceTransformer``.
        source: How it was named.
        report: The report that it is for.
        cache: The folder of kept results; nothing is kept without one.
        fingerprint: The encoder's, see :func:`~st_llm2vec.evaluation.fingerprint.encoder_fingerprint`; needed with a cache.
        again: Whether to compute everything anew.
        advance: Called with the numbers of steps as they are done.

    Returns:
        What was found.

    Raises:
        ValueError: If it cannot be scored on a task, or a kept result cannot be read.
        OSError: If a result cannot be written.
    """
    results = [run_task(encoder, task, cache, fingerprint, again, advance) for task in report.tasks]
    mapped = report.mapped

    def put() -> Places:
        return Places(place_texts(TaskEncoder(encoder, mapped.instruction).encode(mapped.texts)))

    asked = hashlib.sha256(json.dumps([VERSION, asdict(mapped)]).encode()).hexdigest()
    found: Places = _kept(cache, f"{fingerprint[:20]}-{asked[:20]}", again, Places, put)
    advance(STEPS)
    return ModelReport(source, _facts(encoder), results, found.places)


def look_inside(
    encoder: SentenceTransformer,
    cache: str | Path | None = None,
    fingerprint: str = "",
    again: bool = False,
    advance: Callable[[int], object] = lambda steps: None,
) -> Inside:
    """Look at a model's layers, or read what was found before; arguments and errors as for :func:`measure_model`."""
    found: Inside = _kept(cache, f"{fingerprint[:20]}-inside-{VERSION}", again, Inside, lambda: _inside(encoder))
    advance(STEPS)
    return found


def _kept(cache: str | Path | None, name: str, again: bool, kind: type, compute: Callable[[], Any]) -> Any:
    target = Path(cache) / "reports" / f"{name}.json" if cache is not None else None
    if target is not None and target.is_file() and not again:
        return read_kept(target, kind)
    found = compute()
    if target is not None:
        keep(target, asdict(found))
    return found


def _inside(encoder: SentenceTransformer) -> Inside:
    try:
        readers(encoder)
    except ValueError as error:
        return Inside(refusal=str(error))
    found = analyse(encoder)
    if not found.similarity:
        kinds, model = " and ".join(found.quality) or "no", type(readers(encoder)[0].model).__name__
        return Inside(found.to_dict(), refusal=f"It has {kinds} attention only, as a {model} has.")
    text = built_in_triples()[0].query
    (causal,), (bidirectional,) = (states_under(encoder, [text], one) for one in ("causal", "bidirectional"))
    pieces = [text[start:end].strip() for start, end in causal.offsets[causal.own]]
    return Inside(found.to_dict(), pieces, similarity(causal, bidirectional).cosines.tolist())


def _facts(encoder: SentenceTransformer) -> dict[str, str]:
    manifest: Any = getattr(encoder, "manifest", None)
    found = {
        "parameters": f"{sum(one.numel() for one in encoder.parameters()) / 1e6:,.1f} million",
        "dimensions": str(encoder.get_embedding_dimension()),
        "longest text": f"{encoder.max_seq_length} tokens" if encoder.max_seq_length else "no limit",
    }
    if manifest is not None:
        found["recipe"] = manifest.config.name
        found["attention"] = manifest.config.attention
        found["trained"] = ", then ".join(str(stage.get("name")) for stage in manifest.stages) or "no"
    return found
