"""The poolings over a span of tokens: how much each token of it weighs.

One that is added to :data:`POOLINGS` can be named by a recipe, is pooled by ``SpanPooling``, and travels in saved folders with
this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PoolingRule:
    """A pooling over a span.

    Args:
        weights: From the span's mask ``(batch, tokens)``, as floats, to the weight of each token, of the same shape; they are
            divided by their sum.
        stock: What the stock ``Pooling`` calls it; ``None`` where it has none, and the encoder is made of custom modules.
    """

    weights: Callable[[Tensor], Tensor]
    stock: str | None = None


def _mean(mask: Tensor) -> Tensor:
    return mask


def _weighted_mean(mask: Tensor) -> Tensor:
    """The k-th token of the span weighs k (SGPT, arXiv 2202.08904, equation 2)."""
    return mask * mask.cumsum(dim=1)


def _last_token(mask: Tensor) -> Tensor:
    order = mask.cumsum(dim=1)
    return mask * (order == order[:, -1:])


POOLINGS = {
    "mean": PoolingRule(_mean, stock="mean"),
    "weighted_mean": PoolingRule(_weighted_mean, stock="weightedmean"),
    "last_token": PoolingRule(_last_token, stock="lasttoken"),
}
"""The poolings by name."""
