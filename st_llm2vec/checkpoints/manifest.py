"""What an encoder is and how it was made, as a file beside its weights."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from st_llm2vec.recipes import EncoderConfig

MANIFEST_NAME = "st_llm2vec.json"
FORMAT = 1


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
    """

    config: EncoderConfig
    base: dict[str, Any]
    layout: str
    reason: str = ""
    attention: dict[str, Any] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)

    def write(self, folder: str | Path) -> None:
        """Write ``st_llm2vec.json`` into the folder."""
        data = {"format": FORMAT, **dataclasses.asdict(self), "config": self.config.to_dict()}
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
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["format"] > FORMAT:
                raise ValueError("it was written by a newer st_llm2vec; upgrade with `pip install -U st-llm2vec`")
            known = {field.name for field in dataclasses.fields(cls)} & set(data)
            return cls(**{name: data[name] for name in known} | {"config": EncoderConfig.from_dict(data["config"])})
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} cannot be read: {error}.") from error
