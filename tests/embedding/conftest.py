from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from st_llm2vec import convert


@pytest.fixture(scope="session")
def encoder(decoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the decoder in the box as an encoder that reads 64 tokens and has both prompts."""
    folder = tmp_path_factory.mktemp("embedding") / "encoder"
    prompts = {"query": "Find the passage that answers:", "document": "A passage:"}
    convert(decoder, "llm2vec", prompts=prompts, max_length=64).save(str(folder))
    return str(folder)


def corpus(path: Path, rows: int) -> Path:
    """A file of JSON lines with a few bad rows among them."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            record: dict[str, Any] = {"name": f"row {number}", "text": f"Ship {number} left the harbour at {number}."}
            if number % 23 == 7:
                record["text"] = None
            if number % 31 == 11:
                record["text"] = "a very long text " * 60
            file.write(json.dumps(record) + "\n")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, to the byte."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
