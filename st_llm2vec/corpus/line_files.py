"""Read texts from files of lines: plain text, JSON lines and CSV, compressed or not."""

from __future__ import annotations

import csv
import importlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

LONGEST_LINE = 64 * 2**20
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
BOM = b"\xef\xbb\xbf"


class Record(NamedTuple):
    """A row of a file: where it begins, its text, its id, and why it could not be read."""

    place: int
    text: Any
    id: Any
    problem: str | None


class LineFormat(Protocol):
    """A way of reading rows from bytes."""

    def check(self, path: Path) -> None:
        """Raise unless the file has the columns that are asked for."""

    def places(self, path: Path) -> Iterator[int]:
        """Where each row begins, in bytes."""

    def records(self, path: Path, place: int) -> Iterator[Record]:
        """The rows from a byte on."""


class PlainText:
    """A text a line; an empty line is an empty text, so that row numbers are line numbers."""

    def check(self, path: Path) -> None:
        """There are no columns."""

    def places(self, path: Path) -> Iterator[int]:
        """Where each line begins."""
        return (place for place, _, _ in read_lines(path))

    def records(self, path: Path, place: int) -> Iterator[Record]:
        """The lines."""
        for at, _, line in read_lines(path, place):
            yield Record(at, line, None, None) if line is not None else Record(at, None, None, _too_long())


class JsonLines:
    """An object a line."""

    def __init__(self, column: str, id_column: str | None) -> None:
        self.column = column
        self.id_column = id_column

    def check(self, path: Path) -> None:
        """Raise unless some object has the columns.

        Raises:
            ValueError: If the first objects do not.
        """
        if not path.stat().st_size:
            return
        found: set[str] = set()
        for number, (_, _, line) in enumerate(read_lines(path)):
            record = _object(line)[0]
            found |= set(record or {})
            if number >= 100 or {self.column, self.id_column or self.column} <= found:
                break
        require_columns(path, found, self.column, self.id_column)

    def places(self, path: Path) -> Iterator[int]:
        """Where each line begins."""
        return (place for place, _, _ in read_lines(path))

    def records(self, path: Path, place: int) -> Iterator[Record]:
        """The objects; a line that is none is a row with a problem."""
        for at, _, line in read_lines(path, place):
            record, problem = _object(line)
            if record is None:
                yield Record(at, line, None, problem)
            else:
                yield Record(at, record.get(self.column), record.get(self.id_column or ""), None)


class Csv:
    """Comma- or tab-separated values with a header."""

    def __init__(self, column: str, id_column: str | None, delimiter: str) -> None:
        self.column = column
        self.id_column = id_column
        self.delimiter = delimiter

    def check(self, path: Path) -> None:
        """Raise unless the header has the columns.

        Raises:
            ValueError: If it does not.
        """
        if path.stat().st_size:
            require_columns(path, self._header(path), self.column, self.id_column)

    def places(self, path: Path) -> Iterator[int]:
        """Where each row after the header begins."""
        rows = (place for place, _, _ in self._values(path, 0))
        next(rows, None)
        return rows

    def records(self, path: Path, place: int) -> Iterator[Record]:
        """The rows after the header."""
        header = self._header(path)
        if not header:
            return
        text = header.index(self.column)
        identifier = None if self.id_column is None else header.index(self.id_column)
        rows = self._values(path, place)
        if not place:
            next(rows, None)
        for at, values, problem in rows:
            padded = values + [None] * (len(header) - len(values))
            yield Record(at, padded[text], None if identifier is None else padded[identifier], problem)

    def _header(self, path: Path) -> list[Any]:
        return next(self._values(path, 0), (0, [], None))[1]

    def _values(self, path: Path, place: int) -> Iterator[tuple[int, list[Any], str | None]]:
        """Rows with the byte where each begins; one may span lines, and a broken one is a problem of its own."""
        csv.field_size_limit(LONGEST_LINE)
        reached, too_long = place, False

        def lines() -> Iterator[str]:
            nonlocal reached, too_long
            for _, end, line in read_lines(path, place, keep_ends=True):
                reached, too_long = end, line is None
                yield "too long\n" if line is None else line

        reader = csv.reader(lines(), delimiter=self.delimiter)
        while True:
            at = reached
            try:
                values: list[Any] = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield at, [], f"not CSV: {error}"
                continue
            if too_long:
                yield at, [], _too_long()
            elif values:
                yield at, values, None


def read_lines(path: Path, place: int = 0, keep_ends: bool = False) -> Iterator[tuple[int, int, str | None]]:
    """Lines with the byte where each begins; what is not UTF-8 becomes surrogates, which are no valid text.

    Args:
        path: The file.
        place: The byte to begin at.
        keep_ends: Whether to keep the ends of lines.

    Yields:
        The byte, the byte after it, and the line; ``None`` for one that is longer than ``LONGEST_LINE``, which is not held in memory.
    """
    with open_bytes(path, place) as file:
        while line := file.readline(LONGEST_LINE):
            size = len(line)
            text: str | None = None
            if size == LONGEST_LINE and not line.endswith(b"\n"):
                size += _skip_line(file)
            else:
                if not place:
                    line = line.removeprefix(BOM)
                line = line if keep_ends else line.removesuffix(b"\n").removesuffix(b"\r")
                text = line.decode("utf-8", "surrogateescape")
            yield place, place + size, text
            place += size


@contextmanager
def open_bytes(path: Path, place: int = 0) -> Iterator[io.BufferedReader]:
    """A file's bytes from a place on, decompressed by its name's ending."""
    if path.suffix.lower() not in COMPRESSED:
        with path.open("rb") as file:
            file.seek(place)
            yield file
        return
    arrow = importlib.import_module("pyarrow")
    try:
        with arrow.input_stream(str(path), compression="detect") as stream:
            file = io.BufferedReader(stream, 1 << 20)
            while place and (skipped := len(file.read(min(place, 1 << 20)))):
                place -= skipped
            yield file
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} could not be decompressed: {error}") from error


def require_columns(name: object, found: Any, column: str, id_column: str | None) -> None:
    """Raise unless the columns are there.

    Raises:
        ValueError: If one is not.
    """
    for wanted, option in ((column, "--column"), (id_column, "--id-column")):
        if wanted is not None and wanted not in found:
            listed = ", ".join(sorted(found)) or "none"
            raise ValueError(f"{name} has no column {wanted!r}; it has {listed}. Choose one with {option}.")


def _object(line: str | None) -> tuple[dict[str, Any] | None, str | None]:
    if line is None:
        return None, _too_long()
    if not line.strip():
        return None, "an empty line"
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        return None, f"not JSON: {error}"
    return (record, None) if isinstance(record, dict) else (None, f"not an object: {type(record).__name__}")


def _too_long() -> str:
    return f"too long: a line of more than {LONGEST_LINE:,} bytes"


def _skip_line(file: io.BufferedReader) -> int:
    size = 0
    while part := file.readline(1 << 20):
        size += len(part)
        if part.endswith(b"\n"):
            break
    return size
