"""The columns of a batch through the encoder."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.base.modules import Transformer
from torch import Tensor, nn

from st_llm2vec.losses.processes import unwrapped
from st_llm2vec.packed.enable import padding_free


def embed_together(model: nn.Module, columns: Iterable[dict[str, Any]]) -> list[Tensor]:
    """Embed all columns in one pass where the encoder reads without padding, else as the host does.

    Beside long documents, padding would make short queries as long; without padding, nothing is lost by joining them.

    Args:
        model: The encoder, or what a trainer put around it.
        columns: The features of each column.

    Returns:
        Each column's vectors, of shape ``(batch, dimension)``.
    """
    transformer = cast("Transformer", unwrapped(model)[0])
    return embed_columns(model, columns, separate_first=padding_free(transformer) is None)
