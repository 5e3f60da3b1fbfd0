"""What an encoder is and how it was made, as data; its folder keeps it in a file (:mod:`st_llm2vec.folder.manifest_file`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from st_llm2vec.recipe.config import EncoderConfig


@dataclass
class Manifest:
    """The record of an encoder.

    Args:
        config: The encoder as data.
        base: The decoder it was made from: name or path as it was given, and architecture.
        layout: How it was compiled: ``"prefix"``, ``"text"``, ``"message"`` or ``"custom"``.
        reason: Why it was compiled like that.
        attention: The attention probe's result.
        stages: What it was trained on, stage by stage.
        adapter_base: The fingerprint of the weights that the folder's adapter sits on; ``None`` where it holds none, they
            were quantised or in float16, or an earlier version saved it.
        checksums: The sha256 of the files of weights, tokenizer and settings in the folder that it was read from, by path;
            empty where an earlier version saved it.
    """

    config: EncoderConfig
    base: dict[str, Any]
    layout: str
    reason: str = ""
    attention: dict[str, Any] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    adapter_base: str | None = None
    checksums: dict[str, str] = field(default_factory=dict, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold; :meth:`from_dict` reads it back."""
        return {**dataclasses.asdict(self), "config": self.config.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Manifest:
        """Build a manifest from plain data; fields that are not known, which a later version may have added, are left out.

        Raises:
            ValueError: If the encoder's config cannot be what it is.
            KeyError: If a field is missing.
        """
        known = {one.name for one in dataclasses.fields(cls)} & set(data)
        return cls(**{name: data[name] for name in known} | {"config": EncoderConfig.from_dict(data["config"])})
