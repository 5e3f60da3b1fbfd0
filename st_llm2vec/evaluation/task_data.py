"""What a task's files hold."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from st_llm2vec.data.collection import Collection, CollectionFiles, read_collection
from st_llm2vec.data.read import read_dataset
from st_llm2vec.evaluation.task_plan import KINDS, TaskSpec
from st_llm2vec.evaluation.word_files import LabelledWords, read_labelled_words

SEED = 0


@dataclass(frozen=True)
class Pairs:
    """Pairs of texts, with a score or a label (0 or 1) each."""

    first: list[str]
    second: list[str]
    targets: list[float]


@dataclass(frozen=True)
class Labelled:
    """Texts, with a label each."""

    texts: list[str]
    labels: list[str]


@dataclass(frozen=True)
class Split:
    """Labelled texts to learn from, and to test on."""

    train: Labelled
    test: Labelled


@dataclass(frozen=True)
class Candidates:
    """Queries, each with documents that are relevant and that are not."""

    samples: list[dict[str, Any]]


@dataclass(frozen=True)
class Words:
    """Words with labels to learn from and to test on, and how they are probed."""

    train: LabelledWords
    test: LabelledWords
    probe: str
    shift: bool


TaskData = Pairs | Labelled | Split | Collection | Candidates | Words


def read_task(spec: TaskSpec) -> TaskData:
    """Read a task's files.

    Args:
        spec: The task.

    Returns:
        What they hold.

    Raises:
        ValueError: If a file is missing, empty, in another encoding, lacks a column, or holds what cannot be scored; the
            message names the task.
    """
    try:
        return READERS[spec.kind](spec)
    except ValueError as error:
        raise ValueError(f"The task {spec.name!r}: {error}") from error


def _pairs(spec: TaskSpec) -> Pairs:
    first, second, targets = _columns(spec, "data", KINDS[spec.kind].columns)
    numbers = [_number(one, row) for row, one in enumerate(targets, start=1)]
    if spec.kind == "pair-classification" and set(numbers) != {0.0, 1.0}:
        found = ", ".join(f"{one:g}" for one in sorted(set(numbers))[:5])
        raise ValueError(f"labels of pairs must be 0 and 1, and both must occur; found {found}.")
    if len(set(numbers)) < 2:
        raise ValueError(f"all {len(numbers)} scores are alike, so that nothing can be ranked by them.")
    return Pairs(_texts(first), _texts(second), numbers)


def _clusters(spec: TaskSpec) -> Labelled:
    return _labelled(spec, "data")


def _split(spec: TaskSpec) -> Split:
    return Split(_labelled(spec, "train"), _labelled(spec, "test"))


def _labelled(spec: TaskSpec, role: str) -> Labelled:
    texts, labels = _columns(spec, role, ("text", "label"))
    for row, label in enumerate(labels, start=1):
        if label is None or not str(label).strip():
            raise ValueError(f"row {row} of {spec.files[role]} has no label.")
    found = Labelled(_texts(texts), [str(label) for label in labels])
    if role != "test" and len(set(found.labels)) < 2:
        raise ValueError(f"{spec.files[role]} has one label only, {found.labels[0]!r}; at least two are needed.")
    return found


def _collection(spec: TaskSpec) -> Collection:
    found = read_collection(
        CollectionFiles(
            files=spec.files,
            format=spec.format,
            encoding=spec.encoding,
            renumber=spec.renumber,
            smallest_grade=spec.smallest_grade,
            columns=spec.columns,
            header=spec.header,
            options=spec.options,
        ),
        spec.name,
    )
    queries = {query: found.queries[query] for query in list(found.queries)[: spec.limit]}
    relevant = {query: found.relevant[query] for query in queries}
    if spec.documents is None:
        return Collection(queries, found.corpus, relevant)
    judged = {document for documents in relevant.values() for document in documents}
    others = [document for document in found.corpus if document not in judged]
    random.Random(SEED).shuffle(others)
    kept = judged | set(others[: max(0, spec.documents - len(judged))])
    return Collection(queries, {name: text for name, text in found.corpus.items() if name in kept}, relevant)


def _candidates(spec: TaskSpec) -> Candidates:
    queries, positive, negative = _columns(spec, "data", KINDS["reranking"].columns)
    samples = [
        {"query": query, "positive": _listed(good), "negative": _listed(bad)}
        for query, good, bad in zip(_texts(queries), positive, negative, strict=True)
    ]
    bare = [row for row, one in enumerate(samples, start=1) if not one["positive"] or not one["negative"]]
    if bare:
        raise ValueError(f"row {bare[0]} has no positive or no negative document, and can be ranked in one way only.")
    return Candidates(samples)


def _listed(documents: Any) -> list[str]:
    return _texts([documents] if isinstance(documents, str) else documents or [])


def _words(spec: TaskSpec) -> Words:
    train, test = (
        read_labelled_words(spec.files[role], str(spec.columns["label"]), spec.limit) for role in ("train", "test")
    )
    return Words(train, test, spec.probe, spec.shift)


def _columns(spec: TaskSpec, role: str, names: Sequence[str]) -> list[list[Any]]:
    table = _table(spec, role)
    if spec.limit is not None and spec.limit < len(table):
        table = table.shuffle(seed=SEED).select(range(spec.limit))
    return [_column(table, spec.columns.get(name, name), spec.files[role]) for name in names]


def _column(table: Dataset, name: str, path: str) -> list[Any]:
    if name not in table.column_names:
        raise ValueError(
            f"{path} has no column {name!r}, only {', '.join(table.column_names)}. Name it in the plan, under `columns:`, or "
            "all of them under `header:` where the first line is data."
        )
    return list(table[name])


def _table(spec: TaskSpec, role: str) -> Dataset:
    kind = KINDS[spec.kind]
    texts = [spec.columns.get(name, name) for name in kind.columns if name != "score"]
    csv = Path(spec.files[role]).suffix.lower() in (".csv", ".tsv")
    return read_dataset(spec.files[role], columns=spec.header, only_texts=texts if csv else (), **spec.options)


def _texts(values: Sequence[Any]) -> list[str]:
    for row, value in enumerate(values, start=1):
        if not isinstance(value, str):
            raise ValueError(f"row {row} holds {str(value)[:40]!r} where a text is expected.")
    return list(values)


def _number(value: Any, row: int) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"row {row} has {value!r} where a number is expected.")
    return number


READERS: dict[str, Callable[[TaskSpec], TaskData]] = {
    "sts": _pairs,
    "pair-classification": _pairs,
    "classification": _split,
    "clustering": _clusters,
    "retrieval": _collection,
    "reranking": _candidates,
    "words": _words,
}
