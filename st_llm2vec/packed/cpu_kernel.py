"""Attention within a packed sequence on a CPU, where gradients are wanted: the fused kernel, run by run.

Autograd would keep each run's states and result for the kernel, in the type that it computes in. Those are many tensors of
as many sizes, which leave holes in the memory between the others; here only the whole
sequence's states are kept, in their own type.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from st_llm2vec.packed.segments import Segments

flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
KNOWS_GROUPS = torch.__version__ >= "2.13"
"""Whether keys may have fewer heads than queries. PyTorch 2.6 then reads and writes beyond them, and the process dies; 2.13
is the oldest that was tried and is right."""


def takes(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether gradients are wanted, and the kernel takes states of these types and widths.

    Args:
        query: Of shape ``(1, heads, tokens, width)``.
        key: Of shape ``(1, key heads, tokens, width)``.
        value: As ``key``.
    """
    states = (query, key, value)
    return (
        _may_be_called(query, key)
        and torch.is_grad_enabled()
        and any(one.requires_grad for one in states)
        and len({one.dtype for one in states}) == len({one.shape[-1] for one in states}) == 1
        and all(one.stride(-1) == 1 for one in states)
    )


def takes_prefix(query: Tensor, value: Tensor) -> bool:
    """Whether the kernel, which also gives the scores' log-sum-exp, runs here without gradients.

    Args:
        query: Of shape ``(1, heads, tokens, width)``.
        value: Of shape ``(1, key heads, tokens, width)``.
    """
    return _may_be_called(query, value) and not torch.is_grad_enabled() and query.shape[-1] == value.shape[-1]


def _may_be_called(query: Tensor, key: Tensor) -> bool:
    return query.device.type == "cpu" and (KNOWS_GROUPS or query.shape[1] == key.shape[1])


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float, dtype: torch.dtype
) -> Tensor:
    """Attend among each text's tokens, to those before it only or to all of them.

    Args:
        query: Of shape ``(1, heads, tokens, width)``.
        key: Of shape ``(1, key heads, tokens, width)``.
        value: As ``key``.
        segments: The sequence's segments, without a prefix or a window.
        scale: Of the scores.
        dtype: The type to compute in.

    Returns:
        The attended values, of shape ``(1, tokens, heads, width)``, in the type of ``query``.
    """
    attended: Tensor = _FusedAttention.apply(query, key, value, segments, scale, dtype)
    return attended


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float, dtype: torch.dtype
    ) -> Tensor:
        states = [one.to(dtype) for one in (query, key, value)]
        runs = [flash(*parts, 0.0, segments.right == 0, scale=scale) for parts in segments.batches(*states)]
        results, sums = (segments.join(each) for each in zip(*runs, strict=True))
        attended = results.unsqueeze(0).to(query.dtype)
        ctx.save_for_backward(query, key, value, attended, sums)
        ctx.segments, ctx.scale, ctx.dtype = segments, scale, dtype
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, attended, sums = ctx.saved_tensors
        segments: Segments = ctx.segments
        states = [query, key, value, attended.transpose(1, 2), gradient.contiguous().transpose(1, 2)]
        parts = segments.batches(*(one.to(ctx.dtype) for one in states))
        part_sums = segments.batches(sums.t()[None, :, :, None])
        gradients = [
            flash_backward(grad, *inputs, out, logsumexp.squeeze(-1), 0.0, segments.right == 0, scale=ctx.scale)
            for (*inputs, out, grad), (logsumexp,) in zip(parts, part_sums, strict=True)
        ]
        rows = (segments.join(each) for each in zip(*gradients, strict=True))
        of_states = [one.transpose(0, 1).unsqueeze(0).to(query.dtype) for one in rows]
        return (*of_states, None, None, None)
