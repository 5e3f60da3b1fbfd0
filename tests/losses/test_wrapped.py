"""The host's losses that wrap another one: shorter vectors, earlier layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sentence_transformers.base.losses import column_merging_disabled
from sentence_transformers.sentence_transformer.losses import AdaptiveLayerLoss, Matryoshka2dLoss, MatryoshkaLoss

from st_llm2vec import TextEncoder
from st_llm2vec.losses import CachedHardNegativesRankingLoss, HardNegativesRankingLoss, MNTPLoss, SimCSELoss
from st_llm2vec.packed.enable import disable_padding_free, padding_free

from .test_padding_free import assert_equal, backward, make, without_dropout

Wrap = Callable[[TextEncoder, Any], Any]
WRAPPED: dict[str, Wrap] = {
    "adaptive": lambda encoder, loss: AdaptiveLayerLoss(encoder, loss, n_layers_per_step=-1),
    "2d": lambda encoder, loss: Matryoshka2dLoss(encoder, loss, [32, 8], n_layers_per_step=-1, n_dims_per_step=-1),
    "matryoshka": lambda encoder, loss: MatryoshkaLoss(encoder, loss, [32, 8]),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize(("build", "columns"), [(HardNegativesRankingLoss, 3), (without_dropout, 1)])
def test_without_padding_as_with_it(wrap: Wrap, build: Callable[[TextEncoder], Any], columns: int) -> None:
    encoder = make("llama", "llm2vec")
    loss = wrap(encoder, build(encoder))
    encoder.train()
    assert padding_free(encoder.transformer)
    packed = backward(encoder, loss, columns)
    disable_padding_free(encoder.transformer)
    assert_equal(packed, backward(encoder, loss, columns))


def test_earlier_layers_are_those_of_either_pass() -> None:
    encoder = make("llama", "llm2vec")
    loss = AdaptiveLayerLoss(encoder, SimCSELoss(encoder, attention_dropout=0.3), n_layers_per_step=-1)
    encoder.train()
    seen: list[torch.Tensor] = []
    compute = loss.loss.loss.compute_loss_from_embeddings
    loss.loss.loss.compute_loss_from_embeddings = lambda pair, labels: seen.append(pair) or compute(pair, labels)
    backward(encoder, loss, 1)
    layers = len(encoder.transformer.model.layers)
    assert len(seen) == layers + 1
    differ = [not torch.equal(*pair) for pair in seen]
    assert differ == [True, False, *[True] * (layers - 1)], "only the embeddings, before any dropout, are equal"


def test_shorter_vectors_in_mini_batches() -> None:
    found = []
    for mini_batch_size in (None, 2):
        encoder = make("llama", "llm2vec")
        loss = SimCSELoss(encoder, attention_dropout=0.1, mini_batch_size=mini_batch_size)
        loss.dropout._rates = dict.fromkeys(loss.dropout._rates, 0.0)
        wrapped = MatryoshkaLoss(encoder, loss, [32, 8])
        encoder.train()
        with column_merging_disabled():
            found.append(backward(encoder, wrapped, 1))
    assert_equal(*found)


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_tokens_are_no_vectors(wrap: Wrap) -> None:
    encoder = make("llama", "llm2vec")
    with pytest.raises(ValueError, match="MNTPLoss predicts tokens and has no vectors"):
        wrap(encoder, MNTPLoss(encoder, mask_token="eos"))


@pytest.mark.filterwarnings("ignore:AdaptiveLayerLoss is not compatible")
def test_mini_batches_have_no_earlier_layers() -> None:
    encoder = make("llama", "llm2vec")
    for loss in (CachedHardNegativesRankingLoss(encoder), SimCSELoss(encoder, mini_batch_size=2)):
        columns = 1 if isinstance(loss, SimCSELoss) else 3
        with pytest.raises(ValueError, match=f"{type(loss).__name__} passes its texts anew in the backward pass"):
            backward(encoder, AdaptiveLayerLoss(encoder, loss), columns)
