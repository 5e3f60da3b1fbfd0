"""What an encoder is and how it was made, as a file beside its weights."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from st_llm2vec.checkpoints.checksums import checksums
from st_llm2vec.checkpoints.files import LIST, MAP, TEXT, read_json, require_fields
from st_llm2vec.recipes import EncoderConfig

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


@dataclass
class Manifest:
    """The record of an encoder.

    Args:
        config: The encoder as data.
        base: The decoder it was made from: name or path as it was given, and architecture.
        layout: How it was compiled: ``"text"``, ``"message"`` or ``"custom"``.
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

    def write(self, folder: str | Path) -> None:
        """Write ``st_llm2vec.json`` into a folder whose other files are final, with their checksums."""
        data = {"format": FORMAT, **dataclasses.asdict(self), "config": self.config.to_dict()}
        data["checksums"] = checksums(Path(folder))
        text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
        (Path(folder) / MANIFEST_NAME).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: str | Path) -> Manifest | None:
        """Read the folder's manifest; ``None`` where there is none.

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
            known = {field.name for field in dataclasses.fields(cls)} & set(data)
            return cls(**{name: data[name] for name in known} | {"config": EncoderConfig.from_dict(data["config"])})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} cannot be read: {str(error).rstrip('.')}.") from error
