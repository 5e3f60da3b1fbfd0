"""The data that a plan names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, Value

from st_llm2vec.data import Mixture, TrainingSource, read_dataset, read_mixture
from st_llm2vec.data.mixture import is_mixture
from st_llm2vec.data.read import local_files
from st_llm2vec.data.shapes import scores_of
from st_llm2vec.data.training_data import build_texts, texts_of_pairs
from st_llm2vec.folder.checksums import sha256
from st_llm2vec.training.settings import check_names

SCORED = ["sentence1", "sentence2", "score"]
SCORED_SETS = {"stsb": {"path": "sentence-transformers/stsb", "split": "validation"}}
"""Pairs with scores that are evaluated on by name, unless there is a file of that name."""
SCORES = ("score", "label", "similarity_score", "similarity")
TEXTS_OF = "texts_of"
"""The key of data that are the texts of a stage's pairs."""
MIXTURE_FIELDS = ("mixture", "folder", "sources", "limit", "negatives")


def open_mixture(source: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Mixture:
    """Read the mixture that a plan names.

    Args:
        source: A mapping with ``mixture``, a YAML file or a name, and any of ``folder``, ``sources`` (names of those to take),
            ``limit`` and ``negatives`` (of every source).
        defaults: Fields of sources that do not say them.

    Returns:
        The mixture.

    Raises:
        ValueError: If it cannot be read, or the mapping holds anything else.
    """
    check_names(source, MIXTURE_FIELDS, f"The data {dict(source)} cannot be read")
    changes = {name: source[name] for name in ("limit", "negatives") if name in source}
    return read_mixture(
        source["mixture"], folder=source.get("folder"), only=source.get("sources"), defaults=defaults, changes=changes
    )


def name_data(data: str) -> dict[str, str]:
    """A plan's entry for data that a user names: a mixture, or a path."""
    return {"mixture" if is_mixture(data) else "path": data}


def open_sources(data: Any, defaults: Mapping[str, Any] | None = None) -> list[TrainingSource]:
    """The sources of pairs that a plan names.

    Args:
        data: A path or name, a mapping of :class:`TrainingSource`'s fields or one for :func:`open_mixture`, or several of them.
        defaults: Fields of sources that do not say them.

    Returns:
        The sources. No data is read yet.

    Raises:
        ValueError: If nothing was named, or a source cannot be what it is.
    """
    if data is None:
        raise ValueError("The stage has no data; name a file or a dataset of pairs: data: {path: pairs.jsonl}.")
    sources: list[TrainingSource] = []
    for one in data if isinstance(data, list) else [data]:
        entry = one if isinstance(one, dict) else name_data(one)
        if "mixture" in entry:
            sources += open_mixture(entry, defaults).sources
        else:
            sources.append(TrainingSource.from_dict({**(defaults or {}), **entry}))
    return sources


def open_data(source: Any) -> Dataset:
    """Read a dataset from what a plan names: a path or Hub name, several files, or a mapping of both and more.

    Args:
        source: A path or name; a list of paths; a mapping with ``path`` and any of ``split``, ``columns`` and
            ``limit`` (the first rows only); one for :func:`open_mixture`, whose sources are texts; or one with
            ``texts_of``, pairs as for :func:`open_sources`.

    Returns:
        The dataset.

    Raises:
        ValueError: If nothing was named, or it cannot be read.
    """
    if source is None:
        raise ValueError("The stage has no data; name a file or a dataset: data: texts.txt.")
    if not isinstance(source, Mapping):
        return open_data({"mixture": source}) if is_mixture(source) else read_dataset(source)
    if "mixture" in source:
        return build_texts(open_mixture(source).sources)
    if TEXTS_OF in source:
        check_names(source, (TEXTS_OF,), f"The data {dict(source)} cannot be read")
        return texts_of_pairs(open_sources(source[TEXTS_OF]))
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
        ValueError: If the file holds no such pairs, or a row lacks a text or a finite number.
    """
    if isinstance(source, str) and not Path(source).exists():
        source = SCORED_SETS.get(source, source)
    pairs = open_data(source)
    if len(pairs.column_names) == len(SCORED) and _is_number(pairs.column_names[-1]):
        pairs = open_data({**(source if isinstance(source, Mapping) else {"path": source}), "columns": SCORED})
    found = SCORED if set(SCORED) <= set(pairs.column_names) else _scored_columns(pairs, str(source))
    scores = scores_of(pairs, found, called(source))
    texts = pairs.select_columns(found[:2]).rename_columns(dict(zip(found[:2], SCORED[:2], strict=True)))
    return texts.add_column(SCORED[2], scores)


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
    files = [file for named in _names_of_all(source) for one in _local(named) for file in _files(one)]
    return {str(file): {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in files}


def _names_of(source: Any) -> list[Any]:
    """What a plan's data names: files, folders, or datasets of the Hub."""
    if is_mixture(source):
        source = {"mixture": source}
    if not isinstance(source, Mapping):
        return [source]
    if "mixture" in source:
        try:
            found = open_mixture(source)
        except ValueError:  # which reading the data says
            return []
        return [str(found.file), *(file for one in found.sources for file in one.files)]
    if TEXTS_OF in source:
        return _names_of_all(source[TEXTS_OF])
    path = source.get("path")
    collection = source.get("collection")
    parts = list(path) if isinstance(path, list | tuple) else [path]
    return parts + (list(collection.values()) if isinstance(collection, Mapping) else [])


def _names_of_all(source: Any) -> list[Any]:
    if isinstance(source, list | tuple):
        return [name for one in source for name in _names_of_all(one)]
    return _names_of(source)


def called(source: Any) -> str:
    """What a plan's data is called in messages: by its files or names.

    Args:
        source: As for :func:`open_data`, or a list of such mappings.
    """
    if is_mixture(source):
        return str(source)
    if isinstance(source, Mapping) and "mixture" in source:
        return str(source["mixture"])
    if isinstance(source, Mapping) and TEXTS_OF in source:
        return f"the texts of {called(source[TEXTS_OF])}"
    names = [str(name) for name in _names_of_all(source) if name is not None]
    named = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return named or str(source)


def _local(named: Any) -> list[Path]:
    try:
        return local_files(named) if isinstance(named, str) else []
    except ValueError:  # which reading the data says, where it is still needed
        return []


def _files(one: Path) -> list[Path]:
    return [file for file in (sorted(one.rglob("*")) if one.is_dir() else [one]) if file.is_file()]


def plain(source: Any) -> Any:
    """Paths as text, in whatever a plan holds."""
    if isinstance(source, Path):
        return str(source)
    if isinstance(source, list | tuple):
        return [plain(one) for one in source]
    return {key: plain(value) for key, value in source.items()} if isinstance(source, dict) else source
