"""Losses and their gradients, with padding and without: the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from torch import Tensor

from st_llm2vec import TextEncoder, convert
from st_llm2vec.losses import (
    CachedHardNegativesRankingLoss,
    HardNegativesRankingLoss,
    MNTPLoss,
    OnePassCoSENTLoss,
    SimCSELoss,
    SimilarityDistillationLoss,
)
from st_llm2vec.packed.enable import disable_padding_free, padding_free
from st_llm2vec.training.adapters import Adapter, attach_adapter
from tests.tiny_decoders import tiny_decoder
from tests.tiny_tokenizers import tiny_tokenizer

from ..conftest import TEXTS, crossed
from ..promises import Promise

COLUMNS = (TEXTS, TEXTS[::-1], ["one " * n for n in (1, 9, 3, 14, 2)])


def without_dropout(encoder: TextEncoder) -> SimCSELoss:
    loss = SimCSELoss(encoder, attention_dropout=0.1)
    loss.dropout._rates = dict.fromkeys(loss.dropout._rates, 0.0)
    return loss


LOSSES: dict[str, tuple[Callable[[TextEncoder], Any], int]] = {
    "MNTP": (lambda encoder: MNTPLoss(encoder, mlm_probability=0.5, mask_token="eos"), 1),
    "SimCSE": (without_dropout, 1),
    "distillation": (lambda encoder: SimilarityDistillationLoss(encoder), 2),
    "distillation, softmax": (lambda encoder: SimilarityDistillationLoss(encoder, temperature=0.1), 2),
    "scores": (lambda encoder: OnePassCoSENTLoss(encoder), 2),
    "ranking": (lambda encoder: HardNegativesRankingLoss(encoder), 3),
    "two-stage": (lambda encoder: HardNegativesRankingLoss(encoder, in_batch_negatives=False), 3),
    "cached": (lambda encoder: CachedHardNegativesRankingLoss(encoder, mini_batch_size=2), 3),
    "stock": (lambda encoder: MultipleNegativesRankingLoss(encoder), 3),
    "stock cached": (lambda encoder: CachedMultipleNegativesRankingLoss(encoder, mini_batch_size=2), 3),
}


def make(family: str, recipe: str) -> TextEncoder:
    torch.manual_seed(0)
    model = tiny_decoder(family, vocab_size=512, max_position_embeddings=128, tie_word_embeddings=True)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.08 if parameter.ndim > 1 else 1.0)
    encoder = convert(model, recipe, tokenizer=tiny_tokenizer("byte-level+bos"), max_length=100)
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return encoder


def backward(encoder: TextEncoder, loss: Any, columns: int) -> tuple[float, dict[str, Tensor]]:
    encoder.zero_grad()
    torch.manual_seed(1)
    labels = {
        SimilarityDistillationLoss: torch.randn(len(TEXTS), columns, 7),
        OnePassCoSENTLoss: torch.rand(len(TEXTS)),
    }
    value = loss([dict(encoder.preprocess(texts)) for texts in COLUMNS[:columns]], labels.get(type(loss)))
    value.backward()
    return float(value.detach()), {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}


def assert_equal(one: tuple[float, dict[str, Tensor]], other: tuple[float, dict[str, Tensor]]) -> None:
    assert one[0] == pytest.approx(other[0], abs=1e-5, rel=1e-5)
    assert set(one[1]) == set(other[1])
    largest = max(float(gradient.abs().max()) for gradient in other[1].values())
    assert largest > 0
    for name, gradient in other[1].items():
        assert torch.allclose(one[1][name], gradient, atol=1e-5 * max(1.0, largest)), name


@pytest.mark.promise(Promise.HOST_TRAINS)
@pytest.mark.parametrize(
    ("model", "name"),
    crossed([("llama", "llm2vec"), ("gpt2", "sgpt"), ("qwen3", "echo")], LOSSES, ("MNTP", "scores", "ranking")),
)
def test_a_loss_without_padding_is_the_loss_with_it(model: tuple[str, str], name: str) -> None:
    encoder = make(*model)
    build, columns = LOSSES[name]
    loss = build(encoder)
    encoder.train()
    assert padding_free(encoder.transformer)
    packed = backward(encoder, loss, columns)
    disable_padding_free(encoder.transformer)
    assert_equal(packed, backward(encoder, loss, columns))


@pytest.mark.promise(Promise.HOST_TRAINS)
@pytest.mark.parametrize("name", ("MNTP", "SimCSE", "distillation", "ranking", "cached"))
def test_with_an_adapter_and_checkpointed_layers(name: str) -> None:
    encoder = make("llama", "llm2vec")
    attach_adapter(encoder, Adapter(r=2, dropout=0.0))
    for parameter in encoder.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.05)
    build, columns = LOSSES[name]
    loss = build(encoder)
    encoder.train()
    packed = backward(encoder, loss, columns)
    encoder.transformer.model.gradient_checkpointing_enable({"use_reentrant": False})
    checkpointed = backward(encoder, loss, columns)
    disable_padding_free(encoder.transformer)
    padded = backward(encoder, loss, columns)
    assert all("lora" in parameter for parameter in packed[1])
    assert_equal(packed, padded)
    assert_equal(checkpointed, padded)


@pytest.mark.promise(Promise.HOST_TRAINS)
@pytest.mark.parametrize("name", ["ranking", "scores"])
def test_all_columns_pass_together_without_padding_only(name: str) -> None:
    encoder = make("llama", "llm2vec")
    build, columns = LOSSES[name]
    loss = build(encoder)
    passes: list[int] = []
    encoder.transformer.register_forward_pre_hook(lambda *_: passes.append(1))
    backward(encoder, loss, columns)
    assert len(passes) == 1
    disable_padding_free(encoder.transformer)
    passes.clear()
    backward(encoder, loss, columns)
    assert len(passes) == 2, "the host passes queries apart from documents, which padding would make as long"
