"""An instruction for each text, on real decoders."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from st_llm2vec import convert

from ..conftest import cosine_distance
from .models import real_model

pytestmark = pytest.mark.real

INSTRUCTIONS = ["Find the passage that answers:", "Represent this short text", "", "Answer the Query:", "Name it"]
WORDS = "the old clock in a hall struck seven and cats slept on 12 ships ; naïve 北京 violin maple".split()
DRAWN = random.Random(0)
TEXTS = [" ".join(DRAWN.choices(WORDS, k=1 + number * 7 % 23)) for number in range(4)]
DEALT = DRAWN.choices(INSTRUCTIONS, k=len(TEXTS))
PAIRS = [[instruction, text] for instruction, text in zip(DEALT, TEXTS, strict=True)]


@pytest.mark.parametrize(("name", "recipe"), [("smollm2", "llm2vec"), ("smollm2", "echo"), ("gemma3", "e5-mistral")])
def test_a_list_and_pairs_give_the_vectors_of_single_calls(name: str, recipe: str) -> None:
    encoder = convert(real_model(name), recipe, dtype=torch.float32, measure=False)
    alone = np.stack([encoder.encode(text, prompt=one) for text, one in zip(TEXTS, DEALT, strict=True)])
    assert cosine_distance(encoder.encode(TEXTS), alone) > 1e-2
    assert cosine_distance(encoder.encode(TEXTS, prompt=DEALT), alone) < 1e-6
    assert cosine_distance(encoder.encode(PAIRS), alone) < 1e-6
    encoder.tokenizer.padding_side = "left"
    tokens = encoder.encode(PAIRS, output_value="token_embeddings")
    for pair, found in zip(PAIRS, tokens, strict=True):
        ids = encoder.preprocess([pair])["input_ids"]
        assert len(found) == ids.shape[1]
    encoder.to(torch.bfloat16)
    rounded = np.stack([encoder.encode(text, prompt=one) for text, one in zip(TEXTS, DEALT, strict=True)])
    noise = cosine_distance(rounded, alone)  # of bfloat16 itself, on this decoder
    for found in (encoder.encode(TEXTS, prompt=DEALT), encoder.encode(PAIRS)):
        assert cosine_distance(found, alone) < max(2 * noise, 1e-3)


def test_instructions_stay_with_their_texts_in_several_processes(smollm2: str) -> None:
    encoder = convert(smollm2, "llm2vec", dtype=torch.float32, measure=False)
    pool = encoder.start_multi_process_pool(["cpu"])
    try:
        found = encoder.encode(PAIRS, pool=pool, chunk_size=3)
    finally:
        encoder.stop_multi_process_pool(pool)
    assert cosine_distance(found, encoder.encode(TEXTS, prompt=DEALT)) < 1e-6
