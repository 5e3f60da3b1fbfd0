"""Encoding by tokens: the same vectors, in the same order, whatever the batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from st_llm2vec import RECIPES, TextEncoder, convert
from st_llm2vec.encoding import batches, inference
from st_llm2vec.encoding.batches import (
    batches_of,
    collate,
    even_batches,
    split_rows,
    token_batches,
    token_budget,
)
from st_llm2vec.packed.enable import disable_padding_free, enable_padding_free, padding_free

from ..conftest import INSTRUCTION, TEXTS, cosine_distance, crossed

FAMILIES = ("llama", "mistral", "qwen3", "gemma", "opt", "gpt2", "phi", "gpt_neox")
EVERY_LAYOUT = {"llm2vec", "sgpt", "e5-mistral", "echo", "reverse-eol", "nv-embed"}
LATENT = {"num_latents": 8, "num_heads": 2, "head_dimension": 16}
MANY = [" ".join(TEXTS[number % 5].split()[: 1 + number % 7]) for number in range(40)]


@pytest.fixture(scope="module")
def encoder(decoder: str) -> TextEncoder:
    return convert(decoder, "llm2vec")


def stock(encoder: TextEncoder, texts: list[str], prompt: str | None = None, batch_size: int = 3) -> np.ndarray:
    """The host's own loop over padded batches, on a copy of the encoder as it would be without this package's."""
    plainly = SentenceTransformer(modules=list(encoder), device="cpu")
    plainly.preprocess = encoder.preprocess  # type: ignore[method-assign]
    return plainly.encode(texts, prompt=prompt, batch_size=batch_size)


@pytest.mark.parametrize(("family", "recipe"), crossed(FAMILIES, RECIPES, ("llm2vec",), set(RECIPES) - EVERY_LAYOUT))
def test_every_recipe_and_family_as_in_padded_batches(tiny: Callable[..., str], family: str, recipe: str) -> None:
    tokenizer = "metaspace+bos" if family in ("llama", "mistral", "gemma") else "byte-level"
    overrides: dict[str, Any] = {"latent_attention": LATENT} if recipe == "nv-embed" else {}
    window = {"sliding_window": 6} if family == "mistral" else {}
    encoder = convert(
        tiny(family, tokenizer, max_position_embeddings=256, **window), recipe, max_length=250, **overrides
    )
    prompt = INSTRUCTION if RECIPES[recipe].instruction_template is not None else None
    for dtype, limit in ((torch.float32, 1e-6), (torch.bfloat16, 1e-3)):
        encoder.to(dtype)
        packed = encoder.encode(TEXTS, prompt=prompt)
        assert padding_free(encoder.transformer)
        disable_padding_free(encoder.transformer)
        padded = stock(encoder, TEXTS, prompt)
        assert cosine_distance(packed, padded) < limit
        assert enable_padding_free(encoder.transformer) is None


def test_order_and_vectors_do_not_depend_on_windows_and_budgets(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = encoder.encode(MANY)
    assert np.allclose(whole, stock(encoder, MANY), atol=1e-5)
    monkeypatch.setattr(inference, "TOKENIZED_AT_ONCE", 3)
    monkeypatch.setattr(inference, "WINDOW", 7)
    monkeypatch.setattr(batches, "CPU_TOKENS", 20)
    assert np.allclose(encoder.encode(MANY), whole, atol=1e-5)


def test_the_hosts_options_hold(encoder: TextEncoder) -> None:
    whole = encoder.encode(MANY)
    assert encoder.encode(MANY, truncate_dim=16).shape == (40, 16)
    short = encoder.encode(MANY, truncate_dim=16, normalize_embeddings=True)
    assert np.allclose(np.linalg.norm(short, axis=1), 1, atol=1e-5)
    assert isinstance(encoder.encode(MANY, convert_to_tensor=True), torch.Tensor)
    assert encoder.encode(MANY, precision="int8").dtype == np.int8
    assert encoder.encode("one text").shape == (whole.shape[1],)
    assert encoder.encode([]).shape == (0,)
    assert [one.shape[1] for one in encoder.encode(MANY[:3], output_value="token_embeddings")] == [whole.shape[1]] * 3
    assert not encoder.encode(MANY[:3], convert_to_tensor=True).requires_grad


def test_progress_counts_texts(encoder: TextEncoder, capsys: pytest.CaptureFixture[str]) -> None:
    encoder.encode(MANY, show_progress_bar=True)
    assert "40/40" in capsys.readouterr().err


def test_an_error_in_tokenisation_reaches_the_caller(encoder: TextEncoder) -> None:
    with pytest.raises(ValueError, match="leave no room"):
        encoder.encode(MANY, prompt="word " * 600)


def test_inputs_that_are_not_texts_go_the_hosts_way(encoder: TextEncoder) -> None:
    ids = [encoder.tokenizer(text)["input_ids"] for text in MANY[:4]]
    assert np.allclose(encoder.encode(ids), encoder.encode(MANY[:4]), atol=1e-5)


def test_batches_hold_no_more_tokens_than_the_budget(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "CPU_TOKENS", 32)
    shapes = []
    handle = encoder.transformer.register_forward_pre_hook(
        lambda _, args: shapes.append(tuple(args[0]["input_ids"].shape)), prepend=True
    )
    try:
        encoder.encode(MANY)
    finally:
        handle.remove()
    assert max(texts * tokens for texts, tokens in shapes) <= 2 * 32
    assert any(texts > 3 for texts, _ in shapes)
    assert len(shapes) > 5


def test_token_batches() -> None:
    lengths = [3, 9, 4, 2, 4, 1]
    groups = list(token_batches(lengths, 8))
    assert sorted(sum(groups, [])) == list(range(6))
    assert groups[0] == [1], "a text longer than the budget passes alone"
    assert all(max(lengths[one] for one in group) * len(group) <= 8 for group in groups[1:])
    assert list(token_batches([], 8)) == []


def test_rows_apart_and_together_again(encoder: TextEncoder) -> None:
    encoder.tokenizer.padding_side = "right"
    features = dict(encoder.preprocess(TEXTS))
    for side in ("left", "right"):
        encoder.tokenizer.padding_side = side
        rows, shared = split_rows(encoder.preprocess(TEXTS))
        assert shared["modality"] == "text"
        together = collate(rows, encoder)
        mask = features["attention_mask"].bool()
        assert torch.equal(together["attention_mask"], features["attention_mask"])
        assert torch.equal(together["input_ids"][mask], features["input_ids"][mask])


def test_what_all_texts_share_is_counted_once(decoder: str) -> None:
    texts = ["a cat", "the sea", "old clocks"]
    for recipe, number in (("prompteol-icl", 1), ("llm2vec", 3)):
        encoder = convert(decoder, recipe)
        rows, _ = split_rows(encoder.preprocess(texts))
        groups = [members for members, _ in batches_of([[row] for row in rows], encoder, budget=1, streams=1)]
        assert len(groups) == number
        assert sorted(sum(groups, [])) == [0, 1, 2]


def test_even_batches() -> None:
    lengths = [9, 1, 5, 5, 2, 2, 8, 4]
    groups = list(even_batches(lengths, budget=10, streams=2))
    assert sorted(sum(groups, [])) == list(range(8))
    assert len(groups) == 4, "36 tokens in batches of 10, as many for each of two streams"
    assert max(sum(lengths[one] for one in group) for group in groups) <= 10 + 9
    assert list(even_batches([0, 0], budget=4)) == [[0, 1]], "texts without tokens too"


def test_two_streams_give_the_vectors_of_one(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "CPU_TOKENS", 40)
    one = encoder.encode(MANY)
    monkeypatch.setattr(inference, "streams_on", lambda device: 2)
    assert np.allclose(encoder.encode(MANY), one, atol=1e-5)
    assert encoder.transformer.model.training is False


def test_the_budget_follows_memory_and_batch_size(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert token_budget(encoder, 32, cpu) == batches.CPU_TOKENS
    assert token_budget(encoder, 1, cpu) == min(batches.CPU_TOKENS, encoder.max_seq_length)
    monkeypatch.setattr(batches, "free_memory", lambda _: 4_000_000)
    scarce = token_budget(encoder, 32, cpu)
    assert 1 <= scarce < 1000
    monkeypatch.setattr(batches, "free_memory", lambda _: 0)
    assert token_budget(encoder, 32, cpu) == 1


def test_texts_of_no_token_at_all(tiny: Callable[..., str]) -> None:
    folder = Path(tiny("llama", "byte-level"))
    transformer = Transformer(str(folder))
    plainly = TextEncoder(modules=[transformer, Pooling(64, "mean")], device="cpu")
    assert plainly.encode(["", "a cat"]).shape == (2, 64)


def test_parts_in_training_mode_are_set_to_evaluation(encoder: TextEncoder) -> None:
    """An adapter that is attached to an encoder in evaluation mode comes in training mode, with its dropout."""
    expected = encoder.encode(MANY)
    attention = encoder.transformer.model.layers[0].self_attn
    kept, attention.attention_dropout = attention.attention_dropout, 0.9
    try:
        attention.train()
        assert not encoder.training
        assert np.allclose(encoder.encode(MANY), expected, atol=1e-6)
    finally:
        attention.attention_dropout = kept
