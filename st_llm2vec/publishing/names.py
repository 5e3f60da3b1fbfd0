"""Names that may leave this machine: of models and data, without the paths of local copies."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from st_llm2vec.data.read import COMPRESSED, FORMATS
from st_llm2vec.recipe.manifest import Manifest

CACHED = re.compile(r"models--([^/\\]+?)--([^/\\]+)[/\\]snapshots[/\\]([0-9a-f]+)")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
DATA_FILE = re.compile(
    rf"(?!\w+://)\S+({'|'.join(map(re.escape, (*FORMATS, '.yaml', '.yml')))})({'|'.join(map(re.escape, COMPRESSED))})?"
)
LOCAL = re.compile(r"^(/|~|\.{1,2}[/\\]|[A-Za-z]:[/\\]|\\\\|file:)")


def public_name(name: str) -> str:
    """A name without what tells about this machine.

    A path into the Hub's cache becomes the repository's name, another local path its last part.

    Example:
        >>> public_name("/home/ann/.cache/huggingface/hub/models--org--decoder/snapshots/0a1b2c")
        'org/decoder'
        >>> public_name("/home/ann/models/decoder/")
        'decoder'
        >>> public_name("org/decoder")
        'org/decoder'
    """
    cached = CACHED.search(name)
    if cached:
        return f"{cached.group(1)}/{cached.group(2)}"
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1] if is_local(name) else name


def is_local(name: str) -> bool:
    """Whether a name is a path on this machine: it looks like one, ends as a data file does, or is there."""
    if LOCAL.match(name) or DATA_FILE.fullmatch(name):
        return True
    return "\n" not in name and 0 < len(name) < 256 and Path(name).exists()


def is_hub_name(name: str | None) -> bool:
    """Whether a name has the form of a repository's on the Hub, and is no local path."""
    return bool(name and HUB_NAME.fullmatch(name) and not is_local(name))


def without_local_paths(value: Any) -> Any:
    """The same data, with :func:`public_name` for every string that is a local path."""
    if isinstance(value, dict):
        return {key: without_local_paths(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_local_paths(one) for one in value]
    return public_name(value) if isinstance(value, str) and is_local(value) else value


def public_manifest(manifest: Manifest, base_model: str | None = None) -> Manifest:
    """A manifest that may be published.

    Args:
        manifest: The manifest.
        base_model: The base's name on the Hub, where the manifest knows only a local copy of it.
    """
    base = without_local_paths({**manifest.base, **({"name": base_model} if base_model else {})})
    return dataclasses.replace(manifest, base=base, stages=without_local_paths(manifest.stages))
