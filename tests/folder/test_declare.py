"""What a saved folder says to servers, in their spellings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer

from st_llm2vec import convert, load
from st_llm2vec.proof.distance import largest_cosine_distance
from tests.stand_ins import stand_in


def saved(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("recipe", "key"),
    [
        ("mean", "pooling_mode_mean_tokens"),
        ("last-token", "pooling_mode_lasttoken"),
        ("sgpt", "pooling_mode_weightedmean_tokens"),
    ],
)
def test_pooling_is_written_in_both_spellings(decoder: str, tmp_path: Path, recipe: str, key: str) -> None:
    encoder = convert(decoder, recipe, max_length=100)
    encoder.save_pretrained(str(tmp_path))
    place = next(one["path"] for one in saved(tmp_path, "modules.json") if one["type"].endswith(".Pooling"))
    pooling = saved(tmp_path, f"{place}/config.json")
    old = {name: value for name, value in pooling.items() if name.startswith("pooling_mode_")}
    assert {name for name, value in old.items() if value} == {key}
    assert len(old) == 6
    assert saved(tmp_path, "sentence_bert_config.json")["max_seq_length"] == 100
    plain = SentenceTransformer(str(tmp_path), device="cpu")
    assert plain.max_seq_length == 100
    assert largest_cosine_distance(plain.encode(["a cat"]), encoder.encode(["a cat"])) < 1e-6


@pytest.mark.parametrize("recipe", ["llm2vec", "prompteol"])
def test_a_pooling_that_is_more_than_its_name_has_no_old_spelling(decoder: str, tmp_path: Path, recipe: str) -> None:
    """Servers that read the old spelling alone would pool BOS, or leave the template out."""
    convert(decoder, recipe).save_pretrained(str(tmp_path))
    for file in tmp_path.glob("*_Pooling/config.json"):
        assert not [name for name in json.loads(file.read_text()) if name.startswith("pooling_mode_")]


@pytest.mark.parametrize("recipe", ["mean", "last-token"])
def test_gemma_3_says_its_attention_by_its_own_key_and_keeps_its_window(tmp_path: Path, recipe: str) -> None:
    decoder = stand_in("gemma", tmp_path / "decoder", torch.float32, sliding_window=8)
    encoder = convert(decoder, recipe)
    encoder.save_pretrained(str(tmp_path / "saved"))
    bidirectional = recipe == "mean"
    config = saved(tmp_path / "saved", "config.json")
    assert config["use_bidirectional_attention"] is bidirectional
    assert config.get("is_causal", True) is not bidirectional
    texts = ["a cat", "the old clock in the hall struck seven and nobody in the house seemed to notice it at all"]
    plain = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert plain[0].model.config.sliding_window == 8
    for reader in (load(tmp_path / "saved"), plain):
        assert largest_cosine_distance(reader.encode(texts), encoder.encode(texts)) < 1e-6
    plain.save(str(tmp_path / "again"))
    assert saved(tmp_path / "again", "config.json")["sliding_window"] == config["sliding_window"]


def test_an_encoder_of_gemma_3_can_be_converted_once_more(tmp_path: Path) -> None:
    decoder = stand_in("gemma", tmp_path / "decoder", torch.float32)
    convert(decoder, "mean").save_pretrained(str(tmp_path / "saved"))
    again = convert(str(tmp_path / "saved"), "last-token")
    expected = convert(decoder, "last-token").encode(["a cat sat"])
    assert largest_cosine_distance(again.encode(["a cat sat"]), expected) < 1e-6
