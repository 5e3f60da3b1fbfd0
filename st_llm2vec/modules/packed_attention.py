"""Attention among the tokens of each text, in one row of texts without padding.

The row's layout travels in the place of the attention mask: a tensor of shape ``(1, 1, 1, 3 + texts)`` that holds the
length of a shared prefix, how far a token sees to its left and to its right (-1: to the end of its text), and each text's
number of own tokens. Layers hand it on unread, and so does gradient checkpointing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .dense_attention import dense_attention
from .fused_attention import fused_attention, has_fused_kernel
from .prefix_attention import has_mergeable_kernel, prefix_attention
from .varlen_attention import has_varlen_kernel, varlen_attention

PACKED = "st_llm2vec_packed"
EVERYTHING = -1
NO_BAND = -2
HAS_AMX = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()

current_row: ContextVar[Row | None] = ContextVar("current_row", default=None)


@dataclass(frozen=True)
class Row:
    """The layout of a row: one shared prefix (or none), then each text's own tokens, in order.

    Args:
        lengths: Each text's number of own tokens, at least one; equal ones side by side attend in one call.
        prefix: Length of the prefix that all the texts share, in tokens. Only causal attention can share one.
        left: How many tokens to its left a token sees; -1 for all of its text.
        right: The same to its right; 0 is causal.
    """

    lengths: tuple[int, ...]
    prefix: int = 0
    left: int = EVERYTHING
    right: int = EVERYTHING

    def has_window(self, tokens: int) -> bool:
        """Whether a text of so many tokens is longer than what one of them sees."""
        return EVERYTHING < self.left < tokens - 1 or 0 < self.right < tokens - 1

    def seen(self, queries: int, keys: int) -> Tensor:
        """Which of so many keys the last ``queries`` tokens of a text see, of shape ``(queries, keys)``."""
        distance = torch.arange(keys - queries, keys)[:, None] - torch.arange(keys)
        seen = torch.ones_like(distance, dtype=torch.bool)
        if self.left != EVERYTHING:
            seen &= distance <= self.left
        if self.right != EVERYTHING:
            seen &= distance >= -self.right
        return seen

    def to_tensor(self) -> Tensor:
        """As the layers carry it, on the CPU."""
        return torch.tensor([self.prefix, self.left, self.right, *self.lengths])[None, None, None]

    @classmethod
    def from_tensor(cls, layout: Tensor) -> Row:
        """Read what :meth:`to_tensor` wrote."""
        prefix, left, right, *lengths = layout.flatten().tolist()
        return cls(tuple(lengths), prefix, left, right)

    def batches(self, *states: Tensor) -> Iterator[list[Tensor]]:
        """For every run, its part of each ``(1, heads, tokens, width)`` as ``(texts, heads, length, width)``, no copies."""
        runs = self.runs()
        sizes = [self.prefix, *(texts * length for texts, length in runs)]
        # split, since the gradient of a slice is as long as the row, once for every run
        for run, *parts in zip(runs, *(one[0].split(sizes, dim=1)[1:] for one in states), strict=True):
            yield [part.unflatten(1, run).transpose(0, 1) for part in parts]

    @staticmethod
    def join(parts: Sequence[Tensor]) -> Tensor:
        """The runs' ``(texts, heads, length, ...)`` as ``(tokens, heads, ...)``, one after the other."""
        rows = [part.transpose(1, 2).flatten(0, 1) for part in parts]
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def runs(self) -> list[tuple[int, int]]:
        """``(texts, tokens in each)`` of every run of texts of equal length."""
        return [(len(list(texts)), length) for length, texts in groupby(self.lengths)]


def is_layout(attention_mask: Any) -> bool:
    """Whether what stands in the mask's place is a row's layout; masks are booleans or floats."""
    return isinstance(attention_mask, Tensor) and attention_mask.ndim == 4 and attention_mask.dtype == torch.long


@torch.compiler.disable
def packed_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """What Transformers calls where a model makes its masks: the current row's layout, as far as this mask sees.

    Without a current row, the mask that SDPA would get. Models make masks that no layer reads, so one that a row cannot
    have is refused only where it is read.
    """
    row = current_row.get()
    if row is None:
        mask: Tensor | None = sdpa_mask(*args, **kwargs)
        return mask
    left, right = _band(kwargs["mask_function"], row.prefix + max(row.lengths))
    return Row(row.lengths, row.prefix, left, right).to_tensor()


def _band(mask_function: Callable[..., Tensor], size: int) -> tuple[int, int]:
    """How far to the left and right a mask of this size lets a token see."""
    zero, positions = torch.zeros((), dtype=torch.long), torch.arange(size)

    def seen(query: Tensor, key: Tensor) -> Tensor:
        return mask_function(zero, zero, query, key).expand(torch.broadcast_shapes(query.shape, key.shape))

    left = int(seen(positions, zero).sum()) - 1
    right = int(seen(zero, positions).sum()) - 1
    if min(left, right) < 0:
        return NO_BAND, NO_BAND
    inside = [seen(positions[left:], positions[: size - left]), seen(positions[: size - right], positions[right:])]
    outside = [seen(positions[left + 1 :], positions[: size - left - 1])]
    outside.append(seen(positions[: size - right - 1], positions[right + 1 :]))
    if not all(part.all() for part in inside) or any(part.any() for part in outside):
        return NO_BAND, NO_BAND
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
    """The attention function that Transformers calls: among each text's tokens where there is a row, else SDPA.

    Args:
        module: The attention module.
        query: Of shape ``(1, heads, tokens, width)``.
        key: Of shape ``(1, key heads, tokens, width)``; fewer heads where queries are grouped.
        value: As ``key``.
        attention_mask: The row's layout, or an ordinary mask.
        dropout: Rate of the attention weights.
        scaling: Of the scores; one over the root of the width if not given.
        softcap: The scores' bound by a hyperbolic tangent (Gemma 2).
        **kwargs: For SDPA, where there is no row.

    Returns:
        The attended values, of shape ``(1, tokens, heads, width)``, and no weights.

    Raises:
        ValueError: If a row cannot have this model's attention: a mask that is no band around the diagonal, a prefix
            shared by other than causal texts, a bias of positions, or sinks.
    """
    if attention_mask is None or not is_layout(attention_mask):
        options: dict[str, Any] = {**kwargs, "softcap": softcap, "dropout": dropout, "scaling": scaling}
        attended: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return attended
    if kwargs.get("position_bias") is not None or kwargs.get("s_aux") is not None:
        raise ValueError(f"{type(module).__name__} adds to its scores what rows without padding do not know.")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    attend = packed_attention
    if torch.compiler.is_compiling():
        attend = _attend_between_graphs if torch.is_grad_enabled() else torch.ops.st_llm2vec.packed_attention
    return attend(query, key, value, attention_mask, scale, dropout, softcap or 0.0), None


def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, layout: Tensor, scale: float, dropout: float, softcap: float
) -> Tensor:
    """Attend among each text's tokens; shapes as for :func:`packed_attention_forward`."""
    row = Row.from_tensor(layout)
    if row.left == NO_BAND:
        raise ValueError("A mask is no band around the diagonal, and rows without padding know no others.")
    if row.prefix and (row.left, row.right) != (EVERYTHING, 0):
        raise ValueError("Texts can share a prefix under causal attention without a window only.")
    plain = not dropout and not softcap
    if plain and has_varlen_kernel(query):
        return varlen_attention(query, key, value, row, scale)
    dtype = query.dtype
    computed = torch.float32 if _is_faster_in_float32(query) else dtype
    if plain and has_fused_kernel(query, key, value) and not row.prefix and not row.has_window(max(row.lengths)):
        return fused_attention(query, key, value, row, scale, computed)
    query, key, value = (one.to(computed) for one in (query, key, value))
    if plain and row.prefix and has_mergeable_kernel(query, value):
        return prefix_attention(query, key, value, row, scale).to(dtype)
    pieces = []
    if row.prefix:
        start = slice(0, row.prefix)
        pieces.append(_attend(query[:, :, start], key[:, :, start], value[:, :, start], row, scale, dropout, softcap))
    if query.device.type != "cpu" and len(row.runs()) > 1:
        under = partial(_attend_under, causal=False, scale=scale, dropout=dropout, softcap=softcap)
        own = dense_attention(query, key, value, row, under)
        return torch.cat([*(row.join([piece]) for piece in pieces), own]).unsqueeze(0).to(dtype)
    for queries, keys, values in row.batches(query, key, value):
        if row.prefix:
            keys, values = _with_prefix(key, keys, row), _with_prefix(value, values, row)
        pieces.append(_attend(queries, keys, values, row, scale, dropout, softcap))
    return row.join(pieces).unsqueeze(0).to(dtype)


def _is_faster_in_float32(query: Tensor) -> bool:
    """Half precision's fused kernel of CPUs is slower on short texts, and no faster on long ones, but with AMX."""
    halved = query.dtype in (torch.float16, torch.bfloat16)
    return halved and query.device.type == "cpu" and not HAS_AMX


def _with_prefix(states: Tensor, part: Tensor, row: Row) -> Tensor:
    return torch.cat([states[:, :, : row.prefix].expand(len(part), -1, -1, -1), part], dim=2)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, row: Row, scale: float, dropout: float, softcap: float
) -> Tensor:
    mask = _mask(query.shape[2], key.shape[2], row, query.device)
    causal = mask is None and row.right == 0 and query.shape[2] > 1
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
    if softcap:
        return _attend_capped(query, key, value, mask, causal, scale, dropout, softcap)
    grouped = query.shape[1] != key.shape[1]
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=scale, enable_gqa=grouped
    )


def _mask(queries: int, keys: int, row: Row, device: torch.device) -> Tensor | None:
    """Which keys the last ``queries`` tokens of a text see; ``None`` for all of them, or all that is causal."""
    if not row.has_window(keys) and (row.right != 0 or queries == keys):
        return None
    return row.seen(queries, keys).to(device)


def _attend_capped(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float,
    dropout: float,
    softcap: float,
) -> Tensor:
    """Attention with capped scores, which no fused kernel has on a CPU; as Transformers' eager attention of Gemma 2."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = torch.tanh(query @ key.transpose(2, 3) * scale / softcap) * softcap
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.nn.functional.dropout(weights, dropout) @ value


# Where gradients are wanted a compiled graph ends before the attention and another begins after it: the kernels that attend
# here, and their dropout, differ by row and device, and each brings its own gradients.
_attend_between_graphs = torch.compiler.disable(packed_attention)


@torch.library.custom_op("st_llm2vec::packed_attention", mutates_args=())
def _packed_attention_op(
    query: Tensor, key: Tensor, value: Tensor, layout: Tensor, scale: float, dropout: float, softcap: float
) -> Tensor:
    """One step of a compiled graph, whatever the row's layout, so that no layout compiles it anew."""
    return packed_attention(query, key, value, layout, scale, dropout, softcap)


@_packed_attention_op.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, layout: Tensor, scale: float, dropout: float, softcap: float
) -> Tensor:
    return query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])


AttentionInterface.register(PACKED, packed_attention_forward)
AttentionMaskInterface.register(PACKED, packed_mask)
