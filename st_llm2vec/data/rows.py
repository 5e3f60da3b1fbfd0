"""From a dataset's own columns to rows of query, positive and hard negatives."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from st_llm2vec.data.lines import row_in

ROLES = ("query", "positive", "negative")
FLAG_EMBEDDING = {"query": "query", "positive": "pos", "negative": "neg"}
SIMCSE = {"query": "sent0", "positive": "sent1", "negative": "hard_neg"}
"""The columns of ``nli_for_simcse.csv``."""


@dataclass(frozen=True)
class Columns:
    """Which columns hold what.

    Args:
        query: The query's.
        positive: The positive's; it may hold lists.
        negatives: Those of the hard negatives, in order; they may hold lists.
    """

    query: str
    positive: str
    negatives: tuple[str, ...] = ()

    @property
    def all(self) -> list[str]:
        """Every column, each once."""
        return list(dict.fromkeys([self.query, self.positive, *self.negatives]))


def find_columns(dataset: Dataset, chosen: Mapping[str, Any] | None, where: str) -> Columns:
    """Find out which columns hold what.

    Args:
        dataset: The dataset.
        chosen: ``{"query": name, "positive": name, "negative": name or names}``; ``None`` goes by the usual names.
        where: What the dataset is called in messages.

    Returns:
        The columns.

    Raises:
        ValueError: If one is missing.
    """
    if chosen is None:
        chosen = _usual(dataset.column_names, where)
    if not {"query", "positive"} <= set(chosen) <= set(ROLES):
        raise ValueError(
            f"The columns of {where} are {dict(chosen)!r}; name those of query and positive, and of negative if there is "
            "any."
        )
    negatives = chosen.get("negative") or ()
    found = Columns(
        chosen["query"], chosen["positive"], (negatives,) if isinstance(negatives, str) else tuple(negatives)
    )
    require_columns(dataset, found.all, where)
    return found


def _usual(names: Sequence[str], where: str) -> dict[str, Any]:
    if {SIMCSE["query"], SIMCSE["positive"]} <= set(names):
        return {role: name for role, name in SIMCSE.items() if name in names}
    query = next((name for name in ("query", "anchor") if name in names), None)
    if FLAG_EMBEDDING["positive"] in names and "positive" not in names and query is not None:
        return {role: name for role, name in FLAG_EMBEDDING.items() if name in names}
    if query is None or "positive" not in names:
        raise ValueError(_no_pairs(names, where))
    return {
        "query": query,
        "positive": "positive",
        "negative": [name for name in names if name.startswith("negative")],
    }


def _no_pairs(names: Sequence[str], where: str) -> str:
    """What to do with a table whose columns do not say which are the pairs'."""
    if len(names) < 2:
        return (
            f"{where} has one column, {', '.join(map(repr, names))}, and pairs have two, query and positive. Texts without pairs are "
            "for the stages mntp and simcse (--texts)."
        )
    usual = next((name for name in ("query", "anchor") if name in names), None)
    query = usual or next(name for name in names if name != "positive")
    positive = "positive" if "positive" in names else next(name for name in names if name != query)
    return (
        f"{where} has the columns {', '.join(map(repr, names))}; query and positive are expected. Rename them, or say which is which "
        f"in a plan or a mixture, such as columns: {{query: {query}, positive: {positive}}}."
    )


def read_rows(
    batch: dict[str, list[Any]],
    indices: list[int],
    *,
    where: str,
    columns: Columns,
    names: Sequence[str],
    numbers: Sequence[int],
    instructions: Sequence[str | None] | None,
) -> dict[str, list[Any]]:
    """Read a batch of a dataset into rows with as many hard negatives each, for ``Dataset.map``.

    Args:
        batch: The dataset's columns.
        indices: The positions of its rows in ``numbers``.
        where: What the dataset is called in messages.
        columns: Its columns.
        names: Those of the rows: query, positive, negative_1, ...
        numbers: The number of each row in the source, for messages.
        instructions: One for each name, where each text carries its own; else ``None``.

    Returns:
        The columns ``names``.

    Raises:
        ValueError: If a row has no query, positive or negative, or a negative equals one of the others.
    """
    rows: list[list[str]] = []
    for at, index in enumerate(indices):
        record = {name: values[at] for name, values in batch.items()}
        rows += _rows_of(record, columns, len(names) - 2, where, numbers[index])
    found: dict[str, list[Any]] = {name: [row[at] for row in rows] for at, name in enumerate(names)}
    if instructions is None:
        return found
    return {
        name: [{"text": text, "instruction": instruction} for text in found[name]]
        for name, instruction in zip(names, instructions, strict=True)
    }


def _rows_of(record: dict[str, Any], columns: Columns, count: int, where: str, number: int) -> list[list[str]]:
    """A row for each of a record's positives, with ``count`` hard negatives."""
    query = as_text(record[columns.query], columns.query, where, number)
    positives = _texts(record, [columns.positive], where, number)
    negatives = _texts(record, columns.negatives, where, number)
    if not positives:
        raise ValueError(f"{row_in(where, number)} has no text in {columns.positive!r}. Give it one, or remove it.")
    if not count:
        return [[query, positive] for positive in positives]
    if not negatives:
        raise ValueError(
            f"{row_in(where, number)} has no text in {', '.join(columns.negatives)}. Give each row a "
            "negative, or leave the columns of negatives out."
        )
    hard = list(itertools.islice(itertools.cycle(negatives), count))
    for positive in positives:
        refuse_equal_negative({"query": query, "positive": positive}, hard, where, number)
    return [[query, positive, *hard] for positive in positives]


def _texts(record: dict[str, Any], columns: Sequence[str], where: str, number: int) -> list[str]:
    """The texts of columns that hold one, none, or a list of them."""
    found: list[str] = []
    for column in columns:
        values = record[column] if isinstance(record[column], list) else [record[column]]
        found += [as_text(one, column, where, number) for one in values if one is not None and one != ""]
    return found


def require_columns(dataset: Dataset, columns: Sequence[str], where: str = "the dataset") -> None:
    """Raise unless the columns are there.

    Args:
        dataset: The dataset.
        columns: Their names.
        where: What the dataset is called in the message.

    Raises:
        ValueError: If one is missing.
    """
    missing = [name for name in columns if name not in dataset.column_names]
    if missing:
        raise ValueError(
            f"There is no column {missing[0]!r} in {where}; it has {', '.join(map(repr, dataset.column_names))}. Name the right one, or "
            "rename it."
        )


def as_text(value: Any, column: str, where: str, number: int, blank: bool = False) -> str:
    """A value that must be a text.

    Args:
        value: The value.
        column: Its column.
        where: What the dataset is called in the message.
        number: The number of its row.
        blank: Whether it may be blank.

    Returns:
        The value.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(value, str) and (blank or value.strip()):
        return value
    what = "a blank text" if isinstance(value, str) else f"{type(value).__name__} {str(value)[:40]!r}"
    if value is None:
        what = "nothing"
    raise ValueError(
        f"{row_in(where, number)} has {what} in {column!r}; a text is expected. Correct it, or leave it out."
    )


def as_number(value: Any, column: str, where: str, number: int) -> float:
    """A value that must be a finite number; a text that says one is taken for it.

    Args:
        value: The value.
        column: Its column.
        where: What the dataset is called in the message.
        number: The number of its row.

    Returns:
        The number.

    Raises:
        ValueError: If it is none.
    """
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if math.isfinite(found):
        return found
    what = "nothing" if value is None or value == "" else repr(value)
    raise ValueError(
        f"{row_in(where, number)} has {what} in {column!r}; a number is expected. Correct it, or leave the row out."
    )


def refuse_equal_negative(others: Mapping[str, str], negatives: Sequence[str], where: str, number: int) -> None:
    """Raise if a negative equals the query or the positive, whitespace around them aside.

    Args:
        others: The query and the positive, by their columns' names.
        negatives: The negatives.
        where: What the dataset is called in the message.
        number: The number of the row.

    Raises:
        ValueError: If one does: it would be pushed away from itself.
    """
    known = {text.strip(): name for name, text in others.items()}
    for negative in negatives:
        if negative.strip() in known:
            raise ValueError(
                f"{row_in(where, number)} has a negative that equals its {known[negative.strip()]}: "
                f"{negative[:80]!r}. Remove the row, or choose another negative."
            )
