"""Attention among the tokens of each text of a packed sequence: which kernel runs, and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from st_llm2vec.modules.attention import PACKED as PACKED
from st_llm2vec.packed import cpu_kernel, gpu_kernel
from st_llm2vec.packed.cpu_kernel import fused_attention
from st_llm2vec.packed.gpu_fallback import dense_attention
from st_llm2vec.packed.gpu_kernel import varlen_attention
from st_llm2vec.packed.prefix import prefix_attention
from st_llm2vec.packed.segments import EVERYTHING, NO_WINDOW, Segments, current_segments

HAS_AMX = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()


@torch.compiler.disable
def packed_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """What Transformers calls where a model makes its masks: the packed sequence's layout, as far as this mask sees.

    Without a packed sequence, the mask that SDPA would get. Models make masks that no layer reads, so one that a packed
    sequence cannot have is refused only where it is read.
    """
    segments = current_segments.get()
    if segments is None:
        mask: Tensor | None = sdpa_mask(*args, **kwargs)
        return mask
    left, right = _window(kwargs["mask_function"], segments.prefix + max(segments.lengths))
    return Segments(segments.lengths, segments.prefix, left, right).to_tensor()


def _window(mask_function: Callable[..., Tensor], size: int) -> tuple[int, int]:
    """How far to the left and right a mask of this size lets a token see."""
    zero, positions = torch.zeros((), dtype=torch.long), torch.arange(size)

    def seen(query: Tensor, key: Tensor) -> Tensor:
        return mask_function(zero, zero, query, key).expand(torch.broadcast_shapes(query.shape, key.shape))

    left = int(seen(positions, zero).sum()) - 1
    right = int(seen(zero, positions).sum()) - 1
    if min(left, right) < 0:
        return NO_WINDOW, NO_WINDOW
    inside = [seen(positions[left:], positions[: size - left]), seen(positions[: size - right], positions[right:])]
    outside = [seen(positions[left + 1 :], positions[: size - left - 1])]
    outside.append(seen(positions[: size - right - 1], positions[right + 1 :]))
    if not all(part.all() for part in inside) or any(part.any() for part in outside):
        return NO_WINDOW, NO_WINDOW
    return (EVERYTHING if left == size - 1 else left), (EVERYTHING if right == size - 1 > 0 else right)


def packed_attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function that Transformers calls: within each text of a packed sequence; SDPA for anything else.

    Args:
        module: The attention module.
        query: Of shape ``(1, heads, tokens, width)``.
        key: Of shape ``(1, key heads, tokens, width)``; fewer heads where queries are grouped.
        value: As ``key``.
        attention_mask: The sequence's layout, or an ordinary mask.
        dropout: Rate of the attention weights.
        scaling: Of the scores; one over the root of the width if not given.
        softcap: The scores' bound by a hyperbolic tangent (Gemma 2).
        **kwargs: For SDPA, where there is no packed sequence.

    Returns:
        The attended values, of shape ``(1, tokens, heads, width)``, and no weights.

    Raises:
        ValueError: If a packed sequence cannot have this model's attention: a mask that is no window around the diagonal,
            a prefix shared by other than causal texts, a bias of positions, or sinks.
    """
    if attention_mask is None or attention_mask.ndim != 4 or attention_mask.dtype != torch.long:
        options: dict[str, Any] = {**kwargs, "softcap": softcap, "dropout": dropout, "scaling": scaling}
        attended: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return attended
    if kwargs.get("position_bias") is not None or kwargs.get("s_aux") is not None:
        raise ValueError(f"{type(module).__name__} adds to its scores what packed sequences do not know.")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    attend = packed_attention
    if torch.compiler.is_compiling():
        attend = _attend_between_graphs if torch.is_grad_enabled() else torch.ops.st_llm2vec.packed_attention
    return attend(query, key, value, attention_mask, scale, dropout, softcap or 0.0), None


def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, layout: Tensor, scale: float, dropout: float, softcap: float
) -> Tensor:
    """Attend among each text's tokens; shapes as for :func:`packed_attention_forward`."""
    segments = Segments.from_tensor(layout)
    if segments.left == NO_WINDOW:
        raise ValueError("A mask is no window around the diagonal, and packed sequences know no others.")
    if segments.prefix and (segments.left, segments.right) != (EVERYTHING, 0):
        raise ValueError("Texts can share a prefix under causal attention without a window only.")
    plain = not dropout and not softcap
    if plain and gpu_kernel.takes(query):
        return varlen_attention(query, key, value, segments, scale)
    dtype = query.dtype
    computed = torch.float32 if _is_faster_in_float32(query) else dtype
    if (
        plain
        and cpu_kernel.takes(query, key, value)
        and not segments.prefix
        and not segments.has_window(max(segments.lengths))
    ):
        return fused_attention(query, key, value, segments, scale, computed)
    query, key, value = (one.to(computed) for one in (query, key, value))
    if plain and segments.prefix and cpu_kernel.takes_prefix(query, value):
        return prefix_attention(query, key, value, segments, scale).to(dtype)
    pieces = []
    if segments.prefix:
        start = slice(0, segments.prefix)
        pieces.append(
            _attend(query[:, :, start], key[:, :, start], value[:, :, start], segments, scale, dropout, softcap)
        )
    if query.device.type != "cpu" and len(segments.runs()) > 1:
        under = partial(_attend_under, causal=False, scale=scale, dropout=dropout, softcap=softcap)
        own = dense_attention(query, key, value, segments, under)
        return torch.cat([*(segments.join([piece]) for piece in pieces), own]).unsqueeze(0).to(dtype)
    for queries, keys, values in segments.batches(query, key, value):
        if segments.prefix:
            keys, values = _with_prefix(key, keys, segments), _with_prefix(value, values, segments)
        pieces.append(_attend(queries, keys, values, segments, scale, dropout, softcap))
    return segments.join(pieces).unsqueeze(0).to(dtype)


def _is_faster_in_float32(query: Tensor) -> bool:
    """Half precision's fused kernel of CPUs is slower on short texts, and no faster on long ones, but with AMX."""
    halved = query.dtype in (torch.float16, torch.bfloat16)
    return halved and query.device.type == "cpu" and not HAS_AMX


def _with_prefix(states: Tensor, part: Tensor, segments: Segments) -> Tensor:
    return torch.cat([states[:, :, : segments.prefix].expand(len(part), -1, -1, -1), part], dim=2)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float, dropout: float, softcap: float
) -> Tensor:
    mask = _mask(query.shape[2], key.shape[2], segments, query.device)
    causal = mask is None and segments.right == 0 and query.shape[2] > 1
    return _attend_under(query, key, value, mask, causal, scale, dropout, softcap)


def _attend_under(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float,
    dropout: float,
    softcap: float,
) -> Tensor:
    """Attend; scores that are capped have no fused kernel on a CPU, and go as in Transformers' eager attention of Gemma 2."""
    groups = query.shape[1] // key.shape[1]
    if not softcap:
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=scale, enable_gqa=groups > 1
        )
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = torch.tanh(query @ key.transpose(2, 3) * scale / softcap) * softcap
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.nn.functional.dropout(weights, dropout) @ value


def _mask(queries: int, keys: int, segments: Segments, device: torch.device) -> Tensor | None:
    """Which keys the last ``queries`` tokens of a text see; ``None`` for all of them, or all that is causal."""
    if segments.left == segments.right == EVERYTHING:
        return None
    if not segments.has_window(keys) and (segments.right != 0 or queries == keys):
        return None
    return segments.seen(queries, keys).to(device)


# Where gradients are wanted a compiled graph ends before the attention and another begins after it: the kernels that attend
# here, and their dropout, differ by sequence and device, and each brings its own gradients.
_attend_between_graphs = torch.compiler.disable(packed_attention)


@torch.library.custom_op("st_llm2vec::packed_attention", mutates_args=())
def _packed_attention_op(
    query: Tensor, key: Tensor, value: Tensor, layout: Tensor, scale: float, dropout: float, softcap: float
) -> Tensor:
    """One step of a compiled graph, whatever the sequence's layout, so that no layout compiles it anew."""
    return packed_attention(query, key, value, layout, scale, dropout, softcap)


@_packed_attention_op.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, layout: Tensor, scale: float, dropout: float, softcap: float
) -> Tensor:
    return query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])


AttentionInterface.register(PACKED, packed_attention_forward)
AttentionMaskInterface.register(PACKED, packed_mask)
