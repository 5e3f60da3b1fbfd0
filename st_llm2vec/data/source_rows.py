"""Read a source: its table as it is, and its rows of query, positive and hard negatives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

from datasets import Dataset

from st_llm2vec.data.collection import Collection, read_collection
from st_llm2vec.data.labels import pairs_from_labels
from st_llm2vec.data.read import read_dataset
from st_llm2vec.data.rows import FLAG_EMBEDDING, Columns, find_columns
from st_llm2vec.data.shapes import classes_of, pairs_of_scores, triplets_of_inferences
from st_llm2vec.data.source import TrainingSource
from st_llm2vec.data.source_errors import FieldError, about
from st_llm2vec.data.task_types import CLASSES, INFERENCES, LABELLED, PAIRS, SCORED, TEXTS, Shape

PROMPT = "prompt"


def read_source(source: TrainingSource, seed: int = 42) -> tuple[Dataset, Columns]:
    """Read a source's rows of query, positive and negatives.

    Args:
        source: The source. Where FlagEmbedding's ``prompt`` is its instruction, it has that afterwards.
        seed: Seed of what is drawn for classes.

    Returns:
        The rows, and which of their columns hold what.

    Raises:
        ValueError: If it cannot be read, or a column is missing.
    """
    if source.collection_files is not None:
        found = source_collection(source)
        rows = [(found.queries[query], found.corpus[one]) for query, those in found.relevant.items() for one in those]
        return Dataset.from_dict({name: [row[at] for row in rows] for at, name in enumerate(PAIRS)}), Columns(*PAIRS)
    dataset = source_table(source)
    shape = source_shape(source, dataset)
    with about("columns"):
        if shape == TEXTS:
            raise FieldError(f"{source.label} holds texts without pairs, for the stages mntp and simcse only.", "task")
        if shape != PAIRS:
            made = _made(source, dataset, shape, seed)
            return made, find_columns(made, None, source.label)
        columns = find_columns(dataset, source.columns, source.where)
    flag_embedding = columns.positive == FLAG_EMBEDDING["positive"] and PROMPT in dataset.column_names
    if flag_embedding and source.query_instruction is None:
        source.query_instruction = _prompt(dataset, source.label)
    return dataset, columns


def source_table(source: TrainingSource) -> Dataset:
    """Read a source's own rows, as they are.

    Raises:
        ValueError: If they cannot be read.
    """
    if isinstance(source.path, Dataset):
        return source.path
    with about("path" if source.path is not None else "hub"):
        given: Any = source.path if source.path is not None else source.hub
        return read_dataset(given, split=source.split, columns=source.column_names, **source.options)


def source_collection(source: TrainingSource) -> Collection:
    """Read a source's test collection.

    Raises:
        ValueError: If it has none, or that cannot be read.
    """
    if source.collection_files is None:
        raise ValueError(f"{source.label} is no test collection.")
    with about("collection"):
        return read_collection(source.collection_files, source.label)


def source_shape(source: TrainingSource, dataset: Dataset) -> Shape:
    """Which roles a source's rows have: those that ``columns`` names, or the first whose columns are there.

    Raises:
        ValueError: If ``columns`` names what the task has not.
    """
    given = set(source.columns or ())
    for shape in source.shapes:
        if given and not given - {"negative"} - set(shape):
            return shape
        if not given and shape != PAIRS and set(shape) <= set(dataset.column_names):
            return shape
    if given and source.task is not None:
        known = "; ".join(", ".join(shape) for shape in source.shapes)
        raise FieldError(
            f"The columns of {source.label} are {dict(source.columns or {})!r}; rows of the task {source.task} have "
            f"{known}.",
            "columns",
        )
    return source.shapes[0] if PAIRS not in source.shapes else PAIRS


def texts_column(source: TrainingSource) -> str:
    """The column of a source of texts without pairs.

    Raises:
        ValueError: If it is of another task.
    """
    if source.shapes != (TEXTS,):
        raise FieldError(f"{source.label} is of the task {source.task}; texts alone are of the task texts.", "task")
    return source.roles(TEXTS)["text"]


def classified(source: TrainingSource, dataset: Dataset) -> tuple[list[str], list[str]]:
    """The texts of a source and their classes, without classes that are too small.

    Raises:
        ValueError: If a row has no text or class, or a class that is named has no text.
    """
    options = source.class_options
    texts, labels = classes_of(dataset, source.roles(CLASSES), options.pattern, source.label)
    sizes = Counter(labels)
    empty = next((name for name in options.names if str(name) not in sizes), None)
    if empty is not None:
        raise FieldError(
            f"The class {empty!r} of {source.label} is empty: no text has it. Its classes are "
            f"{', '.join(sorted(sizes)[:8])}. Correct its name, or leave it out.",
            "classes",
        )
    kept = [at for at, label in enumerate(labels) if sizes[label] >= options.smallest]
    return [texts[at] for at in kept], [labels[at] for at in kept]


def class_names(source: TrainingSource, labels: Sequence[str]) -> dict[Hashable, str]:
    """What each class of a source is called."""
    given = {str(label): str(name) for label, name in source.class_options.names.items()}
    return {label: given.get(label, label.replace("_", " ")) for label in dict.fromkeys(labels)}


def _made(source: TrainingSource, dataset: Dataset, shape: Shape, seed: int) -> Dataset:
    roles = source.roles(shape)
    if shape in (SCORED, LABELLED):
        assert source.min_score is not None
        return pairs_of_scores(dataset, roles, shape[-1], source.min_score, source.label)
    if shape == INFERENCES:
        return triplets_of_inferences(dataset, roles, source.labels, source.label)
    texts, labels = classified(source, dataset)
    names = class_names(source, labels) if source.class_options.by == "names" else None
    with about("classes"):
        return pairs_from_labels(
            texts, labels, max(1, source.negatives), seed, names, balanced=source.class_options.balanced
        )


def _prompt(dataset: Dataset, where: str) -> str | None:
    """FlagEmbedding's instruction of the queries, which must be one."""
    prompts = sorted(str(one or "").strip() for one in dataset.unique(PROMPT))
    if len(prompts) > 1:
        raise ValueError(
            f"The queries of {where} have {len(prompts)} instructions in {PROMPT!r}, {prompts[0]!r} and {prompts[1]!r} "
            "among them. Make a file, and so a source, of each; or give one query_instruction for all."
        )
    return prompts[0] or None
