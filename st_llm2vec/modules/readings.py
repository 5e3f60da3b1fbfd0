"""Texts that are read more than once, and the one vector of all readings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers.base.modules.module import Module


def read_in_turn(texts: Sequence[str], readings: Sequence[str]) -> list[str]:
    """Each text once for every reading; backward is word by word, as blanks part them.

    Example:
        >>> read_in_turn(["a red fox", "the sea"], ["forward", "backward"])
        ['a red fox', 'fox red a', 'the sea', 'sea the']
    """
    return [
        text if reading == "forward" else " ".join(reversed(text.split())) for text in texts for reading in readings
    ]


class MeanOfReadings(Module):
    """Makes one vector of the vectors of a text's readings: their mean.

    Rows of a batch are readings before it, those of a text beside each other, and texts behind it. What tokens have
    (``token_embeddings``, ``attention_mask`` and the like) is that of the first reading.

    Args:
        readings: How often each text is read.

    Raises:
        ValueError: If it is less than twice.

    Example:
        >>> import torch
        >>> vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0], [4.0, 4.0]])
        >>> MeanOfReadings(2)({"sentence_embedding": vectors})["sentence_embedding"]
        tensor([[0.5000, 0.5000],
                [3.0000, 3.0000]])
    """

    config_keys = ["readings"]

    def __init__(self, readings: int) -> None:
        super().__init__()
        if readings < 2:
            raise ValueError(f"readings={readings} makes no mean; a text is read twice at least.")
        self.readings = readings

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Make ``sentence_embedding`` of shape ``(texts, hidden)`` of one of ``(texts * readings, hidden)``.

        Raises:
            ValueError: If the batch holds a part of a text's readings.
        """
        vectors = features["sentence_embedding"]
        rows = len(vectors)
        if rows % self.readings:
            raise ValueError(
                f"The batch has {rows} rows, and each text is read {self.readings} times: it was cut amid a text's readings. "
                f"Take a (mini) batch size that {self.readings} divides."
            )
        for name, value in features.items():
            if isinstance(value, torch.Tensor) and value.ndim and len(value) == rows:
                features[name] = value[:: self.readings]
        features["sentence_embedding"] = vectors.unflatten(0, (-1, self.readings)).mean(dim=1)
        return features

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Save the settings."""
        self.save_config(output_path)
