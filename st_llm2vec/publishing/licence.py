"""The licence of a model, as its own model card states it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.repocard import metadata_load

FIELDS = ("license", "license_name", "license_link")


def licence_of_card(card: Path) -> dict[str, str]:
    """The licence fields of a model card; nothing where there is no card, or no licence in it."""
    try:
        metadata = (metadata_load(card) if card.is_file() else None) or {}
    except (ValueError, yaml.YAMLError):
        return {}
    return {name: str(metadata[name]) for name in FIELDS if metadata.get(name)}


def licence_of(base: Mapping[str, Any], token: str | bool | None = None) -> dict[str, str]:
    """The licence of the model that an encoder was made from.

    Args:
        base: The manifest's record of it, which may hold the licence already.
        token: Access token for the Hub, where the base's card is looked up.

    Returns:
        ``license`` and, for licences of their own, ``license_name`` and ``license_link``; empty if it is not known.
    """
    known = {name: str(base[name]) for name in FIELDS if base.get(name)}
    name = str(base.get("name") or "")
    if known or not name:
        return known
    if Path(name).is_dir():
        return licence_of_card(Path(name) / "README.md")
    try:
        return licence_of_card(Path(hf_hub_download(name, "README.md", revision=base.get("revision"), token=token)))
    except (HFValidationError, HfHubHTTPError, OSError, ValueError):
        return {}
