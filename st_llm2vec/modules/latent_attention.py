"""NV-Embed's pooling: tokens look up a learned dictionary, then their mean is taken."""

from __future__ import annotations

import logging
from typing import Any

import torch
from sentence_transformers.base.modules.module import Module
from torch import nn

from st_llm2vec.modules.span_pooling import span_weights

logger = logging.getLogger(__name__)


class GatedFeedForward(nn.Module):
    """``Linear -> GEGLU -> Linear``: half of the first product, gated by GELU of the other half."""

    def __init__(self, width: int, multiple: int) -> None:
        super().__init__()
        self.project_in = nn.Linear(width, 2 * multiple * width)
        self.project_out = nn.Linear(multiple * width, width)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """``(tokens, width)`` to ``(tokens, width)``."""
        values, gate = self.project_in(states).chunk(2, dim=-1)
        return self.project_out(values * nn.functional.gelu(gate))


class LatentAttentionPooling(Module):
    """Latent attention (NV-Embed, arXiv 2405.17428, section 3.2), trainable, of any width.

    ::

        token embeddings (tokens, width)          latents (latents, width)
                 | LayerNorm                               | LayerNorm
                 | query                                   | key, value
                 +------------- cross-attention -----------+
                 + residual
                 | LayerNorm -> feed-forward (GEGLU) + residual
                 v
           mean over the pooled tokens

    Every token looks at the latents alone, so only the tokens that are pooled are computed. At NV-Embed's own
    size (width 4096, 512 latents, 8 heads of 4096) the module has 740 million parameters, 537 million of them
    in the cross-attention. The vector of an empty span is zero.

    Args:
        embedding_dimension: Width of the token embeddings and of the result.
        num_latents: Entries of the dictionary; 512 in NV-Embed.
        num_heads: Attention heads; 8 in NV-Embed.
        head_dimension: Width of one head; NV-Embed uses the full width of the model, which is the default.
        feed_forward_multiple: Inner width of the feed-forward network as a multiple of the width.
    """

    config_keys = ["embedding_dimension", "num_latents", "num_heads", "head_dimension", "feed_forward_multiple"]

    def __init__(
        self,
        embedding_dimension: int,
        num_latents: int = 512,
        num_heads: int = 8,
        head_dimension: int | None = None,
        feed_forward_multiple: int = 4,
    ) -> None:
        super().__init__()
        self.embedding_dimension = embedding_dimension
        self.num_latents = num_latents
        self.num_heads = num_heads
        self.head_dimension = head_dimension or embedding_dimension
        self.feed_forward_multiple = feed_forward_multiple
        inner = self.num_heads * self.head_dimension
        self.latents = nn.Parameter(torch.randn(num_latents, embedding_dimension))
        self.query_norm = nn.LayerNorm(embedding_dimension)
        self.latent_norm = nn.LayerNorm(embedding_dimension)
        self.to_query = nn.Linear(embedding_dimension, inner, bias=False)
        self.to_key_value = nn.Linear(embedding_dimension, 2 * inner, bias=False)
        self.to_output = nn.Linear(inner, embedding_dimension, bias=False)
        self.feed_forward_norm = nn.LayerNorm(embedding_dimension)
        self.feed_forward = GatedFeedForward(embedding_dimension, feed_forward_multiple)
        logger.info("latent attention pooling: %s parameters", f"{self.num_parameters:,}")

    @property
    def num_parameters(self) -> int:
        """How many parameters the module has."""
        return sum(parameter.numel() for parameter in self.parameters())

    def transform(self, states: torch.Tensor) -> torch.Tensor:
        """Look up the latents: ``(tokens, width)`` to ``(tokens, width)``."""
        heads = (self.num_heads, self.head_dimension)
        query = self.to_query(self.query_norm(states)).unflatten(-1, heads).transpose(0, 1)
        key, value = self.to_key_value(self.latent_norm(self.latents)).chunk(2, dim=-1)
        key, value = (part.unflatten(-1, heads).transpose(0, 1) for part in (key, value))
        attended = nn.functional.scaled_dot_product_attention(query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0))
        states = states + self.to_output(attended.squeeze(0).transpose(0, 1).flatten(1))
        return states + self.feed_forward(self.feed_forward_norm(states))

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Pool ``token_embeddings`` ``(batch, tokens, width)`` to ``sentence_embedding`` ``(batch, width)``.

        The tokens are those of ``pooling_mask``, or of ``attention_mask`` where there is none. Weights in float32, as they
        learn, compute in float32 whatever the type of the token embeddings.
        """
        states = features["token_embeddings"]
        mask = features.get("pooling_mask", features["attention_mask"]).bool()
        found = self.transform(states[mask].to(self.latents.dtype))
        transformed = found.new_zeros(states.shape)
        transformed[mask] = found
        weights = span_weights(mask, "mean").to(torch.promote_types(states.dtype, torch.float32))
        features["sentence_embedding"] = (transformed * weights.unsqueeze(-1)).sum(dim=1).to(states.dtype)
        return features

    def get_embedding_dimension(self) -> int:
        """Width of the sentence embedding."""
        return self.embedding_dimension

    def __repr__(self) -> str:
        return (
            f"LatentAttentionPooling(width={self.embedding_dimension}, latents={self.num_latents}, "
            f"heads={self.num_heads}, head_dimension={self.head_dimension}, parameters={self.num_parameters:,})"
        )

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Save settings and weights."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(  # type: ignore[override]
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> LatentAttentionPooling:
        """Load settings and weights from a folder or repository."""
        hub: dict[str, Any] = {"token": token, "cache_folder": cache_folder, "revision": revision}
        hub["local_files_only"] = local_files_only
        module = cls(**cls.load_config(model_name_or_path, subfolder=subfolder, **hub))
        return cls.load_torch_weights(model_name_or_path, subfolder=subfolder, model=module, **hub)
