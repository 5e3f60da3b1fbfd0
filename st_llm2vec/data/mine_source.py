"""Hard negatives for a source of a mixture, and the source that reads them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset
from sentence_transformers import CrossEncoder, SentenceTransformer

from st_llm2vec.data.labels import labels_of
from st_llm2vec.data.mining import Mined, mine
from st_llm2vec.data.mining_settings import MiningSettings
from st_llm2vec.data.read import read_dataset
from st_llm2vec.data.rows import require_columns
from st_llm2vec.data.source import TrainingSource
from st_llm2vec.data.source_errors import about, placed
from st_llm2vec.data.source_rows import (
    class_names,
    classified,
    read_source,
    source_collection,
    source_shape,
    source_table,
)
from st_llm2vec.data.task_types import CLASSES, TEXTS
from st_llm2vec.data.training_data import build_training_data

READ_ANEW = (
    "path",
    "columns",
    "column_names",
    "options",
    "split",
    "labels",
    "classes",
    "collection",
    "corpus",
    "min_score",
)
"""Fields that say how the source's own rows are read, which are not those that were mined."""
BATCH = 1000


def has_negatives(source: TrainingSource) -> bool:
    """Whether a source's own rows have hard negatives, or are of texts alone.

    Raises:
        ValueError: If the source cannot be read.
    """
    if source.collection_files is not None:
        return False
    with placed(source.place):
        shape = source_shape(source, source_table(source))
        if shape in (TEXTS, CLASSES):
            return shape == TEXTS
        return bool(read_source(source)[1].negatives)


def mine_source(
    source: TrainingSource,
    model: SentenceTransformer,
    settings: MiningSettings,
    *,
    instructed: bool = False,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    cross_encoder: CrossEncoder | None = None,
    progress: bool = False,
) -> Mined:
    """Mine hard negatives for a source.

    Candidates are the source's positives, its ``corpus``, the documents of its test collection, and of classes all texts of
    other classes, or the other classes' names.

    Args:
        source: The source.
        model: The teacher.
        settings: Which candidates are taken.
        instructed: Whether the teacher is told the source's instructions.
        query_prompt: What it is told before queries instead; by default its own prompt.
        document_prompt: The same before documents.
        cross_encoder: As for :func:`mine`.
        progress: Whether bars are shown.

    Returns:
        The rows and the report.

    Raises:
        ValueError: If the source cannot be read, or has nothing to mine in; with file and line.
    """
    with placed(source.place):
        bare = dataclasses.replace(source, negatives=0, weight=1.0, in_batch_negatives=True)
        pairs: Any = build_training_data([bare], seed=settings.seed).dataset
        source.query_instruction = bare.query_instruction  # which the rows may have, as FlagEmbedding's do
        if instructed:
            query_prompt, document_prompt = source.instructions
        corpus, classes, several = _corpus(source)
        found = [pair for pair in zip(pairs["query"], pairs["positive"], strict=True) if not several & set(pair)]
        with about("corpus" if source.corpus is not None else "path"):
            mined = mine(
                found,
                model,
                settings,
                corpus=corpus,
                classes=classes,
                query_prompt=query_prompt,
                document_prompt=document_prompt,
                cross_encoder=cross_encoder,
                where=source.label,
                progress=progress,
            )
    mined.report["rows of several classes"] = len(pairs) - len(found)
    return mined


def mined_source(source: TrainingSource, file: Path, negatives: int, note: str) -> dict[str, Any]:
    """The source that reads what was mined, as a mixture's YAML has it.

    Args:
        source: The source.
        file: The file with the rows.
        negatives: How many each row has.
        note: How they were mined, for people.
    """
    entry = source_entry(source)
    kept = {key: value for key, value in entry.items() if key not in (*READ_ANEW, "hub", "note", "limit", "negatives")}
    return {**kept, "path": file.name, "negatives": negatives, "note": note}


def source_entry(source: TrainingSource) -> dict[str, Any]:
    """A source as a mixture's YAML has it, with what its task implies said."""
    entry: dict[str, Any] = {"name": source.label}
    for one in dataclasses.fields(source):
        value = getattr(source, one.name)
        made = one.default_factory
        default = one.default if made is dataclasses.MISSING else made()
        if one.name not in ("place", "name") and value != default:
            entry[one.name] = dict(value) if isinstance(value, dict) else value
    if TEXTS in source.shapes:
        return {
            key: value for key, value in entry.items() if key not in ("symmetric", "in_batch_negatives", "min_score")
        }
    return entry


def source_files(source: TrainingSource) -> list[list[Any]]:
    """The local files that a source names, each with its size and when it was written: others are other rows."""
    collection = source.collection_files
    named = [source.path, source.corpus, *(collection.files.values() if collection is not None else ())]
    paths = [Path(one) for one in named if isinstance(one, str)]
    return [[str(one), one.stat().st_size, one.stat().st_mtime_ns] for one in paths if one.is_file()]


def _corpus(source: TrainingSource) -> tuple[Iterable[str], dict[str, Any] | None, set[str]]:
    """The texts to mine in, the class of each text, and the texts that are of several classes."""
    if source.collection_files is not None:
        return list(source_collection(source).corpus.values()), None, set()
    further: Iterable[str] = ()
    if source.corpus is not None:
        with about("corpus"):
            corpus = read_dataset(source.corpus)
            require_columns(corpus, ["text"], f"the corpus of {source.label}")
        further = _texts(corpus)
    table = source_table(source)
    if source_shape(source, table) != CLASSES:
        return further, None, set()
    texts, labels = classified(source, table)
    if source.class_options.by == "names":
        return further or list(class_names(source, labels).values()), None, set()
    classes = labels_of(texts, labels)
    several = {text for text, found in classes.items() if len(found) > 1}
    one = {text: next(iter(found)) for text, found in classes.items() if text not in several}
    return itertools.chain(one, further), one, several


def _texts(table: Dataset) -> Iterator[str]:
    for batch in table.select_columns(["text"]).iter(BATCH):
        yield from (text for text in batch["text"] if isinstance(text, str))
