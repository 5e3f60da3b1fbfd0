"""MNTP against a reference from scratch, for tied and untied heads, and through the stock trainer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from st_llm2vec import TextEncoder, convert
from st_llm2vec.architectures import tiny_config
from st_llm2vec.losses import MNTPLoss
from st_llm2vec.tiny_tokenizers import tiny_tokenizer

from ..conftest import TEXTS


def with_head(folder: Path, family: str, **config: object) -> str:
    """Write a tiny decoder with its output head."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(tiny_config(family, vocab_size=512, **config)).save_pretrained(folder)
    tiny_tokenizer("byte-level+bos").save_pretrained(folder)
    return str(folder)


def reference(base: str, encoder: TextEncoder, loss: MNTPLoss, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """All logits first, then the masked ones; returns the loss and the gradient of the embeddings."""
    state = torch.get_rng_state()
    ids, attention = features["input_ids"], features["attention_mask"]
    shown, chosen = loss.masker(ids, attention, loss._generator(ids))
    torch.set_rng_state(state)
    whole = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager")
    body = whole.base_model
    body.config.is_causal = False
    for module in body.modules():
        if hasattr(module, "is_causal"):
            module.is_causal = False
    logits = whole(input_ids=shown, attention_mask=attention).logits
    labels = torch.full_like(ids, -100)
    labels[chosen] = ids[chosen]
    value = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    value.backward()
    return value.detach(), next(body.layers[0].mlp.parameters()).grad


@pytest.mark.parametrize("masking", ["bert", "all_mask"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("chunk_size", [3, 1024])
@pytest.mark.parametrize("side", ["right", "left"])
def test_loss_and_gradient_equal_all_logits_then_selection(
    tmp_path: Path, masking: str, tied: bool, chunk_size: int, side: str
) -> None:
    base = with_head(tmp_path / "base", "llama", tie_word_embeddings=tied)
    encoder = convert(base, "llm2vec", padding_side=side)
    loss = MNTPLoss(encoder, 0.5, masking, mask_token="e", chunk_size=chunk_size)
    features = encoder.preprocess(TEXTS)
    expected, gradient = reference(base, encoder, loss, dict(features))
    found = loss([features], None)
    found.backward()
    torch.testing.assert_close(found.detach(), expected, atol=1e-5, rtol=1e-5)
    found_gradient = next(encoder[0].model.layers[0].mlp.parameters()).grad
    torch.testing.assert_close(found_gradient, gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("recipe", ["llm2vec", "nv-embed", "gritlm", "prompteol"])
def test_every_layout_is_read(decoder: str, recipe: str) -> None:
    encoder = convert(decoder, recipe)
    loss = MNTPLoss(encoder)
    value = loss([encoder.preprocess(TEXTS * 4)], None)
    assert 1 < float(value.detach()) < 20
