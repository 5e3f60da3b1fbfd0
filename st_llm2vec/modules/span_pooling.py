"""The poolings that the stock ``Pooling`` lacks: over a marked span of the tokens."""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers.base.modules.module import Module

from st_llm2vec.recipe.poolings import POOLINGS


def span_weights(pooling_mask: torch.Tensor, mode: str) -> torch.Tensor:
    """Weights that sum to one over each row's span, and to zero for an empty span.

    Args:
        pooling_mask: 1 for the tokens of the span, ``(batch, tokens)``.
        mode: A key of :data:`st_llm2vec.recipe.poolings.POOLINGS`.

    Returns:
        Float weights, ``(batch, tokens)``.
    """
    weights = POOLINGS[mode].weights(pooling_mask.to(torch.float32))
    total = weights.sum(dim=1, keepdim=True)
    return weights / total.where(total > 0, torch.ones_like(total))


class SpanPooling(Module):
    """Pools the tokens that ``pooling_mask`` marks, wherever they lie.

    The vector of an empty span is zero.

    Args:
        embedding_dimension: Width of the token embeddings.
        pooling_mode: ``"mean"``, ``"weighted_mean"``, ``"last_token"``, or another key of ``POOLINGS``.

    Raises:
        ValueError: If the mode is unknown.

    Example:
        >>> import torch
        >>> pooling = SpanPooling(2, "mean")
        >>> states = torch.tensor([[[9.0, 9.0], [1.0, 2.0], [3.0, 4.0]]])
        >>> pooling({"token_embeddings": states, "pooling_mask": torch.tensor([[0, 1, 1]])})["sentence_embedding"]
        tensor([[2., 3.]])
    """

    config_keys = ["embedding_dimension", "pooling_mode"]

    def __init__(self, embedding_dimension: int, pooling_mode: str = "mean") -> None:
        super().__init__()
        if pooling_mode not in POOLINGS:
            raise ValueError(f"Unknown pooling mode {pooling_mode!r}; SpanPooling has {', '.join(POOLINGS)}.")
        self.embedding_dimension = embedding_dimension
        self.pooling_mode = pooling_mode

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Pool ``token_embeddings`` ``(batch, tokens, hidden)`` to ``sentence_embedding`` ``(batch, hidden)``.

        Raises:
            ValueError: If the features carry no ``pooling_mask``.
        """
        if "pooling_mask" not in features:
            raise ValueError(
                "SpanPooling found no pooling_mask in the features, so it cannot know what to pool; "
                "the first module must be a BidirectionalTransformer with a formatter."
            )
        states = features["token_embeddings"]
        weights = span_weights(features["pooling_mask"], self.pooling_mode)
        pooled = (states.to(torch.promote_types(states.dtype, torch.float32)) * weights.unsqueeze(-1)).sum(dim=1)
        features["sentence_embedding"] = pooled.to(states.dtype)
        return features

    def get_embedding_dimension(self) -> int:
        """Width of the sentence embedding."""
        return self.embedding_dimension

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Save the settings."""
        self.save_config(output_path)
