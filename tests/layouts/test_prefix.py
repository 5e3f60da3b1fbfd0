"""Encoders that every server can say: prompt and text as one string, all of whose tokens are pooled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from st_llm2vec import EncoderConfig, convert, load
from st_llm2vec.proof.distance import largest_cosine_distance
from st_llm2vec.proof.texts import TEXTS
from st_llm2vec.proof.tolerances import VECTORS
from tests.conftest import but_first
from tests.stand_ins import stand_in

PROMPTS = {"query": "Find the passage that answers:"}
SERVABLE = ("mean", "last-token")
ODD = [text for text in TEXTS if len(text) < 60] + ["  two blanks", "\nnew line"]


@pytest.mark.parametrize("kind", but_first(["gemma", "smollm2", "qwen2", "llama"], fast=2))
@pytest.mark.parametrize("recipe", SERVABLE)
def test_a_servable_encoder_is_prompt_and_text_in_every_door(kind: str, recipe: str, tmp_path: Path) -> None:
    decoder = stand_in(kind, tmp_path / "decoder", torch.float32)
    encoder = convert(decoder, recipe, prompts=PROMPTS)
    encoder.save_pretrained(str(tmp_path / "saved"))
    loaded, plain = load(tmp_path / "saved"), SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert [type(module).__name__ for module in plain] == ["Transformer", "Pooling", "Normalize"]
    assert type(plain.tokenizer) is type(AutoTokenizer.from_pretrained(decoder)), "the tokenizer is the decoder's own"
    joined = [f"{PROMPTS['query']} {text}" for text in ODD]
    tokens = plain.tokenizer(joined, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = plain[0].model(**tokens).last_hidden_state
    mask = tokens["attention_mask"]
    last = states[torch.arange(len(ODD)), mask.sum(1) - 1]
    mean = (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
    expected = (last if recipe == "last-token" else mean).numpy()
    for reader in (encoder, loaded, plain):
        assert largest_cosine_distance(reader.encode_query(ODD), expected) < VECTORS.full
        assert largest_cosine_distance(reader.encode(joined), expected) < VECTORS.full
        assert largest_cosine_distance(reader.encode_document(ODD), encoder.encode(ODD)) < VECTORS.full


@pytest.mark.parametrize("given", ["Find it:", "Find it: ", "  Find it:\n"])
def test_an_instruction_ends_in_one_blank_however_it_is_given(decoder: str, given: str) -> None:
    encoder = convert(decoder, "mean")
    expected = encoder.encode("Find it:  a cat")
    assert largest_cosine_distance(encoder.encode(" a cat", prompt=given), expected) < VECTORS.full
    assert largest_cosine_distance(encoder.encode([[given, " a cat"]])[0], expected) < VECTORS.full
    assert convert(decoder, "mean", prompts={"query": given}).prompts["query"] == "Find it: "


def test_prompts_that_are_given_later_are_saved_with_their_blank(decoder: str, tmp_path: Path) -> None:
    encoder = convert(decoder, "mean")
    encoder.prompts["query"] = "Find it:"
    encoder.save_pretrained(str(tmp_path / "saved"))
    saved = json.loads((tmp_path / "saved" / "config_sentence_transformers.json").read_text())
    assert saved["prompts"]["query"] == "Find it: "
    plain = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert largest_cosine_distance(plain.encode_query(["a cat"]), encoder.encode_query(["a cat"])) < VECTORS.full


def test_what_servers_cannot_say_is_not_said_so(decoder: str) -> None:
    assert convert(decoder, "mean", normalize=False).layout == "custom", "older readers would run it causally"
    assert convert(decoder, EncoderConfig(instruction_template="{bos}{instruction} {text}")).layout == "text"
