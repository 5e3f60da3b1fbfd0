"""SimCSE: dropout on the live layers, for its own passes only."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from sentence_transformers.base.losses import column_merging_disabled
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor

from st_llm2vec import TextEncoder, convert
from st_llm2vec.losses import MNTPLoss, SimCSELoss
from st_llm2vec.training import Adapter, attach_adapter

from ..conftest import TEXTS


def rates(encoder: TextEncoder) -> list[float]:
    return [layer.self_attn.attention_dropout for layer in encoder[0].model.layers]


def test_two_passes_differ_and_each_text_finds_itself(decoder: str) -> None:
    encoder = convert(decoder, "llm2vec")
    loss = SimCSELoss(encoder, attention_dropout=0.3)
    encoder.train()
    features = encoder.preprocess(TEXTS)
    with loss.dropout.on():
        first, second = (encoder(dict(features))["sentence_embedding"] for _ in range(2))
    assert float((first - second).detach().abs().max()) > 1e-3
    torch.manual_seed(7)
    with column_merging_disabled():  # so that both draw the same dropout
        found = loss([dict(features)], None)
    torch.manual_seed(7)
    with loss.dropout.on():
        expected = MultipleNegativesRankingLoss(encoder)([dict(features), dict(features)], None)
    torch.testing.assert_close(found, expected)


def test_the_rate_holds_for_this_loss_only_and_is_restored(decoder: str) -> None:
    encoder = convert(decoder, "llm2vec")
    loss, other = SimCSELoss(encoder, attention_dropout=0.25), MNTPLoss(encoder)
    encoder.train()
    features = encoder.preprocess(TEXTS)
    value = loss([dict(features)], None)
    assert rates(encoder) == [0.25] * len(rates(encoder))  # the backward pass may run the layers again
    value.backward()
    other([dict(features)], None)
    assert rates(encoder) == [0.0] * len(rates(encoder))
    assert encoder[0].model.config.attention_dropout == 0.0


def test_no_dropout_at_all_is_refused(decoder: str) -> None:
    encoder = convert(decoder, "llm2vec")
    for rate in (0.0, None):
        with pytest.raises(ValueError, match="dropout is zero everywhere"):
            SimCSELoss(encoder, attention_dropout=rate)
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        SimCSELoss(encoder, attention_dropout=1.0)
    with pytest.raises(ValueError, match="no hidden dropout that could be set to 0.1"):
        SimCSELoss(encoder, hidden_dropout=0.1)


@pytest.mark.parametrize("family", ["gpt2", "opt", "gpt_neox"])
def test_hidden_dropout_where_the_architecture_has_it(tiny: Callable[..., str], family: str) -> None:
    settings = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0} if family == "gpt2" else {}
    if family == "opt":
        settings = {"dropout": 0.0, "attention_dropout": 0.0}
    if family == "gpt_neox":
        settings = {"hidden_dropout": 0.0, "attention_dropout": 0.0}
    encoder = convert(tiny(family, **settings), "llm2vec")
    SimCSELoss(encoder, attention_dropout=None, hidden_dropout=0.1)
    SimCSELoss(encoder, attention_dropout=0.1)


def test_attention_that_drops_nothing_is_refused(tiny: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match="attention_dropout=0.3 has no effect: the sdpa attention of FalconModel"):
        SimCSELoss(convert(tiny("falcon"), "llm2vec"))


def test_cached_equals_uncached_under_the_same_dropout(decoder: str) -> None:
    gradients: list[Tensor] = []
    for mini_batch_size in (None, len(TEXTS), 2):
        encoder = convert(decoder, "llm2vec")
        encoder.train()
        if mini_batch_size == 2:
            encoder[0].model.gradient_checkpointing_enable({"use_reentrant": False})
        loss = SimCSELoss(encoder, attention_dropout=0.3, mini_batch_size=mini_batch_size)
        torch.manual_seed(3)
        with column_merging_disabled():  # so that both draw the same dropout
            loss([encoder.preprocess(TEXTS)], None).backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in encoder[0].parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)
    assert torch.isfinite(gradients[2]).all() and float(gradients[2].norm()) > 0


def test_checkpointed_layers_drop_the_same_again(decoder: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        encoder = convert(decoder, "llm2vec")
        encoder.train()
        if checkpointing:
            encoder[0].model.gradient_checkpointing_enable({"use_reentrant": False})
        loss = SimCSELoss(encoder, attention_dropout=0.3)
        torch.manual_seed(3)
        with column_merging_disabled():  # so that both draw the same dropout
            loss([encoder.preprocess(TEXTS)], None).backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in encoder[0].parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)


def test_one_column_is_read(decoder: str) -> None:
    encoder = convert(decoder, "llm2vec")
    with pytest.raises(ValueError, match="one column of texts; the dataset gave 2"):
        SimCSELoss(encoder)([encoder.preprocess(TEXTS), encoder.preprocess(TEXTS)], None)


def test_several_losses_share_a_model(decoder: str) -> None:
    encoder = convert(decoder, "llm2vec")
    attach_adapter(encoder, Adapter(r=2, dropout=0.1))
    losses = [SimCSELoss(encoder, attention_dropout=rate) for rate in (0.2, 0.4)]
    encoder.train()
    for loss, rate in zip(losses * 2, (0.2, 0.4) * 2, strict=True):
        seen: list[float] = []
        hook = (
            encoder[0]
            .model.layers[0]
            .register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(rates(encoder)[0]))
        )
        loss([encoder.preprocess(TEXTS)], None).backward()
        hook.remove()
        assert seen == [rate], "both columns pass together"
    encoder.encode(TEXTS)
    assert set(rates(encoder)) == {0.0}
