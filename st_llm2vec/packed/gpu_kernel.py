"""Attention over a packed sequence by PyTorch's variable-length kernels, which GPUs have."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from st_llm2vec.packed.segments import Segments

try:
    from torch.nn.attention import varlen

    varlen_attn: Any = varlen.varlen_attn
    options = inspect.signature(varlen_attn).parameters
    KNOWS_WINDOWS, KNOWS_GROUPS = "window_size" in options, "enable_gqa" in options  # PyTorch 2.11 and 2.12
except ImportError:
    varlen_attn, KNOWS_WINDOWS, KNOWS_GROUPS = None, False, False


AMPERE = (8, 0)
WIDEST_HEAD = 256


def takes(query: Tensor) -> bool:
    """Whether the kernel runs here: half precision on a CUDA GPU from Ampere on, and a PyTorch whose kernel has windows.

    Args:
        query: Of shape ``(1, heads, tokens, width)``.
    """
    return (
        KNOWS_WINDOWS
        and query.is_cuda
        and query.dtype in (torch.float16, torch.bfloat16)
        and query.shape[-1] <= WIDEST_HEAD
        and torch.cuda.get_device_capability(query.device) >= AMPERE
    )


def varlen_attention(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float) -> Tensor:
    """Attend among each text's tokens in one kernel.

    A prefix that the texts share is a text of its own among the queries, and stands before each text's own keys.

    Args:
        query: Of shape ``(1, heads, tokens, width)``.
        key: Of shape ``(1, key heads, tokens, width)``.
        value: As ``key``.
        segments: The sequence's segments.
        scale: Of the scores.

    Returns:
        The attended values, of shape ``(1, tokens, heads, width)``.
    """
    queries = [segments.prefix] * (segments.prefix > 0) + list(segments.lengths)
    keys = [segments.prefix] * (segments.prefix > 0) + [segments.prefix + length for length in segments.lengths]
    own_queries, own_keys, own_values = (part[0].transpose(0, 1) for part in (query, key, value))
    if segments.prefix:
        order = _keys_of_each_text(segments).to(query.device, non_blocking=True)
        own_keys, own_values = own_keys[order], own_values[order]
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and not KNOWS_GROUPS:
        own_keys, own_values = (each.repeat_interleave(groups, dim=1) for each in (own_keys, own_values))
    attended: Tensor = varlen_attn(
        own_queries,
        own_keys,
        own_values,
        _boundaries(queries, query.device),
        _boundaries(keys, query.device),
        max(queries),
        max(keys),
        scale=scale,
        window_size=(segments.left, segments.right),
        **({"enable_gqa": groups > 1} if KNOWS_GROUPS else {}),
    )
    return attended.unsqueeze(0)


def _keys_of_each_text(segments: Segments) -> Tensor:
    """Where each text's keys stand in the packed sequence: the prefix's own, then the prefix and its own for each text."""
    prefix, start, places = torch.arange(segments.prefix), segments.prefix, [torch.arange(segments.prefix)]
    for length in segments.lengths:
        places += [prefix, torch.arange(start, start + length)]
        start += length
    return torch.cat(places)


def _boundaries(lengths: list[int], device: torch.device) -> Tensor:
    ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    return ends.to(device, non_blocking=True)
