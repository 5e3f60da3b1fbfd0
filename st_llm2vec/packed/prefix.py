"""Attention of texts that share a prefix: to the prefix once for all of them, and to their own tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from st_llm2vec.packed.cpu_kernel import flash
from st_llm2vec.packed.segments import Segments


def prefix_attention(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float) -> Tensor:
    """Attend from the prefix to itself, and from each text to the prefix and itself, causally.

    A softmax over two sets of keys is the mean of the softmaxes over each, weighted by their sums of exponentials
    (FlashAttention, arXiv 2205.14135, section 3.1). So no text needs a copy of the prefix's keys.

    Args:
        query: Of shape ``(1, heads, tokens, width)``.
        key: Of shape ``(1, key heads, tokens, width)``.
        value: As ``key``.
        segments: The sequence's segments, with a prefix.
        scale: Of the scores.

    Returns:
        The attended values, of shape ``(1, tokens, heads, width)``.
    """
    first_keys, first_values = key[:, :, : segments.prefix], value[:, :, : segments.prefix]
    prefix, _ = flash(query[:, :, : segments.prefix], first_keys, first_values, 0.0, True, scale=scale)
    to_prefix, prefix_sums = flash(query[:, :, segments.prefix :], first_keys, first_values, 0.0, False, scale=scale)
    runs = [flash(*parts, 0.0, True, scale=scale) for parts in segments.batches(query, key, value)]
    attended, sums = (segments.join(each) for each in zip(*runs, strict=True))
    share = torch.sigmoid(prefix_sums[0].transpose(0, 1) - sums).unsqueeze(-1)
    merged = torch.lerp(attended.float(), to_prefix[0].transpose(0, 1).float(), share)
    return torch.cat([prefix[0].transpose(0, 1), merged.to(query.dtype)]).unsqueeze(0)
