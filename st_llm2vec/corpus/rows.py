"""What a corpus is made of: rows that are read one after the other, from any place on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Row:
    """A row as it was read, good or bad.

    Args:
        number: Its position in the corpus, from 0.
        id: What it is called: its number, or the value of the column of ids, as a string.
        value: What stands where the text should be.
        problem: Why it could not be read at all.
    """

    number: int
    id: int | str
    value: Any
    problem: str | None = None


@dataclass(frozen=True)
class Start:
    """Where reading can begin without reading what comes before.

    Args:
        row: Number of the row, from 0.
        file: Which of the corpus' files it is in, from 0.
        place: Where in the file: a byte of a text file, a row of a Parquet file.
    """

    row: int = 0
    file: int = 0
    place: int = 0


@dataclass(frozen=True)
class Plan:
    """How many rows there are, and where every shard begins, so that nothing is read twice.

    Args:
        rows: The number of rows; ``None`` if it is known only at the end.
        starts: Where each shard begins; ``None`` if that is not known.
    """

    rows: int | None
    starts: list[Start] | None

    def start(self, shard: int, size: int) -> Start:
        """Where a shard of ``size`` rows begins."""
        return Start(row=shard * size) if self.starts is None else self.starts[shard]


class Source(Protocol):
    """A corpus: rows in a fixed order."""

    name: str
    named_ids: bool

    def identity(self) -> dict[str, Any]:
        """What tells this corpus from another; it is compared when a job is resumed."""

    def plan(self, size: int) -> Plan:
        """Count the rows and find where each ``size`` of them begins."""

    def rows(self, start: Start) -> Iterator[Row]:
        """The rows from there to the end."""


def row_id(number: int, named: bool, value: Any) -> tuple[int | str, str | None]:
    """A row's id, and what is wrong with it."""
    if not named:
        return number, None
    if value is None:
        return "", "it has no id"
    return str(value), None


def judge(row: Row, max_chars: int) -> str | None:
    """Say what is wrong with a row; ``None`` if it can be embedded.

    Example:
        >>> judge(Row(0, 0, None), 10), judge(Row(1, 1, 5), 10), judge(Row(2, 2, "a text"), 10)
        ('null', 'not text: int', None)
    """
    if row.problem is not None:
        return row.problem
    if row.value is None:
        return "null"
    if not isinstance(row.value, str):
        return f"not text: {type(row.value).__name__}"
    if len(row.value) > max_chars:
        return f"too long: {len(row.value):,} characters, and {max_chars:,} are allowed"
    try:
        row.value.encode("utf-8")
    except UnicodeEncodeError:
        return "not text: it is not valid Unicode"
    return None
