"""Find the reader for a corpus: files, folders of files, and datasets."""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from st_llm2vec.corpus.dataset_source import DatasetSource
from st_llm2vec.corpus.line_files import COMPRESSED, Csv, JsonLines, LineFormat, PlainText, require_columns
from st_llm2vec.corpus.rows import Plan, Row, Source, Start, row_id

KINDS = {
    ".txt": "text", ".text": "text", ".md": "text",
    ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".csv": "csv", ".tsv": "csv",
    ".parquet": "parquet",
}  # fmt: skip
READABLE = "Parquet (.parquet), JSON lines (.jsonl), CSV (.csv, .tsv) or a text a line (.txt)"
DIGESTED = 1 << 16


def open_source(
    inputs: Sequence[str | os.PathLike[str]] | None = None,
    *,
    dataset: str | None = None,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    column: str | None = None,
    id_column: str | None = None,
) -> Source:
    """Open a corpus and check that it has what is asked for, before anything slow begins.

    Args:
        inputs: Files, or folders of files, all of one kind: Parquet, JSON lines, CSV or a text a line. All but Parquet
            may be compressed (``.gz``, ``.bz2``, ``.zst``, ``.lz4``). Their rows follow each other in this order.
        dataset: In place of files, a dataset's name on the Hub, its folder, or a folder written by ``save_to_disk``.
        config: The dataset's configuration.
        split: The dataset's split; ``"train"`` if not given.
        revision: The dataset's branch, tag or commit.
        column: The column of texts; ``"text"`` if not given.
        id_column: The column of ids; rows are called by their number, from 0, if not given.

    Returns:
        The corpus.

    Raises:
        ValueError: If there is nothing to read, or it is not what it should be.
    """
    if bool(inputs) == (dataset is not None):
        what = "both were" if inputs else "neither was"
        raise ValueError(f"Give files (--input), or a dataset (--dataset); {what} given.")
    if dataset is not None:
        return DatasetSource(dataset, config, split or "train", revision, column or "text", id_column)
    if config or split or revision:
        raise ValueError("A configuration, a split and a dataset's revision are for --dataset; files have none.")
    files = _files([Path(one) for one in inputs or ()])
    kind, *others = sorted({_kind(file) for file in files})
    if others:
        raise ValueError(f"The input holds {kind} and {' and '.join(others)} files; give files of one kind.")
    if kind == "parquet":
        return ParquetFiles(files, column or "text", id_column)
    if kind == "text" and (column or id_column):
        raise ValueError("Files with a text a line have no columns; leave --column and --id-column out.")
    return LineFiles(files, kind, column or "text", id_column)


class LineFiles:
    """Files of lines, one after the other."""

    def __init__(self, files: list[Path], kind: str, column: str, id_column: str | None) -> None:
        self.files = files
        self.kind = kind
        self.column = column
        self.id_column = id_column
        self.named_ids = id_column is not None
        self.name = _name(files)
        for file in files:
            self._format(file).check(file)

    def identity(self) -> dict[str, Any]:
        """Names, sizes and digests of the files, and the columns."""
        columns = {} if self.kind == "text" else {"column": self.column, "id_column": self.id_column}
        return {"kind": self.kind, "files": [_file_identity(file) for file in self.files], **columns}

    def plan(self, size: int) -> Plan:
        """Read all files once, without looking at the texts."""
        starts, row = [], 0
        for number, file in enumerate(self.files):
            for place in self._format(file).places(file):
                if row % size == 0:
                    starts.append(Start(row, number, place))
                row += 1
        return Plan(row, starts)

    def rows(self, start: Start) -> Iterator[Row]:
        """The rows from there on."""
        number, place = start.row, start.place
        for file in self.files[start.file :]:
            for record in self._format(file).records(file, place):
                identifier, problem = row_id(number, self.named_ids, record.id)
                yield Row(number, identifier, record.text, record.problem or problem)
                number += 1
            place = 0

    def _format(self, file: Path) -> LineFormat:
        if self.kind == "text":
            return PlainText()
        if self.kind == "jsonl":
            return JsonLines(self.column, self.id_column)
        return Csv(self.column, self.id_column, "\t" if ".tsv" in file.suffixes else ",")


class ParquetFiles:
    """Parquet files, one after the other; only the columns that are needed are read."""

    def __init__(self, files: list[Path], column: str, id_column: str | None) -> None:
        self.files = files
        self.column = column
        self.id_column = id_column
        self.named_ids = id_column is not None
        self.name = _name(files)
        self.counts = [self._checked(file) for file in files]

    def _checked(self, path: Path) -> int:
        """The number of rows of a file that has the columns."""
        arrow, parquet = _arrow()
        try:
            with parquet.ParquetFile(path) as file:
                schema, rows = file.schema_arrow, file.metadata.num_rows
        except arrow.ArrowException as error:
            raise ValueError(f"{path} could not be read as Parquet: {error}") from error
        require_columns(path, schema.names, self.column, self.id_column)
        kind, types = schema.field(self.column).type, arrow.types
        kind = kind.value_type if types.is_dictionary(kind) else kind
        if not (types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind)):
            raise ValueError(f"The column {self.column!r} of {path} holds {kind}; a column of texts is expected.")
        return rows

    def identity(self) -> dict[str, Any]:
        """Names, sizes and digests of the files, and the columns."""
        files = [_file_identity(file) for file in self.files]
        return {"kind": "parquet", "files": files, "column": self.column, "id_column": self.id_column}

    def plan(self, size: int) -> Plan:
        """Where each shard begins, from the files' footers."""
        starts, before = [], 0
        for number, rows in enumerate(self.counts):
            first = -before % size
            starts += [Start(before + place, number, place) for place in range(first, rows, size)]
            before += rows
        return Plan(before, starts)

    def rows(self, start: Start) -> Iterator[Row]:
        """The rows from there on, a thousand in memory at a time."""
        number, skip = start.row, start.place
        for path in self.files[start.file :]:
            for text, identifier in self._values(path, skip):
                found, problem = row_id(number, self.named_ids, identifier)
                yield Row(number, found, text, problem)
                number += 1
            skip = 0

    def _values(self, path: Path, skip: int) -> Iterator[tuple[Any, Any]]:
        columns = [self.column, *([self.id_column] if self.id_column else [])]
        arrow, parquet = _arrow()
        try:
            with parquet.ParquetFile(path) as file:
                group = 0
                while group < file.num_row_groups and skip >= file.metadata.row_group(group).num_rows:
                    skip -= file.metadata.row_group(group).num_rows
                    group += 1
                groups = list(range(group, file.num_row_groups))
                for batch in file.iter_batches(batch_size=1024, row_groups=groups, columns=columns) if groups else ():
                    kept = batch.slice(skip)
                    skip = max(0, skip - len(batch))
                    ids = kept.column(self.id_column).to_pylist() if self.id_column else [None] * len(kept)
                    yield from zip(kept.column(self.column).to_pylist(), ids, strict=True)
        except arrow.ArrowException as error:
            raise ValueError(f"{path} could not be read: {error}") from error


# Helpers ------------------------------------------------------------------------------------------------


def _arrow() -> tuple[Any, Any]:
    """Imported where it is used, so that sources can be pickled and the package stays light."""
    return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")


def _files(inputs: list[Path]) -> list[Path]:
    """The files that are named, and those in the folders that are; absolute, for processes that are elsewhere."""
    files: list[Path] = []
    for path in inputs:
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.is_file() and _kind_or_none(file))
            if not found:
                raise ValueError(f"The folder {path} holds no files that are read here: {READABLE}.")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise ValueError(f"There is no file {path}. To read from the Hub, use --dataset.")
    return [file.absolute() for file in files]


def _kind_or_none(path: Path) -> str | None:
    if path.name.startswith((".", "_")):
        return None
    suffix = Path(path.stem).suffix if path.suffix.lower() in COMPRESSED else path.suffix
    return KINDS.get(suffix.lower())


def _kind(path: Path) -> str:
    kind = _kind_or_none(path)
    if kind is None:
        raise ValueError(f"{path} is of a kind that is not read here. Give {READABLE}.")
    return kind


def _file_identity(path: Path) -> dict[str, Any]:
    """Name, size, and a digest of the beginning and the end."""
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(DIGESTED))
        file.seek(max(0, size - DIGESTED))
        digest.update(file.read())
    return {"name": path.name, "bytes": size, "sha256_of_ends": digest.hexdigest()}


def _name(files: list[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
