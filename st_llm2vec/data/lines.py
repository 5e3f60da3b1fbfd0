"""What is said of files that cannot be read: on which line a row stands, which is unlike the others, and the reader's reason."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.compute
from datasets import Dataset

logger = logging.getLogger(__name__)

JSON_LINES = {".jsonl", ".ndjson"}
TEXT_LINES = {".txt", ".text", ".md"}
SHOWN = 40
BATCH = 10_000
TAB_IN_A_LINE = r"[^\n\t]\t"
"""A tab that does not indent a line."""
KINDS = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}


def row_in(where: str, number: int) -> str:
    """The beginning of a sentence about a row: its line in a file of lines, and its number elsewhere.

    Args:
        where: The file, or what the rows are called.
        number: The number of the row, from 0.

    Example:
        >>> row_in("the dataset", 3)
        'Row 3 of the dataset (the first is 0)'
    """
    kinds = set(Path(where).suffixes)
    line = None
    if Path(where).is_file() and kinds & TEXT_LINES:
        line = number + 1
    elif Path(where).is_file() and kinds & JSON_LINES:
        filled = (at for at, text in _lines(Path(where)) if text.strip())
        line = next((at for row, at in enumerate(filled) if row == number), None)
    return f"Row {number} of {where} (the first is 0)" if line is None else f"Line {line} of {where}"


def unlike_line(files: Sequence[str]) -> str | None:
    """Say which line of JSON lines cannot be read with those before it.

    Args:
        files: Files, compressed or not.

    Returns:
        What is wrong with it and what to do; ``None`` if nothing is found, or the files are of another format.
    """
    known: dict[str, tuple[str, str]] = {}
    for file in files:
        for at, line in _lines(Path(file)) if set(Path(file).suffixes) & JSON_LINES else ():
            place = f"{file}, line {at}"
            problem = _problem(line, place, known) if line.strip() else None
            if problem:
                return f"{place}: {problem}"
    return None


def reason_of(error: BaseException) -> str:
    """Why a file could not be read, on one line: what the reader says, or in words that there are no rows.

    Args:
        error: The reader's error.
    """
    cause = error.__cause__ or error
    text = " ".join(str(cause).split()) or type(cause).__name__
    if "corresponds to no data" in text or "No columns to parse" in text:
        return "it has no rows, only blank lines or names of columns. Give at least one row."
    return text


def ragged_line(reason: str, where: str) -> str | None:
    """Say what pandas says of a row with too many fields.

    Args:
        reason: What pandas says.
        where: The file.

    Returns:
        A sentence; ``None`` of anything else.
    """
    found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", reason)
    if found is None:
        return None
    expected, line, fields = found.groups()
    return (
        f"{where}, line {line}: it has {fields} fields, and {expected} are expected, as in the lines before. Put texts that hold a "
        "separator into quotation marks."
    )


def warn_of_swallowed_rows(dataset: Dataset, where: str) -> None:
    """Warn if a cell of a file separated by tabs holds a line break and a tab: it may be several rows. Reads all texts.

    A quotation mark at the beginning of a text is read as the beginning of a quotation, which ends at the next mark, and the
    rows between them are lost.

    Args:
        dataset: The file's rows.
        where: What it is called in the message.

    Example:
        >>> warn_of_swallowed_rows(Dataset.from_dict({"text": ["One.", "Two lines,\\nof one text."]}), "texts.tsv")
    """
    for start, batch in enumerate(dataset.with_format("arrow").iter(BATCH)):
        for name, cells in zip(batch.column_names, batch.columns, strict=True):
            if "string" not in str(cells.type):
                continue
            broken = pyarrow.compute.match_substring(cells, "\n")
            found = pyarrow.compute.and_(broken, pyarrow.compute.match_substring_regex(cells, TAB_IN_A_LINE))
            row = found.index(True).as_py()
            if row >= 0:
                logger.warning(
                    "%s has a line break and a tab in %r, as where a text begins with a quotation mark and the rows up to the "
                    "next mark are taken for a part of it. If so, they are lost: read the file with quoting=3 (in a mixture "
                    "or a plan of tasks, options: {quoting: 3}), for which a quotation mark means nothing.",
                    row_in(where, start * BATCH + row),
                    name,
                )
                return


def _problem(line: str, place: str, known: dict[str, tuple[str, str]]) -> str | None:
    """What is wrong with a line, given the kinds of values that the lines before it have, to which its own are added."""
    example = ", ".join(f'"{name}": ...' for name in known or ("text",))
    shown = line.strip() if len(line.strip()) <= SHOWN else line.strip()[:SHOWN] + "…"
    try:
        row: Any = json.loads(line)
    except ValueError:
        return (
            f"{shown} is no JSON; each line must be an object, such as {{{example}}}. Correct the line, or remove it."
        )
    if not isinstance(row, dict):
        kind = KINDS.get(type(row), "nothing (null)")
        return (
            f"{shown} is {kind}; each line must be an object, such as {{{example}}}. Write the line so, or remove it."
        )
    for name, value in row.items():
        if value is None:
            continue
        kind, (other, first) = KINDS[type(value)], known.setdefault(name, (KINDS[type(value)], place))
        if kind != other:
            return f"{name!r} is {kind}, and {other} in {first}. Give it the same kind in all lines."
    return None


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file and their numbers, from 1; as far as it can be read."""
    try:
        with fsspec.open(str(file), "rt", encoding="utf-8-sig", errors="replace", compression="infer") as lines:
            yield from enumerate(lines, start=1)
    except (EOFError, OSError, ValueError):  # which reading it says
        return
