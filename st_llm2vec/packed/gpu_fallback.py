"""Attention within a packed sequence on a GPU without its variable-length kernel: the texts side by side, padded.

That is so in float32, with dropout of the attention's weights, and with capped scores. One call over padded texts is then
faster than one for every length, and only the attention is padded: all that a token is multiplied with stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from st_llm2vec.packed.segments import Segments

Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def dense_attention(query: Tensor, key: Tensor, value: Tensor, segments: Segments, attend: Attend) -> Tensor:
    """Attend among each text's own tokens, and to the prefix where the texts share one.

    Args:
        query: Of shape ``(1, heads, tokens, width)``.
        key: Of shape ``(1, key heads, tokens, width)``.
        value: As ``key``.
        segments: The sequence's segments.
        attend: Attention of ``(texts, heads, longest, width)`` queries over keys and values under a boolean mask of shape
            ``(texts, 1, longest, keys)``.

    Returns:
        The attended values of the texts' own tokens, of shape ``(own tokens, heads, width)``.
    """
    lengths = torch.tensor(segments.lengths)
    longest = int(lengths.max())
    inside = torch.arange(longest) < lengths[:, None]
    places = (lengths.cumsum(0) - lengths + segments.prefix)[:, None] + torch.arange(longest)
    places = torch.where(inside, places, segments.prefix).to(query.device)
    queries, keys, values = (part[0][:, places].transpose(0, 1) for part in (query, key, value))
    if segments.prefix:
        keys, values = (
            torch.cat([part[:, :, : segments.prefix].expand(len(lengths), -1, -1, -1), own], dim=2)
            for part, own in ((key, keys), (value, values))
        )
    own = torch.nn.functional.pad(inside, (segments.prefix, 0), value=True)[:, None, None]
    mask = segments.seen(longest, segments.prefix + longest) & own
    attended = attend(queries, keys, values, mask.to(query.device))
    return attended.transpose(1, 2).flatten(0, 1)[inside.flatten().nonzero()[:, 0].to(query.device)]
