"""Mixtures: lists of training sources in a YAML file, and those that come with the package."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from st_llm2vec.data.read import HUB_FILE, is_hub_id
from st_llm2vec.data.source import TrainingSource
from st_llm2vec.data.source_errors import FieldError, Place, PlacedError, placed
from st_llm2vec.recipe.config import closest

MIXTURES = Path(__file__).with_name("mixtures")
FIELDS = ("description", "instruction_template", "sources")
SLOT = "{instruction}"
SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Mixture:
    """Sources that are trained on together.

    Args:
        file: The YAML file.
        description: What it is, for people.
        sources: Its sources, in order.
    """

    file: Path
    description: str
    sources: list[TrainingSource]


def named_mixtures() -> list[str]:
    """The names of the mixtures that come with the package."""
    return sorted(file.stem for file in MIXTURES.glob("*.yaml"))


def is_mixture(name: Any) -> bool:
    """Whether what a user names as data is a mixture: a YAML file, or the name of one of the package's."""
    return isinstance(name, str | Path) and (Path(name).suffix.lower() in SUFFIXES or str(name) in named_mixtures())


def read_mixture(
    mixture: str | Path,
    *,
    folder: str | Path | None = None,
    only: Sequence[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Mixture:
    """Read a mixture. No data is read yet.

    The file is a mapping with ``sources``, a list of mappings with the fields of :class:`TrainingSource`; and, if need be,
    ``description`` and ``instruction_template``, which says how the bare instructions are written for a model that is none of
    this package's, such as ``"Instruct: {instruction}\\nQuery: "``.

    Paths are relative to the file's folder, and ``${NAME}`` in them is an environment variable. Where there is no such file
    and the source names a dataset on the Hub, that is read.

    Args:
        mixture: A YAML file, or a name of :func:`named_mixtures`.
        folder: What paths are relative to, in place of the file's folder; for the package's mixtures, whose default is the
            working directory.
        only: Names of sources; the others are left out.
        defaults: Fields of sources that do not say them.
        changes: Fields of all sources, whatever they say.

    Returns:
        The mixture.

    Raises:
        ValueError: If it cannot be read, or a source is not what it should be; with file and line.

    Example:
        >>> mixture = read_mixture("nli")
        >>> mixture.sources[0].task, mixture.sources[0].hub
        ('nli', 'hf://datasets/princeton-nlp/datasets-for-simcse/nli_for_simcse.csv')
    """
    file = Path(mixture)
    known = named_mixtures()
    if str(mixture) in known:
        file = MIXTURES / f"{mixture}.yaml"
        folder = folder or Path.cwd()
    elif not file.is_file():
        raise ValueError(
            f"There is no mixture {mixture}{closest(str(mixture), known)} Give a YAML file, or one of {', '.join(known)}."
        )
    folder = (Path(folder) if folder is not None else file.parent).expanduser().absolute()
    data, lines = _parse(file)
    template = data.get("instruction_template", SLOT)
    if not isinstance(template, str) or SLOT not in template:
        raise PlacedError(
            f"{file}, line {lines.get('instruction_template', 1)}: the instruction_template {template!r} has no {SLOT}, "
            "which the instruction of each source takes the place of. Put it in."
        )
    sources: list[TrainingSource] = []
    for number, entry in enumerate(data["sources"]):
        place = Place(str(file), lines[number], lines[f"{number}.fields"])
        with placed(place):
            source = _source({**(defaults or {}), **_mapping(entry), **(changes or {})}, folder, template, place)
            twice = next((one for one in sources if one.label == source.label), None)
            if twice is not None:
                raise FieldError(f"Two sources are called {source.label!r}; give each a name of its own.", "name")
            sources.append(source)
    return Mixture(file, " ".join(str(data.get("description", "")).split()), _chosen(sources, only, file))


def _source(entry: dict[str, Any], folder: Path, template: str, place: Place) -> TrainingSource:
    for name in ("path", "corpus"):
        if entry.get(name) is not None:
            entry[name] = _located(entry[name], folder, name)
    if isinstance(entry.get("collection"), Mapping):
        named = ("corpus", "queries", "qrels")
        entry["collection"] = {
            key: _located(value, folder, "collection") if key in named else value
            for key, value in entry["collection"].items()
        }
    if entry.get("hub") and entry.get("path") is not None and not _is_here(entry["path"]):
        entry.setdefault("name", TrainingSource(path=entry["path"]).label)
        entry["path"] = None
    for name in ("query_instruction", "document_instruction"):
        if isinstance(entry.get(name), str):
            entry[name] = template.replace(SLOT, entry[name])
    source = TrainingSource.from_dict(entry)
    source.place = place
    return source


def _mapping(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise ValueError(f"A source is {entry!r}; a mapping with its path, task and instruction is expected.")
    return dict(entry)


def _chosen(sources: list[TrainingSource], only: Sequence[str] | None, file: Path) -> list[TrainingSource]:
    names = [source.label for source in sources]
    unknown = next((name for name in only or () if name not in names), None)
    if unknown is not None:
        raise ValueError(f"{file} has no source {unknown!r}{closest(unknown, names)} It has {', '.join(names)}.")
    return [source for source in sources if only is None or source.label in only]


def _located(written: Any, folder: Path, field: str) -> Any:
    """A path with its variables, relative to a folder; the name of a dataset on the Hub stays as it is."""
    if isinstance(written, list):
        return [_located(one, folder, field) for one in written]
    if not isinstance(written, str):
        raise FieldError(f"A {field} is {written!r}; the name of a file is expected.", field)
    path = os.path.expandvars(written)
    unset = re.search(r"\$\{?(\w+)", path)
    if unset:
        raise FieldError(f"The file {written} cannot be found: the environment has no {unset[1]}. Set it.", field)
    beside = str(folder / Path(path).expanduser())
    if _is_here(beside):
        return beside
    on_the_hub = path.startswith(HUB_FILE) or is_hub_id(path) or not Path(path).suffix
    return path if on_the_hub else beside


def _is_here(path: Any) -> bool:
    if isinstance(path, list):
        return all(_is_here(one) for one in path)
    return Path(path).exists() or bool(glob.has_magic(path) and glob.glob(path, recursive=True))


def _parse(file: Path) -> tuple[dict[str, Any], dict[Any, Any]]:
    """The file's data, and the lines of its keys, of its sources by number, and of their fields."""
    try:
        text = file.read_text(encoding="utf-8")
        data = yaml.safe_load(text)
        root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"The mixture {file} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict) or not isinstance(data.get("sources"), list) or not data["sources"]:
        raise ValueError(f"{file}, line 1: the mixture has no list `sources:` of sources (docs/data.md).")
    lines: dict[Any, Any] = _lines(root)
    unknown = next((name for name in data if name not in FIELDS), None)
    if unknown is not None:
        raise ValueError(
            f"{file}, line {lines[unknown]}: a mixture has no {unknown!r}{closest(str(unknown), list(FIELDS))} It has "
            f"{', '.join(FIELDS)}."
        )
    entries = next(value for key, value in root.value if key.value == "sources")
    for number, node in enumerate(entries.value):
        lines[number], lines[f"{number}.fields"] = node.start_mark.line + 1, _lines(node)
    return data, lines


def _lines(node: Any) -> dict[Any, Any]:
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {key.value: key.start_mark.line + 1 for key, _ in node.value}
