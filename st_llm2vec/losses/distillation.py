"""Distillation: the student's texts are as alike as a stronger encoder's are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import all_gather, all_gather_with_grad, cos_sim, get_rank, get_world_size
from torch import Tensor, nn

from st_llm2vec.losses.columns import embed_together


class SimilarityDistillationLoss(nn.Module):
    """Match the teacher's cosine similarities between all texts of a batch.

    The mean squared difference of the two similarity matrices (similarity-preserving distillation, arXiv 1907.09682; one of
    the losses of Stella and Jasper, arXiv 2412.19048, section 3); or, with a temperature, the divergence between the softmaxes
    of their rows, each text's own place left out (SEED, arXiv 2101.04731, section 3.2, with the batch as the queue).

    Similarities have no dimension, so a teacher may be of any width, and nothing is learned that encoding does not use.
    Losses of the vectors themselves need the student's width to be the teacher's, or a projection that is thrown away at the
    end and that a trainer's checkpoints do not hold: stock ``EmbedDistillLoss`` and ``MSELoss``.

    Args:
        model: The student.
        temperature: Of both softmaxes; ``None`` compares the similarities as they are.
        gather_across_devices: Whether the matrix is that of the texts of all processes, with gradients; if not, each process
            compares its own.

    Raises:
        ValueError: If the temperature is not positive.

    Inputs:
        One column of texts or several, all of them in one matrix; ``label`` has the teacher's vectors, of shape ``(batch,
        dimension)`` for one column or ``(batch, columns, dimension)``, as ``EmbedDistillLoss`` reads them.

    Example:
        >>> from st_llm2vec import convert, decoder_path
        >>> from st_llm2vec.losses import SimilarityDistillationLoss
        >>> student, teacher = (convert(decoder_path(), recipe, measure=False) for recipe in ("llm2vec", "sgpt"))
        >>> texts = ["A violin is carved from spruce.", "A violin is carved from maple.", "Rain fell all night."]
        >>> loss = SimilarityDistillationLoss(student)
        >>> bool(loss([student.preprocess(texts)], teacher.encode(texts, convert_to_tensor=True)) > 0)
        True
    """

    def __init__(
        self, model: SentenceTransformer, temperature: float | None = None, gather_across_devices: bool = False
    ) -> None:
        super().__init__()
        if temperature is not None and temperature <= 0:
            raise ValueError(
                f"temperature is {temperature}; it must be positive, or None for the similarities as they are."
            )
        self.model = model
        self.temperature = temperature
        self.gather_across_devices = gather_across_devices

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None) -> Tensor:
        """Compute the loss.

        Args:
            sentence_features: The features of each column.
            labels: The teacher's vectors.

        Returns:
            A scalar.

        Raises:
            ValueError: If there are no such vectors, or too few texts to compare.
        """
        return self.compute_loss_from_embeddings(embed_together(self.model, sentence_features), labels)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        """Compute the loss.

        Args:
            embeddings: Of each column, of shape ``(batch, dimension)``.
            labels: As for :meth:`forward`.

        Returns:
            A scalar.

        Raises:
            ValueError: As for :meth:`forward`.
        """
        own, taught = torch.cat(embeddings).float(), _by_column(labels, embeddings).float()
        every, every_taught, first = own, taught, 0
        if self.gather_across_devices and get_world_size() > 1:
            every, every_taught, first = all_gather_with_grad(own), all_gather(taught), get_rank() * len(own)
        with torch.autocast(own.device.type, enabled=False):  # which would round similarities to two digits
            scores, targets = cos_sim(own, every), cos_sim(taught, every_taught)
        if self.temperature is None:
            return nn.functional.mse_loss(scores, targets)
        if len(every) < 3:
            raise ValueError(
                f"The batch holds {len(every)} texts, and with a temperature each is compared with two others at least: "
                "raise the batch size, or leave the temperature out."
            )
        places = torch.arange(len(every), device=own.device)
        others = places != (places[: len(own)] + first)[:, None]
        student, teacher = (one[others].view(len(own), -1) / self.temperature for one in (scores, targets))
        return nn.functional.kl_div(
            student.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True
        )

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {"temperature": self.temperature, "gather_across_devices": self.gather_across_devices}


def _by_column(labels: Tensor | None, embeddings: list[Tensor]) -> Tensor:
    """The teacher's vectors in the order of the student's: column after column, of shape ``(columns * batch, dimension)``."""
    rows = len(embeddings[0])
    if labels is None or labels.ndim not in (2, 3):
        found = "none" if labels is None else f"labels of shape {tuple(labels.shape)}"
        raise ValueError(
            f"The teacher's vectors are read from the column label, of shape (batch, dimension), or (batch, columns, "
            f"dimension) where there are several columns of texts; there are {found}."
        )
    by_column = labels[:, None] if labels.ndim == 2 else labels
    if by_column.shape[:2] != (rows, len(embeddings)):
        raise ValueError(
            f"There are {len(embeddings)} columns of {rows} texts, and the teacher's vectors in label are of shape "
            f"{tuple(labels.shape)}; each text needs one."
        )
    return by_column.transpose(0, 1).reshape(rows * len(embeddings), -1).to(embeddings[0].device)
