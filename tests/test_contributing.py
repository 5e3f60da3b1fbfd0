"""What CONTRIBUTING.md tells newcomers to add is added, as it stands there, and works."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from torch import Tensor, nn

from st_llm2vec import EncoderConfig, convert, load
from st_llm2vec.corpus import open_corpus
from st_llm2vec.corpus.corpus import judge
from st_llm2vec.data import read, read_dataset
from st_llm2vec.recipe.poolings import POOLINGS, PoolingRule

from .conftest import TEXTS, cosine_distance

GUIDE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def block(heading: str) -> str:
    """The code under a heading."""
    section = GUIDE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```\w+\n(.*?)```", section, re.DOTALL)[0]


def test_a_recipe(decoder: str, tmp_path: Path) -> None:
    [fields] = yaml.safe_load(block("Adding a recipe"))
    encoder = convert(decoder, EncoderConfig.from_dict(fields))
    assert encoder.manifest.layout == "message"
    encoder.save(str(tmp_path / "saved"))
    vectors = SentenceTransformer(str(tmp_path / "saved")).encode(TEXTS)
    assert cosine_distance(vectors, encoder.encode(TEXTS)) < 1e-6


def test_a_pooling(decoder: str, tmp_path: Path) -> None:
    known = dict(POOLINGS)
    try:
        exec(block("Adding a pooling"), {"POOLINGS": POOLINGS, "PoolingRule": PoolingRule})
        [name] = set(POOLINGS) - set(known)
        encoder = convert(decoder, "echo", pooling=name)
        assert encoder.manifest.layout == "custom"
        text = TEXTS[0]
        features = encoder.preprocess([text])
        first = features["pooling_mask"][0].argmax()
        states = encoder.transformer.model(input_ids=features["input_ids"]).last_hidden_state[0]
        assert cosine_distance(encoder.encode([text]), states[first][None].detach().numpy()) < 1e-6
        encoder.save(str(tmp_path / "saved"))
        assert cosine_distance(load(tmp_path / "saved").encode(TEXTS), encoder.encode(TEXTS)) < 1e-6
    finally:
        POOLINGS.clear()
        POOLINGS.update(known)


def test_a_loss(decoder: str, tmp_path: Path) -> None:
    names: dict[str, Any] = {
        "nn": nn, "torch": torch, "Tensor": Tensor, "Iterable": Iterable, "SentenceTransformer": SentenceTransformer,
    }  # fmt: skip
    exec(block("Adding a loss"), names)
    encoder = convert(decoder, "llm2vec", dtype=torch.float32)
    before = encoder.encode(TEXTS[:2])
    SentenceTransformerTrainer(
        model=encoder,
        args=SentenceTransformerTrainingArguments(
            str(tmp_path), max_steps=2, learning_rate=1e-3, report_to="none", use_cpu=True, disable_tqdm=True
        ),
        train_dataset=Dataset.from_dict({"first": TEXTS[:2], "second": TEXTS[2:4]}),
        loss=names["PairDistanceLoss"](encoder),
    ).train()
    assert cosine_distance(before, encoder.encode(TEXTS[:2])) > 1e-6


def test_a_file_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "FORMATS", dict(read.FORMATS))
    exec(block("Adding a file format"), {"FORMATS": read.FORMATS})
    file = tmp_path / "a.log"
    file.write_text("one\ntwo\n")
    assert read_dataset(file)[:] == {"text": ["one", "two"]}
    assert [row.value for row in open_corpus([file]).rows(0, 2)] == ["one", "two"]
    file.write_bytes(b"one\ntw\xff\n")
    assert [judge(row, 10) for row in open_corpus([file]).rows(0, 2)] == [None, "not text: it is not valid Unicode"]
