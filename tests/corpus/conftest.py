from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from st_llm2vec import convert
from st_llm2vec.corpus import EmbeddingSettings, embed_corpus, open_corpus, read_embeddings

ROWS = 130


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


def run(encoder: str, source: Path, output: Path, **options: Any) -> dict[str, Any]:
    devices, id_column, show = (options.pop(name, None) for name in ("devices", "id_column", "on_progress"))
    settings = EmbeddingSettings(encoder, **{"shard_rows": 32, "batch_size": 8, **options})
    return embed_corpus(open_corpus([source], id_column=id_column), output, settings, devices=devices, on_progress=show)


def gathered(output: Path) -> tuple[list[Any], torch.Tensor]:
    shards = list(read_embeddings(output))
    return [one for ids, _ in shards for one in ids], torch.cat([vectors for _, vectors in shards])


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", ROWS)


@pytest.fixture(scope="session")
def texts(source: Path) -> dict[int, str]:
    """The good rows, by number."""
    records = [json.loads(line)["text"] for line in source.read_text().splitlines()]
    return {number: text for number, text in enumerate(records) if text is not None}


@pytest.fixture(scope="session")
def expected(encoder: str, texts: dict[int, str]) -> np.ndarray:
    return SentenceTransformer(encoder).encode_document(list(texts.values()))


@pytest.fixture(scope="session")
def finished(encoder: str, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("finished") / "output"
    run(encoder, source, output)
    return output
