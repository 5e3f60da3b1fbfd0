"""CoSENT: pairs of sentences in the order of the scores that people gave."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sentence_transformers.sentence_transformer.losses import CoSENTLoss
from torch import Tensor

from st_llm2vec.losses.columns import embed_together


class OnePassCoSENTLoss(CoSENTLoss):
    """The stock :class:`CoSENTLoss`, both columns in one pass where the encoder reads without padding.

    The stock loss passes the first column apart, since it may be short queries that padding would make as long as documents.
    Value and gradients are the same, to rounding.

    Args:
        model: The encoder.
        scale: Inverse temperature.
        similarity_fct: Similarity of the vectors of each pair.

    Inputs:
        Two columns of texts; ``label`` has a score for each pair, of which only the order counts.

    Example:
        >>> import torch
        >>> from st_llm2vec import convert, decoder_path
        >>> from st_llm2vec.losses import OnePassCoSENTLoss
        >>> loss = OnePassCoSENTLoss(convert(decoder_path(), "llm2vec"))
        >>> columns = (["a cat", "a cat"], ["a kitten", "the sea"])
        >>> bool(loss([loss.model.preprocess(texts) for texts in columns], torch.tensor([0.9, 0.1])) > 0)
        True
    """

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            sentence_features: The features of both columns.
            labels: The scores, of shape ``(batch,)``.

        Returns:
            A scalar.

        Raises:
            ValueError: If there is not one score for each pair.
        """
        return self.compute_loss_from_embeddings(embed_together(self.model, sentence_features), labels)
