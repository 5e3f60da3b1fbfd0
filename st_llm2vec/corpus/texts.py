"""Read texts from arguments, lines and columns, a chunk at a time."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

TEXT_SUFFIXES = ("", ".txt", ".text", ".md")
JSON_SUFFIXES = (".jsonl", ".ndjson")
READABLE = ".txt (a text a line), .jsonl (an object a line) or .parquet"


@dataclass(frozen=True)
class Chunk:
    """Some rows of a corpus.

    Args:
        texts: The texts, one for each row.
        columns: The rows as they were read: dictionaries, or an Arrow record batch.
    """

    texts: list[str]
    columns: Any


class Corpus(Protocol):
    """Texts with the columns they came with, in a fixed order."""

    name: str

    def count(self) -> int | None:
        """How many rows there are, where that is known before they are read."""

    def chunks(self, size: int) -> Iterator[Chunk]:
        """The rows, ``size`` at a time."""

    def schema(self) -> Any:
        """The Arrow schema of the columns."""


def open_corpus(texts: Sequence[str], source: str | None, column: str | None) -> Corpus:
    """Find the reader for what was given, and check it before anything slow begins.

    Args:
        texts: Texts given as they are.
        source: A file, or ``"-"`` for standard input.
        column: The column of a ``.jsonl`` or ``.parquet`` file; ``"text"`` if not given.

    Returns:
        The corpus.

    Raises:
        ValueError: If there is nothing to read, or it is not what it should be.
    """
    if bool(texts) == (source is not None):
        what = "both texts and --input were" if texts else "neither texts nor --input was"
        raise ValueError(f"Give texts as arguments, or --input FILE, or --input - for standard input; {what} given.")
    if source is None or source == "-":
        _refuse_column(column, "texts given as arguments" if source is None else "standard input")
        return (
            Lines("the arguments", lambda: iter(texts)) if source is None else Lines("standard input", _standard_input)
        )
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"There is no file {path}." if not path.exists() else f"{path} is a folder; give a file.")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return Parquet(path, column or "text")
    if suffix in JSON_SUFFIXES:
        return JsonLines(path, column or "text")
    if suffix in TEXT_SUFFIXES:
        _refuse_column(column, str(path))
        return Lines(str(path), lambda: _lines(path), path)
    raise ValueError(f"{path} is a {suffix} file, which is not read here. Give {READABLE}.")


class Lines:
    """A text a line, or texts as they are; an empty line is an empty text, so that row numbers stay."""

    def __init__(self, name: str, read: Callable[[], Iterator[str]], path: Path | None = None) -> None:
        self.name = name
        self.read = read
        self.path = path

    def count(self) -> int | None:
        """How many lines the file has; unknown for standard input."""
        return None if self.path is None else _count_lines(self.path)

    def chunks(self, size: int) -> Iterator[Chunk]:
        """The texts, ``size`` at a time, in a column ``text``."""
        for texts in _batched(self.read(), size):
            yield Chunk(texts, [{"text": text} for text in texts])

    def schema(self) -> Any:
        """One column, ``text``."""
        arrow = arrow_library()
        return arrow.schema([("text", arrow.string())])


class JsonLines:
    """A column of a file with a JSON object on each line; an empty line is an empty text."""

    def __init__(self, path: Path, column: str) -> None:
        self.name = str(path)
        self.path = path
        self.column = column
        first = next((record for _, record in self._records() if record is not None), None)
        if first is not None:
            _check_column(self.name, column, list(first))

    def count(self) -> int | None:
        """How many lines the file has."""
        return _count_lines(self.path)

    def chunks(self, size: int) -> Iterator[Chunk]:
        """The rows, ``size`` at a time."""
        for rows in _batched(self._records(), size):
            texts = [self._text(number, record) for number, record in rows]
            yield Chunk(texts, [record or {} for _, record in rows])

    def schema(self) -> Any:
        """The types that all rows together have.

        Raises:
            ValueError: If a field has several.
        """
        arrow = arrow_library()
        schemas: list[Any] = []
        try:
            for rows in _batched(self._records(), 4096):
                records = [record or {} for _, record in rows]
                names = dict.fromkeys(name for record in records for name in record)
                columns = {name: [record.get(name) for record in records] for name in names}
                schemas = [arrow.unify_schemas([*schemas, arrow.table(columns).schema], promote_options="permissive")]
        except (arrow.ArrowInvalid, arrow.ArrowTypeError) as error:
            raise ValueError(
                f"{self.name} has a field that is of one type here and of another there, which Parquet cannot hold "
                f"({error}). Write the vectors to .npy or .safetensors instead."
            ) from error
        return schemas[0] if schemas else arrow.schema([(self.column, arrow.string())])

    def _records(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
        for number, line in enumerate(_lines(self.path), start=1):
            if not line.strip():
                yield number, None
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{self.path}, line {number}, is not JSON: {error}. Each line must be an object."
                ) from error
            if not isinstance(record, dict):
                raise ValueError(
                    f"{self.path}, line {number}, is a JSON {type(record).__name__}; each must be an object."
                )
            yield number, record

    def _text(self, number: int, record: dict[str, Any] | None) -> str:
        if record is None:
            return ""
        if self.column not in record:
            raise ValueError(f"{self.path}, line {number}, has no {self.column!r}; it has {', '.join(record)}.")
        return _as_text(record[self.column], f"{self.path}, line {number}", self.column)


class Parquet:
    """A column of a Parquet file; a null is an empty text."""

    def __init__(self, path: Path, column: str) -> None:
        self.name = str(path)
        self.column = column
        arrow = arrow_library()
        try:
            self.file = importlib.import_module("pyarrow.parquet").ParquetFile(path)
        except arrow.ArrowException as error:
            raise ValueError(f"{path} could not be read as Parquet: {error}") from error
        _check_column(self.name, column, self.file.schema_arrow.names)

    def count(self) -> int | None:
        """How many rows the file has."""
        return self.file.metadata.num_rows

    def chunks(self, size: int) -> Iterator[Chunk]:
        """The rows, ``size`` at a time."""
        row = 1
        for batch in self.file.iter_batches(batch_size=size):
            values = batch.column(self.column).to_pylist()
            texts = [_as_text(one, f"{self.name}, row {row + at}", self.column) for at, one in enumerate(values)]
            row += len(texts)
            yield Chunk(texts, batch)

    def schema(self) -> Any:
        """The file's own schema."""
        return self.file.schema_arrow


# Helpers ------------------------------------------------------------------------------------------------


def arrow_library() -> Any:
    """The optional library that reads and writes Parquet.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise ValueError("Parquet needs pyarrow: pip install 'st-llm2vec[parquet]'.") from error


def _refuse_column(column: str | None, source: str) -> None:
    if column is not None:
        raise ValueError(f"--column {column} is for .jsonl and .parquet files; {source} has no columns. Leave it out.")


def _check_column(name: str, column: str, found: Iterable[str]) -> None:
    found = list(found)
    if column not in found:
        raise ValueError(f"{name} has no column {column!r}; it has {', '.join(found)}. Choose one with --column.")


def _as_text(value: Any, where: str, column: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{where}: {column!r} holds {type(value).__name__} {str(value)[:40]!r}; a text is expected.")
    return value


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line in file:
                yield line.removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text; save it as UTF-8.") from error


def _standard_input() -> Iterator[str]:
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"Line {number} of standard input is not UTF-8 text.") from error


def _count_lines(path: Path) -> int:
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")


def _batched(rows: Iterator[T], size: int) -> Iterator[list[T]]:
    while batch := list(itertools.islice(rows, size)):
        yield batch
