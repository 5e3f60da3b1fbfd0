"""The one reader of files: local files, saved datasets' folders and the Hub, always through ``datasets``.

Every table is memory-mapped: ``datasets`` keeps a copy in its cache (``HF_DATASETS_CACHE``), rows are read from there, and the
same files are not read again. ``encode``, ``embed`` and ``train`` read through here; docs/data.md has the table of formats.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError
from pyarrow import ArrowException, parquet

from st_llm2vec.data.lines import ragged_line, reason_of, unlike_line, warn_of_swallowed_rows

SEPARATED: dict[str, Any] = {"keep_default_na": False, "encoding": "utf-8-sig"}
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".jsonl": ("json", {}),
    ".ndjson": ("json", {}),
    ".json": ("json", {}),
    ".csv": ("csv", SEPARATED),
    ".tsv": ("csv", {**SEPARATED, "sep": "\t"}),
    ".parquet": ("parquet", {}),
    **dict.fromkeys((".txt", ".text", ".md"), ("text", {"encoding": "utf-8-sig"})),
}
JSON_LINES = (".jsonl", ".ndjson")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4")
SAVED_TO_DISK = ("state.json", "dataset_dict.json")
BYTES = "latin-1"
"""The encoding in which each byte is one character, and so no line is broken."""
HUB_FILE = "hf://datasets/"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
LEFT_OVER = "__index_level_"
FAILURES = (DatasetsError, OSError, RuntimeError, StopIteration, TypeError, ValueError)


def read_dataset(
    source: str | Path | Sequence[str | Path],
    *,
    split: str = "train",
    columns: Sequence[str] | None = None,
    only_texts: Sequence[str] = (),
    **options: Any,
) -> Dataset:
    """Read a dataset.

    Args:
        source: A file (``.jsonl``, ``.ndjson``, ``.json``, ``.csv``, ``.tsv``, ``.parquet``, ``.txt``, ``.md``; compressed
            with gzip, bzip2, xz, zstandard or lz4 too), a pattern such as ``"data/*.jsonl"``, a list of files of one format, a
            folder of such files or one that ``datasets`` saved with ``save_to_disk``, or a dataset on the Hub: ``"org/name"``,
            or ``"org/name:config"``, or one of its files: ``"hf://datasets/org/name/texts.txt"``. A ``.txt`` file has a text
            in each line, in the column ``text``.
        split: The split of a saved dataset or of one on the Hub. Files have the split ``train`` only. Slices such as
            ``"train[:1000]"`` work for files and the Hub.
        columns: Names for the columns of a ``.csv`` or ``.tsv`` file whose first line is data, not names.
        only_texts: Columns of texts, where no others are needed: those of Parquet are not read, and these are texts in
            CSV even where they look like numbers.
        **options: As for ``datasets.load_dataset``, such as ``revision`` for the Hub, or ``quoting=3`` for a ``.tsv``
            file in which a quotation mark means nothing.

    Returns:
        The dataset, with at least one row.

    Raises:
        ValueError: If there is no such file or dataset, it cannot be read, or it is empty.

    Example:
        >>> from st_llm2vec import decoder_path
        >>> from pathlib import Path
        >>> read_dataset(Path(decoder_path()).parent / "corpus.jsonl").column_names
        ['id', 'title', 'text']
    """
    files = local_files(source)
    where = ", ".join(map(str, files[:3])) + (f" and {len(files) - 3} more" if len(files) > 3 else "") or str(source)
    if str(source).startswith(HUB_FILE):
        suffix = _suffix(Path(str(source)))
        if suffix not in FORMATS:
            raise _of_no_format(where)
    else:
        suffix = one_suffix(files) if files and not files[0].is_dir() else ""
    builder = FORMATS[suffix][0] if suffix else ""
    if columns is not None and builder != "csv":
        raise ValueError(
            f"columns names the columns of a .csv or .tsv file without a line of names; {where} has names of its own. "
            "Leave it out."
        )
    if only_texts and builder == "csv":
        options = {"converters": dict.fromkeys(only_texts, str), **options}
    elif only_texts and builder == "parquet":
        options = {"columns": list(dict.fromkeys(only_texts)), **options}
    if suffix:
        dataset = _from_files(_filled(files) if files else [str(source)], suffix, where, split, columns, options)
    elif files:
        dataset = _from_folder(files[0], split)
    else:
        dataset = _from_hub(str(source), split, options)
    if not isinstance(dataset, Dataset):
        raise ValueError(f"{where} gave a {type(dataset).__name__}; name one split, and leave streaming out.")
    if not len(dataset):
        raise ValueError(f"{where} holds no rows.")
    return dataset


def kind_of(suffix: str) -> Literal["text", "json", "table"]:
    """What a row is in files of a format: a text in a line, an object in a line, or a row of a table.

    Args:
        suffix: A key of :data:`FORMATS`.
    """
    if FORMATS[suffix][0] == "text":
        return "text"
    return "json" if suffix in JSON_LINES else "table"


def read_lines(files: Sequence[Path], where: str) -> Dataset:
    """Read files of lines so that no line can break the reading.

    Args:
        files: Files, compressed or not.
        where: What they are called in messages.

    Returns:
        A dataset with the column ``text``: each line, its bytes as :data:`BYTES` reads them.

    Raises:
        ValueError: If a file is empty or cannot be decompressed.
    """
    return _from_files(_filled(files), ".txt", where, "train", None, {"encoding": BYTES})


def local_files(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files, or the one folder of a saved dataset, that a source names; none for a dataset on the Hub.

    Args:
        source: As for :func:`read_dataset`.

    Returns:
        Their paths.

    Raises:
        ValueError: If there is no such file, or the source is no name.
    """
    if str(source).startswith(HUB_FILE):
        return []
    if not isinstance(source, str | Path | Sequence):
        raise ValueError(f"The data is named by {source!r}; a text, or a list of them, is expected: data: texts.txt.")
    if not isinstance(source, str | Path):
        found = [file for one in source for file in local_files(one) or [_missing(one)]]
        if not found:
            raise ValueError("The list of files is empty; name at least one.")
        return found
    path = Path(source).expanduser()
    if path.is_dir() and not any((path / name).is_file() for name in SAVED_TO_DISK):
        return _files_of(path)
    if path.exists():
        return [path]
    matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(str(path)) else []
    if matches:
        return [Path(match) for match in matches]
    if isinstance(source, str) and is_hub_id(source):
        return []
    return [_missing(source)]


def is_hub_id(source: str) -> bool:
    """Whether it may be a dataset's name on the Hub: ``org/name`` or ``org/name:configuration``, and no file that is read here."""
    return bool(HUB_ID.fullmatch(source)) and _suffix(Path(source)) not in FORMATS


def _files_of(folder: Path) -> list[Path]:
    """The files of a folder and of those in it, by name, but hidden ones and other programs' marks."""
    found = [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.startswith((".", "_"))]
    readable = [file for file in found if _suffix(file) in FORMATS]
    if not readable:
        raise ValueError(f"The folder {folder} holds no files that are read here: {', '.join(FORMATS)}.")
    return readable


def _missing(source: str | Path) -> NoReturn:
    raise ValueError(
        f"There is no file {source}. Give a file, a pattern or a folder, or a dataset on the Hub: org/name."
    )


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _from_hub(name: str, split: str, options: dict[str, Any]) -> Any:
    repository, _, config = name.partition(":")
    try:
        return load_dataset(repository, config or None, split=split, **options)
    except FAILURES as error:
        raise ValueError(
            f"{name} is neither a file here nor a dataset that could be read from the Hub: {reason_of(error)}"
        ) from error


def _from_folder(folder: Path, split: str) -> Dataset:
    try:
        saved = load_from_disk(str(folder))
    except FAILURES as error:
        raise ValueError(f"The saved dataset {folder} could not be read: {reason_of(error)}") from error
    if not isinstance(saved, DatasetDict):
        return saved
    if split not in saved:
        raise ValueError(f"{folder} has no split {split!r}; it has {', '.join(map(repr, saved))}.")
    return saved[split]


def _from_files(
    files: list[str], suffix: str, where: str, split: str, columns: Sequence[str] | None, options: dict[str, Any]
) -> Any:
    builder, defaults = FORMATS[suffix]
    if columns is not None:
        options = {"header": None, **options}
    try:
        dataset = load_dataset(builder, data_files=files, split=split, **{**defaults, **options})
    except FAILURES as error:
        told = unlike_line(files) or ragged_line(reason_of(error), where)
        raise ValueError(told or f"{where} could not be read as {builder}: {reason_of(error)}") from error
    if builder == "csv" and any(name.startswith(LEFT_OVER) for name in dataset.column_names):
        names = [name for name in dataset.column_names if not name.startswith(LEFT_OVER)]
        raise ValueError(
            f"{where} has more fields in a row than names in its first line, {names}. Put texts that "
            "hold a separator into quotation marks."
        )
    if suffix == ".tsv" and "quoting" not in options and isinstance(dataset, Dataset):
        warn_of_swallowed_rows(dataset, where)
    return dataset if columns is None else _named(dataset, list(columns), where)


def one_suffix(files: Sequence[Path]) -> str:
    """The ending that says the format of all the files, without that of a compression; a file without one holds lines.

    Args:
        files: The files.

    Raises:
        ValueError: If one is not read here, or they are of several formats.
    """
    for file in files:
        if not file.is_file() or (_suffix(file) or ".txt") not in FORMATS:
            raise _of_no_format(file)
    suffixes = sorted({_suffix(file) or ".txt" for file in files})
    if len(suffixes) > 1:
        raise ValueError(f"{files[0]} and others are of several formats ({', '.join(suffixes)}); read them one by one.")
    return suffixes[0]


def _of_no_format(name: str | Path) -> ValueError:
    return ValueError(f"{name} is not read here. Give files that end in {', '.join(FORMATS)}.")


def _filled(files: Sequence[Path]) -> list[str]:
    """The files that hold anything, by their absolute names."""
    filled = [str(file.absolute()) for file in files if _holds_rows(file)]
    if not filled:
        raise ValueError(f"{files[0]} is empty: it holds no rows.")
    return filled


def _holds_rows(file: Path) -> bool:
    """Whether a file is not empty; Parquet without a row is, and ``datasets`` cannot read it."""
    try:
        return file.stat().st_size > 0 and (_suffix(file) != ".parquet" or parquet.read_metadata(file).num_rows > 0)
    except ArrowException:  # which reading it says
        return True


def parquet_columns(file: Path) -> list[str]:
    """The columns of a Parquet file, from its footer.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        return list(parquet.read_schema(file).names)
    except ArrowException as error:
        raise ValueError(f"{file} could not be read as parquet: {error}") from error


def _named(dataset: Dataset, columns: list[str], where: str) -> Dataset:
    found = dataset.column_names
    if len(found) != len(columns) or len(set(columns)) != len(columns):
        raise ValueError(f"{where} has {len(found)} columns, and the names given are {columns}; give one for each.")
    if set(map(str, dataset[0].values())) & set(columns):
        raise ValueError(f"The first line of {where} holds the names of its columns; leave columns out.")
    return dataset.rename_columns(dict(zip(found, columns, strict=True)))
