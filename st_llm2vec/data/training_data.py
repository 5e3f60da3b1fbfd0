"""Datasets with instructions, as the contrastive losses read them: one dataset a batch, or blended by row."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Features, Value, concatenate_datasets

from st_llm2vec.data.read import read_dataset
from st_llm2vec.data.rows import FLAG_EMBEDDING, Columns, find_columns, read_rows
from st_llm2vec.recipe.config import closest

PROMPT = "prompt"


@dataclass
class TrainingSource:
    """Where rows of query, positive and hard negatives come from, and how they are instructed.

    Args:
        path: As for :func:`read_dataset`; or a dataset.
        columns: Which column is what: ``{"query": name, "positive": name, "negative": name or names}``. The positive's
            and the negatives' columns may hold lists; each of several positives gives a row. By default ``query`` or
            ``anchor``, ``positive``, and all whose names begin with ``negative``; or FlagEmbedding's ``query``, ``pos`` and
            ``neg``.
        split: The split to read.
        query_instruction: The bare instruction of the queries; by default what FlagEmbedding's ``prompt`` holds.
        document_instruction: That of the positives and negatives; none in LLM2Vec, NV-Embed and E5.
        symmetric: Whether both sides are queries, so that the query's instruction is everyone's (similarity tasks).
        in_batch_negatives: Whether other rows' documents are negatives: right for retrieval, wrong for classification,
            clustering and similarity (NV-Embed, arXiv 2405.17428, section 3.3).
        negatives: How many hard negatives each row gets, where there is a column of them. Fewer in the data are
            repeated by turns, of more the first are taken. NV-Embed uses 7, LLM2Vec and E5 1.
        name: The dataset's name; by default the file's, or the Hub's.
        limit: Rows to take, drawn at random; all by default.
        column_names: As for ``read_dataset(columns=...)``: names for a ``.csv`` or ``.tsv`` file without any.
        options: As for :func:`read_dataset`.

    Raises:
        ValueError: If a field cannot be what it is.

    Example:
        >>> TrainingSource.from_dict({"path": "nq.jsonl", "query_instruction": "Find the answer:", "limit": 1000}).limit
        1000
    """

    path: str | Sequence[str] | Dataset
    columns: Mapping[str, Any] | None = None
    split: str = "train"
    query_instruction: str | None = None
    document_instruction: str | None = None
    symmetric: bool = False
    in_batch_negatives: bool = True
    negatives: int = 1
    name: str | None = None
    limit: int | None = None
    column_names: Sequence[str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.symmetric and self.document_instruction:
            raise ValueError(
                f"The source {self.label} is symmetric, so that the query's instruction is the documents' too, and "
                f"document_instruction={self.document_instruction!r} was given; keep one."
            )
        if not isinstance(self.columns, Mapping | None):
            raise ValueError(
                f"columns={self.columns!r} of the source {self.label} must be a mapping: {{query: name, positive: name}}."
            )
        for name in ("negatives", "limit"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < (name == "limit")):
                raise ValueError(f"{name}={value!r} of the source {self.label} must be a number of texts or rows.")
        for name in ("symmetric", "in_batch_negatives"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r} of the source {self.label} must be true or false.")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainingSource:
        """Build a source from plain data, such as a mapping in a YAML file.

        Raises:
            ValueError: If a field does not exist, ``path`` is missing, or a value cannot be.
        """
        names = [one.name for one in dataclasses.fields(cls)]
        unknown = next((name for name in data if name not in names), None)
        if unknown is not None:
            fields = f"Fields: {', '.join(names)}{closest(str(unknown), names)}"
            raise ValueError(f"A training source has no field {unknown!r}. {fields}")
        if "path" not in data:
            raise ValueError(f"A training source needs a path; got {dict(data)!r}.")
        return cls(**data)

    @property
    def label(self) -> str:
        """The dataset's name, of letters, digits, hyphens and underscores."""
        if self.name is not None:
            return self.name
        if isinstance(self.path, Dataset):
            return "dataset"
        names = self.path if isinstance(self.path, list | tuple) else [self.path]
        stem = Path(str(next(iter(names), ""))).name.split(".")[0]
        return re.sub(r"[^\w-]+", "_", stem).strip("_") or "dataset"

    @property
    def instructions(self) -> tuple[str | None, str | None]:
        """The query's and the documents' instruction."""
        return self.query_instruction, self.query_instruction if self.symmetric else self.document_instruction

    def read(self) -> tuple[Dataset, Columns]:
        """Read the source's rows.

        Raises:
            ValueError: If it cannot be read, or a column is missing.
        """
        if isinstance(self.path, Dataset):
            dataset = self.path
        else:
            dataset = read_dataset(self.path, split=self.split, columns=self.column_names, **self.options)
        columns = find_columns(dataset, self.columns, self.label)
        flag_embedding = columns.positive == FLAG_EMBEDDING["positive"] and PROMPT in dataset.column_names
        if flag_embedding and self.query_instruction is None:
            self._take_prompt(dataset)
        return dataset, columns

    def _take_prompt(self, dataset: Dataset) -> None:
        """Take FlagEmbedding's instruction of each query for the source's."""
        prompts = sorted(str(one or "").strip() for one in dataset.unique(PROMPT))
        if len(prompts) > 1:
            raise ValueError(
                f"The queries of {self.label} have {len(prompts)} instructions in {PROMPT!r}, {prompts[0]!r} and "
                f"{prompts[1]!r} among them. Make a file, and so a source, of each; or give one query_instruction for all."
            )
        self.query_instruction = prompts[0] or None


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
    datasets = {name: _rows(source, blended, seed) for name, source in named.items()}
    switches = {name: source.in_batch_negatives for name, source in named.items()}
    if blended:
        return TrainingData(_blend(datasets, seed), {}, switches)
    prompts = {name: _prompts(source, datasets[name].column_names) for name, source in named.items()}
    if len(datasets) == 1:
        name = next(iter(datasets))
        return TrainingData(datasets[name], prompts[name], switches)
    return TrainingData(DatasetDict(datasets), prompts if any(prompts.values()) else {}, switches)


def _rows(source: TrainingSource, blended: bool, seed: int) -> Dataset:
    dataset, columns = source.read()
    numbers: Sequence[int] = range(len(dataset))
    if source.limit is not None and source.limit < len(dataset):
        numbers = sorted(random.Random(seed).sample(numbers, source.limit))
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
            "where": source.label,
            "columns": columns,
            "names": names,
            "numbers": numbers,
            "instructions": instructions if blended else None,
        },
        remove_columns=columns.all,
        features=Features(dict.fromkeys(names, text)),
        desc=f"Reading {source.label}",
    )
    return rows.add_column("label", [int(source.in_batch_negatives)] * len(rows)) if blended else rows


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
