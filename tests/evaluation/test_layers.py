from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from st_llm2vec import CausalAttentionError, TextEncoder, convert
from st_llm2vec.evaluation.layers import attending, causal_similarity, layer_quality, layer_states, similarity
from st_llm2vec.evaluation.sentence_score import sentence_groups, sentence_score
from st_llm2vec.modules.attention import configured_attention, probe_attention
from st_llm2vec.packed.enable import padding_free
from tests.stand_ins import stand_in
from tests.tiny_decoders import tiny_decoder
from tests.tiny_tokenizers import tiny_tokenizer

from ..conftest import TEXTS, cosine_distance
from .test_words import plain, stock


@pytest.fixture(scope="module")
def encoder(decoder: str) -> TextEncoder:
    return convert(decoder, "llm2vec", device="cpu", dtype=torch.float32)


def test_states_are_those_of_each_text_alone(encoder: TextEncoder) -> None:
    model = encoder[0].model.eval()
    for text, found in zip(TEXTS, layer_states(encoder, TEXTS), strict=True):
        ids = encoder.tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            expected = model(ids, output_hidden_states=True).hidden_states
        assert found.layers.shape == (len(expected), ids.shape[1], 192)
        assert np.allclose(found.layers, torch.cat(expected).numpy(), atol=1e-4)
        assert found.tokens == encoder.tokenizer.convert_ids_to_tokens(ids[0])
        assert not found.own[0] and found.own[1:].all()


def test_a_text_longer_than_the_context_is_cut(tiny: Callable[..., str]) -> None:
    encoder = stock(tiny("llama"))
    encoder.max_seq_length = 6
    assert [len(one.tokens) for one in layer_states(encoder, [TEXTS[2]])] == [6]
    with pytest.raises(ValueError, match=r"Text 1 \(the first is 0\) is empty"):
        next(layer_states(encoder, ["a", " "]))


@pytest.mark.parametrize("recipe", ["llm2vec", "sgpt"])
def test_attention_is_switched_and_put_back(recipe: str, decoder: str) -> None:
    encoder = convert(decoder, recipe, device="cpu")
    model, before = encoder[0].model, encoder.encode(TEXTS)
    settings = dict(model.config.__dict__)
    for attention in ("causal", "bidirectional"):
        with attending(model, attention):
            assert configured_attention(model) == attention == probe_attention(model).kind
    assert dict(model.config.__dict__) == settings
    assert padding_free(encoder[0]) and cosine_distance(encoder.encode(TEXTS), before) < 1e-6


@pytest.mark.parametrize("recipe", ["llm2vec", "sgpt"])
def test_gemmas_own_setting_is_put_back(recipe: str, tmp_path: Path) -> None:
    """Servers read it, and a folder that is saved with another one would be served otherwise."""
    encoder = convert(stand_in("gemma", tmp_path / "gemma"), recipe, device="cpu")
    settings = dict(encoder[0].model.config.__dict__)
    for attention in ("causal", "bidirectional"):
        with attending(encoder[0].model, attention):
            assert configured_attention(encoder[0].model) == attention
        assert dict(encoder[0].model.config.__dict__) == settings


def test_flags_of_modules_are_put_back(tiny: Callable[..., str]) -> None:
    model = stock(tiny("stablelm"))[0].model
    flags = [getattr(one, "is_causal", None) for one in model.modules()]
    with attending(model, "bidirectional"):
        assert probe_attention(model).kind == "bidirectional"
    assert [getattr(one, "is_causal", None) for one in model.modules()] == flags
    assert probe_attention(model).kind == "causal"


def test_a_model_that_stays_causal_is_not_compared(tmp_path: Path) -> None:
    encoder = plain(tiny_tokenizer("byte-level+bos"), tmp_path, tiny_decoder("gpt_neo", vocab_size=512))
    with pytest.raises(CausalAttentionError):
        causal_similarity(encoder, TEXTS)


def test_similarity_by_hand(encoder: TextEncoder) -> None:
    model, found = encoder[0].model.eval(), causal_similarity(encoder, TEXTS)
    assert configured_attention(model) == "bidirectional"
    ids = encoder.tokenizer(TEXTS[3], return_tensors="pt")["input_ids"]
    states = []
    for causal in (True, False):
        model.config.is_causal = causal
        with torch.no_grad():
            states.append(torch.cat(model(ids, output_hidden_states=True).hidden_states))
    expected = torch.cosine_similarity(*states, dim=-1)[:, 1:]  # BOS is none of the text's own tokens
    assert np.allclose(found[3].cosines, expected.numpy(), atol=1e-5)
    assert np.allclose(found[3].cosines[0], 1, atol=1e-6) and found[3].cosines[-1].min() < 0.95


def test_models_of_other_tokens_have_no_pairs(encoder: TextEncoder, tiny: Callable[..., str]) -> None:
    first, second = (next(layer_states(one, TEXTS)) for one in (encoder, stock(tiny("llama"))))
    with pytest.raises(ValueError, match="by the same tokens and layers"):
        similarity(first, second)


def test_anisotropy_is_the_mean_cosine_over_tokens_of_different_texts(encoder: TextEncoder) -> None:
    texts = [text for group in sentence_groups() for text in group.values()]
    found, last = layer_quality(encoder), []
    for states in layer_states(encoder, texts):
        own = states.layers[2][states.own]
        last.append(own / np.linalg.norm(own, axis=1, keepdims=True))
    crossed = [(first @ second.T).ravel() for first, second in itertools.combinations(last, 2)]
    assert found.anisotropy[2] == pytest.approx(np.concatenate(crossed).mean(), abs=1e-4)
    assert found.best == int(np.argmax(found.scores)) and len(found.scores) == len(found.anisotropy)


def test_the_last_layers_score_is_that_of_the_encoder(encoder: TextEncoder) -> None:
    """llm2vec pools the mean over the text's own tokens."""
    assert layer_quality(encoder).scores[-1] == pytest.approx(sentence_score(encoder), abs=0.1)
