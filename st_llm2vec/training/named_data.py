"""The data that a plan names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from st_llm2vec.data import read_dataset


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
    unknown = set(source) - {"path", "split", "columns", "limit"}
    if unknown or "path" not in source:
        raise ValueError(f"Data is named by path, split, columns and limit; got {dict(source)}.")
    dataset = read_dataset(source["path"], split=source.get("split", "train"), columns=source.get("columns"))
    return dataset.select(range(min(source.get("limit", len(dataset)), len(dataset))))


def plain(source: Any) -> Any:
    """Paths as text, in whatever a plan holds."""
    if isinstance(source, Path):
        return str(source)
    if isinstance(source, list | tuple):
        return [plain(one) for one in source]
    return {key: plain(value) for key, value in source.items()} if isinstance(source, dict) else source
