"""Contrastive losses whose in-batch negatives can be off: NV-Embed's two stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.util import all_gather_with_grad, cos_sim, get_rank, get_world_size
from torch import Tensor

from st_llm2vec.losses.columns import embed_together
from st_llm2vec.losses.processes import refuse_reused_layers

InBatchNegatives = bool | Literal["per_row"]


class HardNegativesRankingLoss(MultipleNegativesRankingLoss):
    """InfoNCE with in-batch negatives on, off, or as each row says (NV-Embed, arXiv 2405.17428, section 3.3).

    With in-batch negatives a query's candidates are the documents of all rows: this is the stock
    :class:`MultipleNegativesRankingLoss`, right for retrieval (stage one). Without them they are its own positive and
    its own hard negatives only, right for classification, clustering and similarity, where another row's document may
    well be a positive too (stage two). For a choice by dataset, give the trainer a loss for each; for a choice by row
    within blended batches, ``"per_row"``.

    Args:
        model: The encoder.
        scale: Inverse temperature. NV-Embed names none; LLM2Vec and E5-Mistral use 50.
        similarity_fct: Similarity of two sets of vectors, giving a matrix.
        in_batch_negatives: Whether other rows' documents are negatives; ``"per_row"`` reads it from the label column,
            1 for on and 0 for off.
        gather_across_devices: Whether the other processes' documents are negatives too, with gradients.

    Raises:
        ValueError: If ``in_batch_negatives`` is none of the three.

    Inputs:
        Columns query, positive, then any number of hard negatives; and ``label`` with ``"per_row"``.

    Example:
        >>> from st_llm2vec import convert, decoder_path
        >>> from st_llm2vec.losses import HardNegativesRankingLoss
        >>> loss = HardNegativesRankingLoss(convert(decoder_path(), "llm2vec"), in_batch_negatives=False)
        >>> columns = (["a cat", "the sea"], ["cats purr", "waves roll"], ["dogs bark", "sand burns"])
        >>> bool(loss([loss.model.preprocess(texts) for texts in columns], None) > 0)
        True
    """

    def __init__(
        self,
        model: SentenceTransformer,
        scale: float = 50.0,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] = cos_sim,
        in_batch_negatives: InBatchNegatives = True,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__(model, scale, similarity_fct, gather_across_devices)
        self.in_batch_negatives = _checked(in_batch_negatives)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            sentence_features: The features of each column.
            labels: As for :meth:`compute_loss_from_embeddings`.

        Returns:
            A scalar.
        """
        return self.compute_loss_from_embeddings(embed_together(self.model, sentence_features), labels)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        """Compute the loss.

        Args:
            embeddings: Of each column, of shape ``(batch, dimension)``.
            labels: Of shape ``(batch,)`` with ``"per_row"``; else unused.

        Returns:
            A scalar.

        Raises:
            ValueError: If a row has no negatives at all, or its label is neither 0 nor 1.
        """
        (losses,) = _row_losses(self, embeddings, labels, size=len(embeddings[0]))
        return losses.mean()

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return _described(super().get_config_dict(), self.in_batch_negatives)


class CachedHardNegativesRankingLoss(CachedMultipleNegativesRankingLoss):
    """:class:`HardNegativesRankingLoss` for batches that memory does not hold (GradCache, arXiv 2101.06983).

    Args:
        model: The encoder.
        scale: Inverse temperature.
        similarity_fct: Similarity of two sets of vectors, giving a matrix.
        in_batch_negatives: As for :class:`HardNegativesRankingLoss`.
        mini_batch_size: Texts in a pass.
        gather_across_devices: Whether the other processes' documents are negatives too, with gradients.
        show_progress_bar: Whether to show the passes of each step.

    Raises:
        ValueError: If ``in_batch_negatives`` is none of the three.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        scale: float = 50.0,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] = cos_sim,
        in_batch_negatives: InBatchNegatives = True,
        mini_batch_size: int = 32,
        gather_across_devices: bool = False,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__(
            model,
            scale,
            similarity_fct,
            mini_batch_size=mini_batch_size,
            gather_across_devices=gather_across_devices,
            show_progress_bar=show_progress_bar,
        )
        self.in_batch_negatives = _checked(in_batch_negatives)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            sentence_features: The features of each column.
            labels: As for :class:`HardNegativesRankingLoss`.

        Returns:
            A scalar.

        Raises:
            ValueError: If ``AdaptiveLayerLoss`` runs this loss, which it cannot.
        """
        refuse_reused_layers(self, self.model)
        loss: Tensor = super().forward(sentence_features, labels)  # type: ignore[arg-type]
        return loss

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """Compute the loss from the mini-batches' embeddings, ``mini_batch_size`` rows of scores at a time.

        Args:
            reps: For each column, the mini-batches' embeddings of shape ``(mini_batch, dimension)``.
            labels: As for :class:`HardNegativesRankingLoss`.
            with_backward: Whether to back-propagate to the embeddings here.

        Returns:
            A scalar.
        """
        embeddings = [torch.cat(column) for column in reps]
        total, seen = embeddings[0].new_zeros(()), 0
        for losses in _row_losses(self, embeddings, labels, self.mini_batch_size):
            seen += len(losses)
            loss = losses.sum() / len(embeddings[0])
            if with_backward:
                loss.backward(retain_graph=seen < len(embeddings[0]))
                loss = loss.detach()
            total = total + loss
        return total

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return _described(super().get_config_dict(), self.in_batch_negatives)


def _row_losses(
    loss: HardNegativesRankingLoss | CachedHardNegativesRankingLoss,
    embeddings: list[Tensor],
    labels: Tensor | None,
    size: int,
) -> Iterator[Tensor]:
    """The loss of every row of a batch, ``size`` rows of scores at a time."""
    if len(embeddings) < 2:
        raise ValueError(f"The loss reads a query and a positive at least; the dataset gave {len(embeddings)} column.")
    queries, *documents = embeddings
    in_batch = _rows_in_batch(loss.in_batch_negatives, labels, queries)
    if len(documents) == 1 and not in_batch.all():
        raise ValueError(
            "In-batch negatives are off and the dataset has no column of negatives, so there is nothing to tell the "
            "positive from. Add negatives (sentence_transformers.util.mine_hard_negatives), or turn them on."
        )
    offset = 0
    if loss.gather_across_devices and loss.in_batch_negatives is not False and get_world_size() > 1:
        offset = get_rank() * len(queries)
        documents = [all_gather_with_grad(column) for column in documents]
    candidates = torch.cat(documents)
    rows_of_candidates = torch.arange(len(candidates), device=candidates.device) % len(documents[0])
    for rows in torch.arange(len(queries), device=queries.device).split(size):
        scores = loss.similarity_fct(queries[rows], candidates) * loss.scale
        own = rows_of_candidates == (rows + offset)[:, None]
        scores = scores.masked_fill(~(own | in_batch[rows, None]), -torch.inf)
        yield torch.nn.functional.cross_entropy(scores, rows + offset, reduction="none")


def _rows_in_batch(in_batch_negatives: InBatchNegatives, labels: Tensor | None, queries: Tensor) -> Tensor:
    if isinstance(in_batch_negatives, bool):
        return torch.full((len(queries),), in_batch_negatives, device=queries.device)
    if labels is None:
        raise ValueError(
            'in_batch_negatives="per_row" reads a column "label", 1 for on and 0 for off; the dataset has none.'
        )
    if not torch.isin(labels, torch.tensor([0, 1], device=labels.device)).all():
        raise ValueError(f"A label is {labels.min()} to {labels.max()}; it must be 1 (in-batch negatives) or 0 (none).")
    return labels.to(queries.device).flatten().bool()


def _checked(in_batch_negatives: InBatchNegatives) -> InBatchNegatives:
    if isinstance(in_batch_negatives, bool) or in_batch_negatives == "per_row":
        return in_batch_negatives
    raise ValueError(f'in_batch_negatives is {in_batch_negatives!r}; choose True, False or "per_row".')


def _described(config: dict[str, Any], in_batch_negatives: InBatchNegatives) -> dict[str, Any]:
    unused = {"directions", "partition_mode", "hardness_mode", "hardness_strength"}
    kept = {name: value for name, value in config.items() if name not in unused}
    return {**kept, "in_batch_negatives": in_batch_negatives}
