"""Padding-free batches: what goes into the model as a padded batch passes it as one packed sequence.

Everything around the model stays as it is: features come in padded and token embeddings go out padded, so that every
pooling, span mask, loss and hook sees what it always saw. Nothing of it is saved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from contextvars import Token
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from st_llm2vec.packed.segments import Segments


@dataclass(frozen=True)
class Packing:
    """Where the tokens of a padded batch stand in its packed sequence.

    Args:
        segments: The sequence's segments.
        tokens: For each token of the packed sequence, its place in the flattened batch, of shape ``(packed tokens,)``.
        places: For each place of the batch, its token in the packed sequence, of shape ``(batch, tokens)``; where the batch is
            padded, the sequence's length, which is one past its end.
        positions: For each token of the packed sequence, its position in its text.
    """

    segments: Segments
    tokens: Tensor
    places: Tensor
    positions: Tensor

    @classmethod
    def of(cls, attention_mask: Tensor, prefix: int = 0) -> Packing:
        """Lay out a batch, texts of equal length side by side.

        Args:
            attention_mask: Of shape ``(batch, tokens)``, padded on either side.
            prefix: How many tokens at the start of all the texts are the same, to stand in the packed sequence once.

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
        segments = Segments(tuple(count for count in counts if count > 0), prefix)
        return cls(segments, tokens, places.view(batch, width), all_positions.flatten()[tokens])

    def pack(self, values: Tensor) -> Tensor:
        """``(batch, tokens, ...)`` to ``(1, packed tokens, ...)``."""
        return values.flatten(0, 1)[self.tokens].unsqueeze(0)

    def unpack(self, values: Tensor) -> Tensor:
        """``(1, packed tokens, ...)`` to ``(batch, tokens, ...)``, zero where the batch is padded."""
        ended = torch.cat([values[0], values.new_zeros(1, *values.shape[2:])])
        return ended[self.places]


class PackedFeatures(dict[str, Any]):
    """The features of a packed sequence, with what turns them back.

    Args:
        padded: The features of the batch.
        packing: Where its tokens stand in the packed sequence.
        extra: What the model is to be told beside them.
    """

    outer_segments: Token[Segments | None]

    def __init__(self, padded: MutableMapping[str, Any], packing: Packing, **extra: Any) -> None:
        self.padded = padded
        self.packing = packing
        segments = {name: _mapped(packing.pack, value, tuple(packing.places.shape)) for name, value in padded.items()}
        super().__init__({**segments, **extra})
        self["attention_mask"] = torch.ones_like(self["input_ids"])
        self.given = dict(self)

    def unpacked(self, output: Mapping[str, Any]) -> MutableMapping[str, Any]:
        """The padded features with what the model added or changed; written into them, as the host's losses rely on."""
        shape = tuple(self.given["input_ids"].shape)
        added = {name: value for name, value in output.items() if value is not self.given.get(name)}
        self.padded.update({name: _mapped(self.packing.unpack, value, shape) for name, value in added.items()})
        return self.padded


def _mapped(change: Callable[[Tensor], Tensor], value: Any, shape: tuple[int, ...]) -> Any:
    """A value with its tensors whose first dimensions are these changed, those in lists too."""
    if isinstance(value, list | tuple):
        return type(value)(_mapped(change, one, shape) for one in value)
    return change(value) if isinstance(value, Tensor) and value.shape[:2] == shape else value
