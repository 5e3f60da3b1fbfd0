"""Padding-free batches: what goes into the model as a padded batch passes it as one row of tokens.

Everything around the model stays as it is: features come in padded and token embeddings go out padded, so that every
pooling, span mask, loss and hook sees what it always saw. Nothing of it is saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Token
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .packed_attention import Row


@dataclass(frozen=True)
class Packing:
    """Where the tokens of a padded batch stand in its row.

    Args:
        row: The row's layout.
        tokens: For each token of the row, its place in the flattened batch, of shape ``(row tokens,)``.
        places: For each place of the batch, its token in the row, of shape ``(batch, tokens)``; the row's length, one
            past its end, where the batch is padded.
        positions: For each token of the row, its position in its text.
    """

    row: Row
    tokens: Tensor
    places: Tensor
    positions: Tensor

    @classmethod
    def of(cls, attention_mask: Tensor, prefix: int = 0) -> Packing:
        """Lay out a batch, texts of equal length side by side.

        Args:
            attention_mask: Of shape ``(batch, tokens)``, padded on either side.
            prefix: How many tokens at the start of all the texts are the same, to stand in the row once.

        Returns:
            The packing.
        """
        mask = attention_mask.bool()
        batch, width = mask.shape
        lengths = mask.sum(dim=1)
        order = torch.argsort(lengths, stable=True)
        all_positions = mask.long().cumsum(dim=1) - 1
        position = all_positions[order]
        place = order[:, None] * width + torch.arange(width, device=mask.device)
        own = mask[order] & (position >= prefix)
        tokens = place[own]
        if prefix:
            tokens = torch.cat([place[-1][mask[order[-1]]][:prefix], tokens])
        places = torch.full((batch * width,), len(tokens), device=mask.device)
        places[tokens] = torch.arange(len(tokens), device=mask.device)
        if prefix:
            shared = mask[order] & (position < prefix)
            places[place[shared]] = position[shared]
        counts = (lengths[order] - prefix).tolist()
        row = Row(tuple(count for count in counts if count > 0), prefix)
        return cls(row, tokens, places.view(batch, width), all_positions.flatten()[tokens])

    def pack(self, values: Tensor) -> Tensor:
        """``(batch, tokens, ...)`` to ``(1, row tokens, ...)``."""
        return values.flatten(0, 1)[self.tokens].unsqueeze(0)

    def unpack(self, values: Tensor) -> Tensor:
        """``(1, row tokens, ...)`` to ``(batch, tokens, ...)``, zero where the batch is padded."""
        ended = torch.cat([values[0], values.new_zeros(1, *values.shape[2:])])
        return ended[self.places]


class PackedFeatures(dict[str, Any]):
    """The features of a row, with what turns them back.

    Args:
        padded: The features of the batch.
        packing: Where its tokens stand in the row.
        extra: What the model is to be told beside them.
    """

    outer_row: Token[Row | None]

    def __init__(self, padded: Mapping[str, Any], packing: Packing, **extra: Any) -> None:
        shape = packing.places.shape
        row = {
            name: packing.pack(value) if isinstance(value, Tensor) and value.shape[:2] == shape else value
            for name, value in padded.items()
        }
        super().__init__({**row, **extra})
        self["attention_mask"] = torch.ones_like(self["input_ids"])
        self.padded = padded
        self.packing = packing
        self.given = set(self)

    def unpacked(self, output: Mapping[str, Any]) -> dict[str, Any]:
        """The padded features, and what the model added to those of the row."""
        added = {name: self._unpack(value) for name, value in output.items() if name not in self.given}
        return {**self.padded, **added}

    def _unpack(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(self._unpack(one) for one in value)
        is_row = isinstance(value, Tensor) and value.shape[:2] == self["input_ids"].shape
        return self.packing.unpack(value) if is_row else value
