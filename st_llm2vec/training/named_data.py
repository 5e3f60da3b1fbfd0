"""The data that a plan names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, Value

from st_llm2vec.data import read_dataset
from st_llm2vec.data.read import local_files
from st_llm2vec.folder.checksums import sha256
from st_llm2vec.training.settings import check_names

SCORED = ["sentence1", "sentence2", "score"]
SCORED_SETS = {"stsb": {"path": "sentence-transformers/stsb", "split": "validation"}}
"""Pairs with scores that are evaluated on by name, unless there is a file of that name."""
SCORES = ("score", "label", "similarity_score", "similarity")


def open_data(source: Any) -> Dataset:
    """Read a dataset from what a plan names: a path or Hub name, several files, or a mapping of both and more.

    Args:
        source: A path or name; a list of paths; or a mapping with ``path`` and any of ``split``, ``columns`` and
            ``limit`` (the first rows only).

    Returns:
        The dataset.

    Raises:
        ValueError: If nothing was named, or it cannot be read.
    """
    if source is None:
        raise ValueError("The stage has no data; name a file or a dataset: data: texts.txt.")
    if not isinstance(source, Mapping):
        return read_dataset(source)
    check_names(source, ("path", "split", "columns", "limit"), f"The data {dict(source)} cannot be read")
    if "path" not in source:
        raise ValueError(f"Data is named by path, split, columns and limit; got {dict(source)}.")
    limit = source.get("limit")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ValueError(f"The data's limit is {limit!r}; it must be a whole number of at least 1, of rows to take.")
    dataset = read_dataset(source["path"], split=source.get("split", "train"), columns=source.get("columns"))
    return dataset.select(range(min(limit or len(dataset), len(dataset))))


def open_scored_pairs(source: Any) -> Dataset:
    """Read pairs of sentences with scores.

    Args:
        source: As for :func:`open_data`, or a key of :data:`SCORED_SETS`. The columns are ``sentence1``, ``sentence2`` and
            ``score``; or two columns of texts and one of numbers under any names; or three in this order, where the file has
            no line of names.

    Returns:
        The pairs, in columns of these names.

    Raises:
        ValueError: If the file holds no such pairs.
    """
    if isinstance(source, str) and not Path(source).exists():
        source = SCORED_SETS.get(source, source)
    pairs = open_data(source)
    if len(pairs.column_names) == len(SCORED) and _is_number(pairs.column_names[-1]):
        return open_data({**(source if isinstance(source, Mapping) else {"path": source}), "columns": SCORED})
    found = SCORED if set(SCORED) <= set(pairs.column_names) else _scored_columns(pairs, str(source))
    return pairs.select_columns(found).rename_columns(dict(zip(found, SCORED, strict=True)))


def _scored_columns(pairs: Dataset, where: str) -> list[str]:
    kinds = {name: feature.dtype for name, feature in pairs.features.items() if isinstance(feature, Value)}
    texts = [name for name, kind in kinds.items() if "string" in kind]
    numbers = [name for name, kind in kinds.items() if kind.startswith(("int", "uint", "float"))]
    scores = [name for name in SCORES if name in numbers] or numbers
    if len(texts) != 2 or not scores or (len(scores) > 1 and scores == numbers):
        raise ValueError(
            f"{where} has the columns {', '.join(pairs.column_names)}; sentence1, sentence2 and score are read, or two "
            "columns of texts and one of numbers. Name the columns of a file without a header: "
            "{path: ..., columns: [sentence1, sentence2, score]}."
        )
    return [*texts, scores[0]]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def describe_files(source: Any) -> dict[str, Any]:
    """The size and checksum of the local files that a plan's data names.

    Args:
        source: As for :func:`open_data`, or a list of such mappings.

    Returns:
        ``{path: {"bytes": ..., "sha256": ...}}``; without files that are not there, and datasets of the Hub.
    """
    if isinstance(source, Mapping):
        return describe_files(source.get("path"))
    if isinstance(source, list | tuple):
        return {name: one for part in source for name, one in describe_files(part).items()}
    try:
        named = local_files(source) if isinstance(source, str) else []
    except ValueError:  # which reading the data says, where it is still needed
        return {}
    files = [file for one in named for file in (sorted(one.rglob("*")) if one.is_dir() else [one]) if file.is_file()]
    return {str(file): {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in files}


def plain(source: Any) -> Any:
    """Paths as text, in whatever a plan holds."""
    if isinstance(source, Path):
        return str(source)
    if isinstance(source, list | tuple):
        return [plain(one) for one in source]
    return {key: plain(value) for key, value in source.items()} if isinstance(source, dict) else source
