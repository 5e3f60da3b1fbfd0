"""Accuracy and perplexity of masked tokens."""

from __future__ import annotations

import math

import pytest
import torch

from st_llm2vec import convert
from st_llm2vec.evaluation import MNTPEvaluator
from st_llm2vec.losses import MNTPLoss

from ..conftest import TEXTS


def test_metrics_equal_the_loss_and_do_not_change_from_call_to_call(decoder: str) -> None:
    encoder = convert(decoder, "llm2vec")
    loss = MNTPLoss(encoder, 0.5, chunk_size=3)
    evaluator = MNTPEvaluator(loss, TEXTS, batch_size=len(TEXTS))
    state = torch.get_rng_state()
    metrics = evaluator(encoder)
    assert torch.equal(state, torch.get_rng_state())
    with torch.no_grad():
        expected = float(loss([encoder.preprocess(TEXTS)], None))
    assert metrics["mntp_perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)
    assert 0 <= metrics["mntp_accuracy"] <= 1
    assert evaluator(encoder) == metrics


def test_accuracy_is_one_where_the_head_always_knows(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = convert(decoder, "llm2vec")
    loss = MNTPLoss(encoder, 0.5, "all_mask")
    evaluator = MNTPEvaluator(loss, TEXTS)
    found = loss.masked_states

    def told(features: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        states, targets, rest = found(features)
        return torch.nn.functional.one_hot(targets, 8192).float(), targets, rest

    monkeypatch.setattr(loss, "masked_states", told)
    monkeypatch.setattr(loss, "logits", lambda states: states)
    assert evaluator(encoder)["mntp_accuracy"] == 1.0


def test_nothing_to_evaluate(decoder: str) -> None:
    encoder = convert(decoder, "llm2vec")
    loss = MNTPLoss(encoder)
    with pytest.raises(ValueError, match="no texts to evaluate"):
        MNTPEvaluator(loss, [])
    with pytest.raises(ValueError, match="No token"):
        MNTPEvaluator(loss, [""])(encoder)
