"""In-batch negatives on, off and by row, cached and not, against the stock loss and a plain loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor, nn

from st_llm2vec import TextEncoder, convert
from st_llm2vec.losses import CachedHardNegativesRankingLoss, HardNegativesRankingLoss
from tests.conftest import but_first

QUERIES = ["a cat", "the sea at night", "how is a violin made", "12 ships"]
POSITIVES = ["cats purr", "waves roll in the dark", "it is carved from spruce and maple", "a fleet left the harbour"]
NEGATIVES = [
    ["dogs bark", "sand", "a drum is stretched", "a road"],
    ["birds sing loudly", "the desert by day", "trumpets are cast", "12 horses"],
]
PROMPT = "Find the passage:"


@pytest.fixture(params=["right", "left"])
def encoder(decoder: str, request: pytest.FixtureRequest) -> TextEncoder:
    return convert(decoder, "llm2vec", padding_side=request.param)


def columns(encoder: TextEncoder, prompt: str | None = PROMPT) -> list[dict[str, Tensor]]:
    queries = encoder.preprocess(QUERIES, prompt=prompt)
    return [queries, *(encoder.preprocess(texts) for texts in [POSITIVES, *NEGATIVES])]


def gradient(encoder: TextEncoder, value: Tensor) -> Tensor:
    encoder.zero_grad()
    value.backward()
    return torch.cat([weight.grad.flatten() for weight in encoder.parameters() if weight.grad is not None])


def plain_loop(encoder: TextEncoder, in_batch: list[int]) -> Tensor:
    query, positive, *negatives = (encoder(features)["sentence_embedding"] for features in columns(encoder))
    losses = []
    for row, on in enumerate(in_batch):
        others = [at for at in range(len(in_batch)) if at != row]
        candidates = [positive[row], *(column[row] for column in negatives)]
        candidates += [column[at] for column in (positive, *negatives) for at in others] if on else []
        scores = torch.stack([50 * torch.cosine_similarity(query[row], one, dim=0) for one in candidates])
        losses.append(-scores.log_softmax(0)[0])
    return torch.stack(losses).mean()


def assert_same(encoder: TextEncoder, first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first.detach(), second.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient(encoder, first), gradient(encoder, second), atol=1e-5, rtol=1e-4)


MAKE: dict[str, Callable[..., nn.Module]] = {
    "whole": HardNegativesRankingLoss,
    "cached": lambda model, **options: CachedHardNegativesRankingLoss(model, mini_batch_size=3, **options),
}


@pytest.mark.parametrize("kind", but_first(MAKE, fast=2))
def test_on_equals_the_stock_loss(encoder: TextEncoder, kind: str) -> None:
    loss = MAKE[kind](encoder, in_batch_negatives=True)
    stock = MultipleNegativesRankingLoss(encoder, scale=50)
    assert_same(encoder, loss(columns(encoder), None), stock(columns(encoder), None))


@pytest.mark.parametrize("kind", but_first(MAKE))
@pytest.mark.parametrize(
    ("setting", "rows"), [(False, [0, 0, 0, 0]), ("per_row", [1, 0, 0, 1]), ("per_row", [0, 0, 0, 0])]
)
def test_off_and_by_row_equal_a_plain_loop(encoder: TextEncoder, kind: str, setting: Any, rows: list[int]) -> None:
    loss = MAKE[kind](encoder, in_batch_negatives=setting)
    labels = torch.tensor(rows) if setting == "per_row" else None
    assert_same(encoder, loss(columns(encoder), labels), plain_loop(encoder, rows))


def test_off_ignores_other_rows(encoder: TextEncoder) -> None:
    loss = HardNegativesRankingLoss(encoder, in_batch_negatives=False)
    both = loss(columns(encoder), None)
    alone = [
        loss(
            [
                {key: value[[row]] if isinstance(value, Tensor) else value for key, value in one.items()}
                for one in columns(encoder)
            ],
            None,
        )
        for row in range(len(QUERIES))
    ]
    torch.testing.assert_close(both, torch.stack(alone).mean(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", MAKE)
def test_bad_input(encoder: TextEncoder, kind: str) -> None:
    with pytest.raises(ValueError, match="choose True, False or"):
        MAKE[kind](encoder, in_batch_negatives="often")
    with pytest.raises(ValueError, match="nothing to tell the positive from"):
        MAKE[kind](encoder, in_batch_negatives=False)(columns(encoder)[:2], None)
    by_row = MAKE[kind](encoder, in_batch_negatives="per_row")
    with pytest.raises(ValueError, match='reads a column "label"'):
        by_row(columns(encoder), None)
    with pytest.raises(ValueError, match="must be 1"):
        by_row(columns(encoder), torch.tensor([0, 1, 2, 1]))
