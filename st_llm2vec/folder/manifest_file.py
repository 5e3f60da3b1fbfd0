"""The manifest's file in an encoder's folder, ``st_llm2vec.json``."""

from __future__ import annotations

import json
from pathlib import Path

from st_llm2vec.folder.checksums import checksums
from st_llm2vec.folder.files import LIST, MAP, TEXT, read_json, require_fields
from st_llm2vec.recipe.manifest import Manifest

MANIFEST_NAME = "st_llm2vec.json"
FORMAT = 1
SHAPE = {
    "config": MAP,
    "base": MAP,
    "layout": TEXT,
    "reason": TEXT,
    "attention": MAP,
    "stages": LIST,
    "adapter_base": TEXT,
    "checksums": MAP,
}


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write it into a folder whose other files are final, with their checksums.

    Args:
        manifest: The manifest.
        folder: The encoder's folder.
    """
    data = {"format": FORMAT, **manifest.to_dict(), "checksums": checksums(folder)}
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")


def read_manifest(folder: str | Path) -> Manifest | None:
    """Read the folder's manifest.

    Args:
        folder: The encoder's folder.

    Returns:
        The manifest; ``None`` where there is none.

    Raises:
        ValueError: If the file is damaged or was written by a later format.
    """
    path = Path(folder) / MANIFEST_NAME
    if not path.is_file():
        return None
    try:
        data = read_json(path, folder)
        require_fields(data, SHAPE, MANIFEST_NAME, folder)
        if data["format"] > FORMAT:
            raise ValueError("it was written by a newer st_llm2vec; upgrade with `pip install -U st-llm2vec`")
        if not all(isinstance(digest, str) for digest in data.get("checksums", {}).values()):
            raise ValueError("its checksums are no texts")
        return Manifest.from_dict(data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read: {str(error).rstrip('.')}.") from error
