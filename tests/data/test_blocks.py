"""Blocks are the cut concatenation of all texts, whatever the batches."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from st_llm2vec.data import pack_blocks, read_dataset

from ..conftest import TEXTS

MANY = [f"{text} {number}" for number in range(30) for text in (*TEXTS, "")]


def concatenated(tokenizer: Any, texts: list[str], size: int) -> list[list[int]]:
    ids = list(itertools.chain.from_iterable(tokenizer(text)["input_ids"] for text in texts))
    return [ids[start : start + size] for start in range(0, len(ids) - size + 1, size)]


@pytest.mark.parametrize("kind", ["byte-level", "byte-level+bos"])
@pytest.mark.parametrize("batch_size", [1, 4, 1000])
@pytest.mark.parametrize("size", [2, 7, 64, 512])
def test_blocks_are_the_concatenation(
    tokenizers: dict[str, PreTrainedTokenizerFast], kind: str, size: int, batch_size: int
) -> None:
    expected = concatenated(tokenizers[kind], MANY, size)
    assert len(expected) > 1
    found = pack_blocks(MANY, tokenizers[kind], size, batch_size=batch_size)
    assert found.column_names == ["block"]
    assert found["block"][:] == expected


def test_a_file_is_packed_from_its_column(tokenizers: dict[str, PreTrainedTokenizerFast], tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    Dataset.from_dict({"id": range(len(MANY)), "body": MANY}).to_json(path)
    tokenizer = tokenizers["byte-level+bos"]
    for _ in range(2):
        found = pack_blocks(read_dataset(path), tokenizer, 16, column="body", batch_size=5)
        assert found["block"][:] == concatenated(tokenizer, MANY, 16)
    assert found.cache_files


def test_what_cannot_be_packed(tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    tokenizer = tokenizers["byte-level+bos"]
    with pytest.raises(ValueError, match="There is no column 'text' in the dataset; it has 'body'"):
        pack_blocks(Dataset.from_dict({"body": TEXTS}), tokenizer)
    with pytest.raises(ValueError, match="Row 1 of the dataset .* has nothing in 'text'"):
        pack_blocks(Dataset.from_dict({"text": ["a", None]}), tokenizer)
    with pytest.raises(ValueError, match="Row 0 of the dataset .* has int '3' in 'text'"):
        pack_blocks(Dataset.from_dict({"text": [3]}), tokenizer)
    with pytest.raises(ValueError, match="The 5 texts have fewer than block_size=5000 tokens together"):
        pack_blocks(TEXTS, tokenizer, 5000)
    with pytest.raises(ValueError, match="not one block"):
        pack_blocks([], tokenizer)
    with pytest.raises(ValueError, match="block_size is 1"):
        pack_blocks(TEXTS, tokenizer, 1)
