"""Datasets with instructions, as the contrastive losses read them: one dataset a batch, or blended by row."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset, DatasetDict, Features, Value, concatenate_datasets

from st_llm2vec.data.rows import read_rows, require_columns
from st_llm2vec.data.source import TrainingSource
from st_llm2vec.data.source_errors import placed
from st_llm2vec.data.source_rows import read_source, source_table, texts_column

BATCH = 1000


@dataclass(frozen=True)
class TrainingData:
    """What a trainer needs.

    Args:
        dataset: The ``train_dataset``: a dataset, or several by name.
        prompts: The ``prompts`` of ``SentenceTransformerTrainingArguments``; empty where there are none.
        in_batch_negatives: For each source by name, whether other rows' documents are its negatives: what the loss of
            its dataset is told, or what ``label`` says of its blended rows.
    """

    dataset: Dataset | DatasetDict
    prompts: dict[str, Any] = field(default_factory=dict)
    in_batch_negatives: dict[str, bool] = field(default_factory=dict)


def build_training_data(
    sources: Sequence[TrainingSource | Mapping[str, Any]], *, blended: bool = False, seed: int = 42
) -> TrainingData:
    """Read sources into the columns ``query``, ``positive``, ``negative_1``, ... of the contrastive losses.

    With one dataset a batch, as LLM2Vec, E5 and GritLM train and NV-Embed does in its first stage, the sources stay
    apart: the stock trainer fills each batch from one of them, and each has its own instructions, as ``prompts``. One
    source gives a plain dataset.

    Blended, as in NV-Embed's second stage, every batch mixes all sources. Then each text carries its instruction,
    ``{"text": ..., "instruction": ...}``, and ``label`` is 1 where a row's in-batch negatives are on and 0 where not,
    for ``HardNegativesRankingLoss(in_batch_negatives="per_row")``. Several instructions in a batch need an encoder with
    custom modules, as NV-Embed's is.

    Args:
        sources: The sources, or mappings of their fields.
        blended: Whether to mix the sources within batches.
        seed: Seed of the rows that ``limit`` draws, and of the blended order.

    Returns:
        The dataset, its prompts, and the in-batch negatives of each dataset.

    Raises:
        ValueError: If a source cannot be read, a row has no query, positive or negative, or a negative equals its
            row's positive or query.

    Example:
        >>> pairs = Dataset.from_dict({"query": ["a cat"], "positive": ["cats purr"], "negative": ["dogs bark"]})
        >>> data = build_training_data([TrainingSource(pairs, query_instruction="Find the fact:")])
        >>> data.dataset[0], data.prompts
        ({'query': 'a cat', 'positive': 'cats purr', 'negative_1': 'dogs bark'}, {'query': 'Find the fact:'})
    """
    named: dict[str, TrainingSource] = {}
    for one in sources:
        source = one if isinstance(one, TrainingSource) else TrainingSource.from_dict(one)
        if source.label in named:
            raise ValueError(f"Two sources are called {source.label!r}; give each a name of its own.")
        named[source.label] = source
    if not named:
        raise ValueError("There is no training source; give at least one.")
    datasets = {}
    for name, source in named.items():
        with placed(source.place):
            datasets[name] = _rows(source, blended, seed)
    switches = {name: bool(source.in_batch_negatives) for name, source in named.items()}
    if blended:
        return TrainingData(_blend(datasets, seed), {}, switches)
    prompts = {name: _prompts(source, datasets[name].column_names) for name, source in named.items()}
    if len(datasets) == 1:
        name = next(iter(datasets))
        return TrainingData(datasets[name], prompts[name], switches)
    return TrainingData(DatasetDict(datasets), prompts if any(prompts.values()) else {}, switches)


def build_texts(sources: Sequence[TrainingSource], seed: int = 42) -> Dataset:
    """Read sources of texts without pairs, one after the other.

    Args:
        sources: Sources of the task ``texts``.
        seed: Seed of the rows that ``limit`` and ``weight`` draw.

    Returns:
        A dataset with the column ``text``.

    Raises:
        ValueError: If a source is of another task, or cannot be read.
    """
    found = []
    for source in sources:
        with placed(source.place):
            column = texts_column(source)
            table = source_table(source)
            require_columns(table, [column], source.label)
            texts = table.select_columns([column]).rename_columns({column: "text"} if column != "text" else {})
            if texts.features["text"] == Value("large_string"):  # as Parquet files of some writers have it
                texts = texts.cast_column("text", Value("string"))
            found.append(texts.select(_drawn(len(texts), source, seed)))
    return concatenate_datasets(found)


def texts_of_pairs(sources: Sequence[TrainingSource], seed: int = 42) -> Dataset:
    """The texts of sources of pairs, each once: queries, positives and the hard negatives that are read.

    Args:
        sources: As for :func:`build_training_data`.
        seed: Seed of the rows that ``limit`` and ``weight`` draw.

    Returns:
        A dataset with the column ``text``.

    Raises:
        ValueError: If a source cannot be read, or a row is no pair.

    Example:
        >>> pairs = Dataset.from_dict({"query": ["a cat", "a cat"], "positive": ["cats purr", "a pet"]})
        >>> texts_of_pairs([TrainingSource(pairs)])["text"][:]
        ['a cat', 'cats purr', 'a pet']
    """
    columns: list[Dataset] = []
    for source in sources:
        with placed(source.place):
            rows = _rows(source, blended=False, seed=seed)
        columns += [rows.select_columns([name]).rename_column(name, "text") for name in rows.column_names]
    texts, seen, kept = concatenate_datasets(columns), set[str](), list[int]()
    for start in range(0, len(texts), BATCH):
        for at, text in enumerate(texts[start : start + BATCH]["text"], start):
            if text not in seen:
                seen.add(text)
                kept.append(at)
    return texts.select(kept)


def _rows(source: TrainingSource, blended: bool, seed: int) -> Dataset:
    dataset, columns = read_source(source, seed)
    numbers = _drawn(len(dataset), source, seed)
    if numbers != range(len(dataset)):
        dataset = dataset.select(numbers)
    count = source.negatives if columns.negatives else 0
    if not count and not source.in_batch_negatives:
        raise ValueError(
            f"The source {source.label} has in-batch negatives off and no hard negatives, so there is nothing to tell a "
            "positive from. Name its column of negatives, mine some, or turn in-batch negatives on."
        )
    names = ["query", "positive", *(f"negative_{number}" for number in range(1, count + 1))]
    instructions = [source.instructions[0], *[source.instructions[1]] * (count + 1)]
    text: Any = {"text": Value("string"), "instruction": Value("string")} if blended else Value("string")
    rows = dataset.select_columns(columns.all).map(
        read_rows,
        batched=True,
        with_indices=True,
        fn_kwargs={
            "where": source.where,
            "columns": columns,
            "names": names,
            "numbers": numbers,
            "instructions": instructions if blended else None,
        },
        remove_columns=columns.all,
        features=Features(dict.fromkeys(names, text)),
        desc=f"Reading {source.label}",
    )
    return rows.add_column("label", [int(bool(source.in_batch_negatives))] * len(rows)) if blended else rows


def _drawn(count: int, source: TrainingSource, seed: int) -> Sequence[int]:
    """The numbers of the rows that are read: as many as ``limit`` says, each as often as ``weight`` says."""
    draws = random.Random(seed)
    numbers: Sequence[int] = range(count)
    if source.limit is not None and source.limit < count:
        numbers = sorted(draws.sample(numbers, source.limit))
    if source.weight == 1:
        return numbers
    whole, rest = divmod(max(1, round(source.weight * len(numbers))), len(numbers))
    return sorted([*numbers] * whole + draws.sample(numbers, rest))


def _prompts(source: TrainingSource, columns: Sequence[str]) -> dict[str, str]:
    query, document = source.instructions
    found = {name: query if name == "query" else document for name in columns}
    return {name: instruction for name, instruction in found.items() if instruction}


def _blend(datasets: Mapping[str, Dataset], seed: int) -> Dataset:
    widths = {name: len(dataset.column_names) - 3 for name, dataset in datasets.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(
            f"Blended rows need as many hard negatives each; the sources have {widths}. Give all sources the same "
            "number, or leave them apart with blended=False."
        )
    return concatenate_datasets(list(datasets.values())).shuffle(seed=seed)
