"""Unsupervised SimCSE: a text's two vectors under dropout are each other's positives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.util import cos_sim, get_world_size
from torch import Tensor, nn

from st_llm2vec.losses.columns import embed_together
from st_llm2vec.losses.dropout import TrainingDropout, refuse_equal_passes
from st_llm2vec.losses.processes import refuse_reused_layers, reuses_layers


class SimCSELoss(nn.Module):
    """Unsupervised SimCSE (arXiv 2104.08821), as LLM2Vec trains with it (arXiv 2404.05961, section 2.2).

    Each text passes twice, under different dropout, and has to find itself again among the batch's other texts: the
    stock :class:`MultipleNegativesRankingLoss` of the two passes. Dropout is set on the live layers for this loss's
    passes only; other losses of the same run, and saved folders, keep the model's own rates.

    Args:
        model: The encoder.
        scale: Inverse temperature; 20 in both papers.
        attention_dropout: Dropout of the attention weights while this loss runs; LLM2Vec's 0.3 by default, ``None`` for
            the model's own.
        hidden_dropout: Dropout of the hidden states, where the architecture has it; ``None`` for the model's own.
        similarity_fct: Similarity of two sets of vectors.
        gather_across_devices: Whether the other processes' texts are negatives too.
        mini_batch_size: Texts in a pass, for batches that memory does not hold; the gradients are those of the whole
            batch (GradCache, arXiv 2101.06983). ``None`` passes the batch at once.

    Raises:
        ValueError: If two passes would be equal: dropout is zero everywhere, and the loss would teach nothing.

    Inputs:
        One column of texts; no labels. Texts that repeat within a batch would be negatives of themselves: use
        ``batch_sampler=BatchSamplers.NO_DUPLICATES`` where the data holds any.

    Example:
        >>> from st_llm2vec import convert, decoder_path
        >>> from st_llm2vec.losses import SimCSELoss
        >>> loss = SimCSELoss(convert(decoder_path(), "llm2vec"), attention_dropout=0.2)
        >>> features = loss.model.preprocess(["A violin is carved from spruce.", "A violin is carved from maple."])
        >>> bool(loss([features], None) > 0)
        True
    """

    def __init__(
        self,
        model: SentenceTransformer,
        scale: float = 20.0,
        attention_dropout: float | None = 0.3,
        hidden_dropout: float | None = None,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] = cos_sim,
        gather_across_devices: bool = False,
        mini_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.gather_across_devices = gather_across_devices
        self.dropout = TrainingDropout(model, attention_dropout, hidden_dropout)
        self.rates = {"attention_dropout": attention_dropout, "hidden_dropout": hidden_dropout}
        refuse_equal_passes(model, self.dropout)
        options: dict[str, Any] = {
            "scale": scale,
            "similarity_fct": similarity_fct,
            "gather_across_devices": gather_across_devices,
        }
        if mini_batch_size is None:
            self.loss: Any = _InOnePass(model, **options)
        else:
            self.loss = _CachedUnderDropout(model, mini_batch_size=mini_batch_size, **options)
            self.loss.dropout = self.dropout
        self.uses_gradient_cache = mini_batch_size is not None
        self._second: tuple[dict[str, Tensor], dict[str, Tensor]] | None = None

    @property
    def calculate_loss(self) -> Callable[..., Tensor]:
        """The loss of the mini-batches' embeddings, which ``MatryoshkaLoss`` replaces by that of shorter ones."""
        calculate: Callable[..., Tensor] = self.loss.calculate_loss
        return calculate

    @calculate_loss.setter
    def calculate_loss(self, replacement: Callable[..., Tensor]) -> None:
        self.loss.calculate_loss = replacement

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            sentence_features: The features of one column.
            labels: Unused.

        Returns:
            A scalar.

        Raises:
            ValueError: If there is more than one column, or ``AdaptiveLayerLoss`` runs this loss in mini-batches.
        """
        columns = list(sentence_features)
        if len(columns) != 1:
            raise ValueError(
                f"SimCSELoss reads one column of texts; the dataset gave {len(columns)}. Keep one of them, or train "
                "pairs with MultipleNegativesRankingLoss."
            )
        if self.uses_gradient_cache:
            refuse_reused_layers(self, self.model)
        self.loss.gather_across_devices = self.gather_across_devices and get_world_size() > 1
        with self.dropout.on():
            loss: Tensor = self.loss([columns[0], self._again(columns[0])], labels)
        return loss

    def _again(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The features for the second pass; the same ones where the layers that it left in them are read again."""
        if not reuses_layers(self.model):
            return dict(features)
        if self._second is None or self._second[0] is not features:
            self._second = features, dict(features)
        return self._second[1]

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {**self.loss.get_config_dict(), "gather_across_devices": self.gather_across_devices, **self.rates}


class _InOnePass(MultipleNegativesRankingLoss):
    """The stock loss of two columns that pass together."""

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        loss: Tensor = self.compute_loss_from_embeddings(embed_together(self.model, sentence_features), labels)  # type: ignore[arg-type]
        return loss


class _CachedUnderDropout(CachedMultipleNegativesRankingLoss):
    """The cached loss, whose second passes run in the backward pass and need the dropout again."""

    dropout: TrainingDropout

    def embed_minibatch(self, *args: Any, **kwargs: Any) -> Any:
        with self.dropout.on():
            return super().embed_minibatch(*args, **kwargs)
