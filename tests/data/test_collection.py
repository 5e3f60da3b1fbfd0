"""Test collections are read whole, and in a time that grows with their size only."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from st_llm2vec.data.collection import CollectionFiles, read_collection
from st_llm2vec.data.retrieval_files import read_smart


def files_of(folder: Path, files: dict[str, str]) -> dict[str, str]:
    """Files by their roles (`corpus.tsv`), with these contents."""
    for name, text in files.items():
        (folder / name).write_text(text)
    return {name.split(".")[0]: str(folder / name) for name in files}


def test_many_queries_cost_no_more_than_reading_the_files(tmp_path: Path) -> None:
    numbers = range(30_000)
    entries = "".join(f".I {number}\n.W\ntext {number}\n" for number in numbers)
    qrels = "".join(f"{number} {number} 1\n" for number in numbers if number % 10 == 0)
    files = files_of(tmp_path, {"corpus.smart": entries, "queries.smart": entries, "qrels.txt": qrels})
    began = time.process_time()
    for role in ("corpus", "queries"):
        read_smart(Path(files[role]))
    reading = time.process_time() - began
    found = read_collection(CollectionFiles(files, format="smart"), "large")
    assert len(found.relevant) == 3000 and found.relevant["10"] == ["10"]
    assert time.process_time() - began - reading < 3 * reading + 0.2
