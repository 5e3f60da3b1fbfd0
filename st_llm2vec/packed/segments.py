"""Texts side by side in a packed sequence, without padding: where each begins, and what a token of it sees.

The sequence's layout travels in the place of the attention mask: a tensor of shape ``(1, 1, 1, 3 + texts)`` that holds the
length of a shared prefix, how far a token sees to its left and to its right (-1: to the end of its text), and each text's
number of own tokens. It is told by its integers: masks are booleans or floats. Layers hand it on unread, and so does
gradient checkpointing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

EVERYTHING = -1
NO_WINDOW = -2

current_segments: ContextVar[Segments | None] = ContextVar("current_segments", default=None)


@dataclass(frozen=True)
class Segments:
    """The layout of a packed sequence: one shared prefix (or none), then each text's own tokens, in order.

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
    def from_tensor(cls, layout: Tensor) -> Segments:
        """Read what :meth:`to_tensor` wrote."""
        prefix, left, right, *lengths = layout.flatten().tolist()
        return cls(tuple(lengths), prefix, left, right)

    def batches(self, *states: Tensor) -> Iterator[list[Tensor]]:
        """For every run, its part of each ``(1, heads, tokens, width)`` as ``(texts, heads, length, width)``, no copies."""
        runs = self.runs()
        sizes = [self.prefix, *(texts * length for texts, length in runs)]
        # split, since the gradient of a slice is as long as the packed sequence, once for every run
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
