"""A corpus: rows in a fixed order, good or bad, each with a number and an id, read from a memory-mapped table."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset

from st_llm2vec.data.read import BYTES, kind_of, local_files, one_suffix, parquet_columns, read_dataset, read_lines

DIGESTED = 1 << 16
LOOKED_AT = 100
TEXT_TYPES = ("string", "large_string", "null")


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


@dataclass(frozen=True)
class Corpus:
    """A corpus.

    Args:
        name: What it is called in messages.
        data: Its table.
        identity: What tells it from another; compared when a job is resumed.
        column: The column of texts.
        id_column: The column of ids, if it has one.
        kind: How a row is read: ``"text"`` and ``"json"`` from a line, ``"table"`` from columns.
        reopen: Opens it again: another process reads it from where it is, and not from this machine's cache.
    """

    name: str
    data: Dataset
    identity: dict[str, Any]
    column: str
    id_column: str | None
    kind: str
    reopen: Callable[[], Corpus] | None = None

    @property
    def named_ids(self) -> bool:
        """Whether ids are strings."""
        return self.id_column is not None

    def __len__(self) -> int:
        return len(self.data)

    def __reduce__(self) -> Any:
        return (self.reopen, ()) if self.reopen is not None else super().__reduce__()

    def rows(self, start: int, stop: int) -> Iterator[Row]:
        """The rows of a slice, which is all of the corpus that is in memory.

        Args:
            start: The first of them, from 0.
            stop: The one after the last.

        Yields:
            The rows, in order.
        """
        part = self.data[start:stop]
        if self.kind == "table":
            values = part[self.column]
            ids = part[self.id_column] if self.id_column else [None] * len(values)
            for number, (value, identifier) in enumerate(zip(values, ids, strict=True), start):
                yield self._row(number, identifier, value, None)
            return
        for number, line in enumerate(part["text"], start):
            value, problem = _decoded(line)
            identifier = None
            if self.kind == "json" and problem is None:
                record, problem = _object(value)
                value, identifier = record.get(self.column), record.get(self.id_column or "")
            yield self._row(number, identifier, value, problem)

    def _row(self, number: int, identifier: Any, value: Any, problem: str | None) -> Row:
        if not self.named_ids:
            return Row(number, number, value, problem)
        if identifier is None:
            return Row(number, "", value, problem or "it has no id")
        named, wrong = _valid(str(identifier))
        return Row(number, named, value, problem or wrong)


def open_corpus(
    inputs: Sequence[str | os.PathLike[str]] | None = None,
    *,
    dataset: str | None = None,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    column: str | None = None,
    id_column: str | None = None,
) -> Corpus:
    """Open a corpus and check that it has what is asked for, before anything slow begins.

    Args:
        inputs: Files, or folders of files, all of one format that :func:`st_llm2vec.data.read_dataset` reads. Their rows
            follow each other in this order.
        dataset: In place of files, a dataset's name on the Hub, or a folder written by ``save_to_disk``.
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
    if dataset is None and (config or split or revision):
        raise ValueError("A configuration, a split and a dataset's revision are for --dataset; files have none.")
    text, kind = column or "text", "table"
    wanted = [text] if id_column in (None, text) else [text, id_column]
    if dataset is not None:
        split, hub = split or "train", {"revision": revision} if revision else {}
        data = read_dataset(f"{dataset}:{config}" if config else dataset, split=split, **hub)
        name, identity = f"{dataset} ({split})", _dataset_identity(dataset, data, config, split, revision)
        reopen = partial(open_corpus, dataset=dataset, config=config, split=split, revision=revision)
    else:
        files = [file.absolute() for one in inputs or () for file in local_files([Path(one)])]
        name = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
        suffix = one_suffix(files)
        kind = kind_of(suffix)
        for file in files if suffix == ".parquet" else ():  # before its columns are copied
            _require_columns(str(file), parquet_columns(file), text, id_column)
        data = read_dataset(files, only_texts=wanted) if kind == "table" else read_lines(files, name)
        identity = {"kind": suffix, "files": [_file_identity(file) for file in files]}
        reopen = partial(open_corpus, files)
    if kind == "text" and (column or id_column):
        raise ValueError(f"{name} has no columns, only a text in each line; leave --column and --id-column out.")
    if kind == "json":
        data = data.filter(_hold_anything, batched=True, input_columns=["text"])
        _require_columns(name, _keys(data), text, id_column)
    elif kind == "table":
        _require_columns(name, data.column_names, text, id_column)
        _require_texts(name, data, text)
        data = data.select_columns(wanted)
    columns = {} if kind == "text" else {"column": text, "id_column": id_column}
    reopen = partial(reopen, column=column, id_column=id_column)
    return Corpus(name, data, {**identity, **columns, "rows": len(data)}, text, id_column, kind, reopen)


def corpus_of_texts(texts: Sequence[str], name: str) -> Corpus:
    """A corpus of texts in memory.

    Args:
        texts: The texts.
        name: What they are called in messages.

    Returns:
        The corpus.
    """
    return Corpus(name, Dataset.from_dict({"text": list(texts)}), {}, "text", None, "table")


def _require_columns(name: str, found: Sequence[str], column: str, id_column: str | None) -> None:
    for wanted, option in ((column, "--column"), (id_column, "--id-column")):
        if wanted is not None and wanted not in found:
            listed = ", ".join(sorted(found)) or "none"
            raise ValueError(f"{name} has no column {wanted!r}; it has {listed}. Choose one with {option}.")


def _require_texts(name: str, data: Dataset, column: str) -> None:
    kind = str(getattr(data.features[column], "dtype", data.features[column]))
    if kind not in TEXT_TYPES:
        raise ValueError(f"The column {column!r} of {name} holds {kind}; a column of texts is expected.")


def _hold_anything(lines: list[str]) -> list[bool]:
    return [bool(line.strip()) for line in lines]


def _keys(lines: Dataset) -> list[str]:
    """The fields of the first objects."""
    records = [_object(_decoded(line)[0])[0] for line in lines[:LOOKED_AT]["text"]]
    return list(dict.fromkeys(name for record in records for name in record))


def _decoded(line: str) -> tuple[str, str | None]:
    """A line's text, and why it is none."""
    try:
        return line.encode(BYTES).decode("utf-8-sig"), None
    except UnicodeDecodeError:
        return line, "not text: it is not valid Unicode"


def _valid(identifier: str) -> tuple[str, str | None]:
    """An id that can be written, and why it is not the one that was read."""
    written = identifier.encode("utf-8", "replace").decode("utf-8")
    return written, None if written == identifier else "its id is not valid Unicode"


def _object(line: str) -> tuple[dict[str, Any], str | None]:
    """A line's object, and why it is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # of JSON, and of a number longer than Python reads
        return {}, f"not JSON: {error}"
    return (record, None) if isinstance(record, dict) else ({}, f"not an object: {type(record).__name__}")


def _file_identity(path: Path, folder: Path | None = None) -> dict[str, Any]:
    """Name, in a folder with its path there, size, and a digest of the beginning and the end."""
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(DIGESTED))
        file.seek(max(0, size - DIGESTED))
        digest.update(file.read())
    return {
        "name": path.relative_to(folder).as_posix() if folder else path.name,
        "bytes": size,
        "sha256_of_ends": digest.hexdigest(),
    }


def _dataset_identity(
    dataset: str, data: Dataset, config: str | None, split: str, revision: str | None
) -> dict[str, Any]:
    """Its name and revision, and the files of one on disk, or the addresses of the Hub's, which name the commit."""
    folder = Path(dataset)
    files = sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else []
    downloads = [] if files else sorted(data.info.download_checksums or {})
    return {
        "kind": "dataset",
        "dataset": folder.name if files else dataset,
        "files": [_file_identity(file, folder) for file in files],
        "downloads": hashlib.sha256("\n".join(downloads).encode()).hexdigest() if downloads else None,
        "config": config,
        "split": split,
        "revision": revision,
    }
