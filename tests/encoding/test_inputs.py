"""Blocks of token ids and texts with instructions of their own, through ``preprocess``."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch

from st_llm2vec import TextEncoder, convert

from ..conftest import INSTRUCTION, TEXTS, cosine_distance

SMALL = {"num_latents": 4, "num_heads": 2}
LAYOUTS = {"llm2vec": "text", "e5-mistral": "message", "echo": "custom", "nv-embed": "custom"}


@lru_cache
def encoder_of(decoder: str, recipe: str, **changes: Any) -> TextEncoder:
    """An encoder that tests share, since none of them changes it."""
    if recipe == "nv-embed":
        changes["latent_attention"] = SMALL
    encoder = convert(decoder, recipe, **changes)
    assert encoder.layout == LAYOUTS[recipe]
    return encoder


def vectors(encoder: TextEncoder, features: dict[str, Any]) -> np.ndarray:
    encoder.eval()
    with torch.no_grad():
        return encoder(dict(features))["sentence_embedding"].numpy()


def instructed(*pairs: tuple[str, str | None]) -> list[dict[str, str | None]]:
    return [{"text": text, "instruction": instruction} for text, instruction in pairs]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("recipe", LAYOUTS)
def test_blocks_are_padded_at_the_tokenizers_side(decoder: str, recipe: str, side: str) -> None:
    encoder = encoder_of(decoder, recipe, padding_side=side)
    blocks = [[5, 6, 7, 8], [9, 10]]
    features = encoder.preprocess(blocks)
    where = [slice(0, 2), slice(2, 4)] if side == "right" else [slice(2, 4), slice(0, 2)]
    assert features["input_ids"][0].tolist() == blocks[0]
    assert features["input_ids"][1, where[0]].tolist() == blocks[1]
    assert features["attention_mask"][1, where[0]].tolist() == [1, 1]
    assert features["attention_mask"][1, where[1]].tolist() == [0, 0]
    assert ("pooling_mask" in features) == (encoder.layout == "custom")
    if encoder.layout == "custom":
        assert torch.equal(features["pooling_mask"], features["attention_mask"])


@pytest.mark.parametrize("recipe", LAYOUTS)
def test_a_block_in_a_batch_is_read_as_it_is_alone(decoder: str, recipe: str) -> None:
    encoder = encoder_of(decoder, recipe, padding_side="left")
    blocks = [[1, 20, 30, 40, 50], [1, 60, 70]]
    together = vectors(encoder, encoder.preprocess(blocks))
    alone = np.concatenate([vectors(encoder, encoder.preprocess([block])) for block in blocks])
    assert cosine_distance(together, alone) < 1e-6


def test_a_block_of_a_text_is_read_as_the_text(decoder: str) -> None:
    encoder = encoder_of(decoder, "llm2vec", padding_side="left")
    blocks = encoder.tokenizer(TEXTS)["input_ids"]
    expected = vectors(encoder, encoder.preprocess(TEXTS))
    assert cosine_distance(vectors(encoder, encoder.preprocess(blocks)), expected) < 1e-6


def test_left_padded_blocks_have_positions_where_the_model_takes_them(tiny: Any) -> None:
    encoder = convert(tiny("gpt2"), "llm2vec", attention="causal", padding_side="right")
    encoder.tokenizer.padding_side = "left"
    features = encoder.preprocess([[5, 6, 7], [8]])
    assert features["position_ids"].tolist() == [[0, 1, 2], [0, 0, 0]]
    assert "position_ids" not in encoder.preprocess([[5, 6, 7], [8, 9, 10]])


@pytest.mark.parametrize(
    ("blocks", "options", "message"),
    [
        ([[5] * 9], {}, "has 9 tokens and the encoder reads 8 at most. Pack with block_size=8"),
        ([[5] * 4], {"max_length": 3}, "reads 3 at most"),
        ([[5], []], {}, "Row 1 of the batch is a block without any token"),
        ([[5], "a cat"], {}, "Row 1 of the batch is 'a cat'; the first row is a block"),
        ([[5], [5, None]], {}, "Row 1 of the batch is"),
        ([[5, 99999]], {}, "token ids 5 to 99999; the encoder's tokenizer has 0 to"),
        ([[-1]], {}, "token ids -1"),
        ([[5]], {"prompt": "Find:"}, "take no instruction"),
    ],
)
def test_blocks_that_cannot_be_read(decoder: str, blocks: Any, options: dict[str, Any], message: str) -> None:
    encoder = encoder_of(decoder, "llm2vec", max_length=8)
    with pytest.raises(ValueError, match=message):
        encoder.preprocess(blocks, **options)


@pytest.mark.parametrize("instruction", [None, "", INSTRUCTION, f" {INSTRUCTION} "])
@pytest.mark.parametrize("recipe", LAYOUTS)
def test_one_instruction_for_all_is_the_prompt(decoder: str, recipe: str, instruction: str | None) -> None:
    encoder = encoder_of(decoder, recipe, padding_side="left")
    found = encoder.preprocess(instructed(*((text, instruction) for text in TEXTS)))
    expected = encoder.preprocess(TEXTS, prompt=(instruction or "").strip() or None)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value) if isinstance(value, torch.Tensor) else found[name] == value, name


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("recipe", ["echo", "nv-embed"])
def test_an_instruction_for_each_row_is_exact(decoder: str, recipe: str, side: str) -> None:
    encoder = encoder_of(decoder, recipe, padding_side=side)
    instructions = [None, INSTRUCTION, "Name it:", "", "Find the opposite of the sentence"]
    found = vectors(encoder, encoder.preprocess(instructed(*zip(TEXTS, instructions, strict=True))))
    alone = [encoder.encode(text, prompt=instruction) for text, instruction in zip(TEXTS, instructions, strict=True)]
    assert cosine_distance(found, np.stack(alone)) < 1e-6
    assert cosine_distance(found[1:2], encoder.encode(TEXTS[1:2])) > 1e-3
    encoded = encoder.encode(instructed(*zip(TEXTS, instructions, strict=True)))
    assert cosine_distance(encoded, np.stack(alone)) < 1e-6


@pytest.mark.parametrize("recipe", ["llm2vec", "e5-mistral"])
def test_stock_modules_take_one_instruction_for_a_batch(decoder: str, recipe: str) -> None:
    encoder = encoder_of(decoder, recipe, padding_side="left")
    with pytest.raises(ValueError, match="'Name it:' and ''.*one dataset for each instruction"):
        encoder.preprocess(instructed(("a cat", "Name it:"), ("the sea", None)))


@pytest.mark.parametrize(
    ("rows", "prompt", "message"),
    [
        (instructed(("a cat", "Name it:")), "Find:", "have instructions of their own"),
        ([*instructed(("a cat", "Name it:")), "the sea"], None, "Row 1 of the batch is 'the sea'"),
        ([{"text": None, "instruction": "Name it:"}], None, "Row 0 of the batch"),
        ([{"text": "a cat", "instruction": 3}], None, "Row 0 of the batch"),
        (
            instructed(("a cat", "Name it:"), ("\ud83d", "Name it:")),
            None,
            "The text of row 1 holds '.ud83d' at character 0",
        ),
        (instructed(("a cat", "Name\udc00 it:")), None, "The instruction of row 0 holds '.udc00' at character 4"),
        (["a cat"], "Find \ud83d:", "prompt .* holds '.ud83d' at character 5"),
    ],
)
def test_instructed_texts_that_cannot_be_read(decoder: str, rows: Any, prompt: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoder_of(decoder, "nv-embed", padding_side="left").preprocess(rows, prompt=prompt)
