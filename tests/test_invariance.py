"""A text has one vector: alone or in any batch, left or right padded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from st_llm2vec import RECIPES, convert
from st_llm2vec.packed.enable import disable_padding_free, enable_padding_free

from .conftest import INSTRUCTION, TEXTS, SameVectors, cosine_distance, crossed
from .promises import Promise

FAMILIES = ("llama", "mistral", "qwen3", "gemma", "opt", "gpt2", "phi", "gpt_neox")
LATENT = {"num_latents": 8, "num_heads": 2, "head_dimension": 16}


@pytest.mark.promise(Promise.ONE_VECTOR)
@pytest.mark.parametrize(("family", "recipe"), crossed(FAMILIES, RECIPES, ("llm2vec",)))
def test_alone_and_in_any_batch(tiny: Callable[..., str], family: str, recipe: str, same_vectors: SameVectors) -> None:
    tokenizer = "metaspace+bos" if family in ("llama", "mistral", "gemma") else "byte-level"
    overrides = {"latent_attention": LATENT} if recipe == "nv-embed" else {}
    folder = tiny(family, tokenizer, max_position_embeddings=256)
    encoder = convert(folder, recipe, max_length=250, **overrides)
    instructed = RECIPES[recipe].instruction_template is not None
    for prompt in (None, INSTRUCTION) if instructed else (None,):
        alone = np.stack([encoder.encode(text, prompt=prompt) for text in TEXTS])
        assert np.isfinite(alone).all()
        for side in ("left", "right"):
            encoder.tokenizer.padding_side = side
            together = encoder.encode(TEXTS, prompt=prompt, batch_size=len(TEXTS))
            backwards = encoder.encode(TEXTS[::-1], prompt=prompt, batch_size=3)[::-1]
            same_vectors(alone, together)
            same_vectors(alone, backwards)
        disable_padding_free(encoder.transformer)
        for side in ("left", "right"):  # by the modules themselves, since `encode` always pads on the right
            encoder.tokenizer.padding_side = side
            with torch.no_grad():
                padded = encoder(encoder.preprocess(TEXTS, prompt=prompt))["sentence_embedding"]
            same_vectors(alone, padded.numpy())
        enable_padding_free(encoder.transformer)
    assert cosine_distance(alone[:1], alone[1:2]) > 1e-6, "different texts must not share a vector"
