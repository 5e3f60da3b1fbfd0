"""Small data for stages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import st_llm2vec

CORPUS = Path(st_llm2vec.__file__).parent / "assets" / "corpus.jsonl"


@pytest.fixture(scope="session")
def texts_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demo's passages, a line each."""
    path = tmp_path_factory.mktemp("data") / "texts.txt"
    rows = [json.loads(line)["text"] for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demo's titles and passages as pairs, the next passage as a negative."""
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    lines = [
        json.dumps({"query": row["title"], "positive": row["text"], "negative": after["text"]})
        for row, after in zip(rows, rows[1:] + rows[:1], strict=True)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)
