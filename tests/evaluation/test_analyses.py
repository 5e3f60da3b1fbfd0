from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from st_llm2vec import convert
from st_llm2vec.evaluation.analyses import analyse, similarity_to_causal
from st_llm2vec.evaluation.future_tokens import built_in_triples
from st_llm2vec.modules.attention import configured_attention
from tests.tiny_decoders import tiny_decoder
from tests.tiny_tokenizers import tiny_tokenizer

from .test_words import plain, stock


def test_both_kinds_of_attention(decoder: str) -> None:
    encoder = convert(decoder, "llm2vec", device="cpu", dtype=torch.float32)
    found = analyse(encoder, built_in_triples()[:6])
    assert configured_attention(encoder[0].model) == "bidirectional"
    assert found.future["causal"].tied == 6 and found.future["bidirectional"].tied == 0
    assert found.similarity[0] == pytest.approx(1, abs=1e-5) == found.above_chance[0]
    assert 0 < found.above_chance[-1] < found.similarity[-1] < 1
    longer = analyse(encoder, built_in_triples()[:2], [one.query for one in built_in_triples()[:4]])
    assert longer.similarity != found.similarity and longer.quality == found.quality
    data = json.loads(json.dumps(found.to_dict()))
    assert data["quality"]["causal"]["best"] == found.quality["causal"].best
    assert len(data["similarity"]) == len(data["quality"]["causal"]["scores"]) == 3


def test_a_decoder_that_cannot_see_the_future_is_described_by_what_it_can(tmp_path: Path) -> None:
    encoder = plain(tiny_tokenizer("byte-level+bos"), tmp_path, tiny_decoder("gpt_neo", vocab_size=512))
    found = analyse(encoder, built_in_triples()[:2])
    assert set(found.future) == set(found.quality) == {"causal"} and found.similarity == []
    assert "is meant to attend in both directions" in found.refusals["bidirectional"]


def test_similarity_to_the_causal_model(tiny: Callable[..., str]) -> None:
    before, after = stock(tiny("llama")), stock(tiny("llama"))
    assert min(similarity_to_causal(after, before)) == pytest.approx(1, abs=1e-5)
    with torch.no_grad():
        for parameter in after[0].model.layers[1].parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    changed = similarity_to_causal(after, before)
    assert changed[0] == changed[1] == pytest.approx(1, abs=1e-5) and changed[-1] < 0.99
