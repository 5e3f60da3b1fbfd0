"""How well an encoder predicts masked tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator
from sentence_transformers.util import batch_to_device
from torch.nn.functional import cross_entropy

from st_llm2vec.losses import MNTPLoss
from st_llm2vec.losses.processes import unwrapped


class MNTPEvaluator(SentenceEvaluator):
    """Accuracy and perplexity of masked next token prediction on held-out texts.

    The same tokens are masked at every call, so that steps can be compared.

    Args:
        loss: The loss that trains the encoder; its masking and its head are used.
        texts: Held-out texts, or token blocks.
        batch_size: Texts in a pass.
        name: Prefix of the metrics.

    Raises:
        ValueError: If there are no texts.
    """

    def __init__(
        self, loss: MNTPLoss, texts: Sequence[str] | Sequence[Sequence[int]], batch_size: int = 32, name: str = ""
    ) -> None:
        super().__init__()
        if not len(texts):
            raise ValueError("There are no texts to evaluate on.")
        self.loss = loss
        self.texts = list(texts)
        self.batch_size = batch_size
        self.name = name
        self.primary_metric = "mntp_accuracy"
        self.greater_is_better = True

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Predict the masked tokens.

        Args:
            model: The encoder.
            output_path: Unused.
            epoch: Unused.
            steps: Unused.

        Returns:
            ``mntp_accuracy``, the share of the masked tokens that are predicted; ``mntp_perplexity``, the exponential
            of their mean cross-entropy (in nats); and ``mntp_tokens``, how many there were.

        Raises:
            ValueError: If no token of the texts was masked.
        """
        encoder = unwrapped(model)
        was_training, trained = encoder.training, self.loss.model
        encoder.eval()
        self.loss.model = encoder
        correct, summed, count = 0, 0.0, 0
        try:
            with torch.no_grad():
                for start in range(0, len(self.texts), self.batch_size):
                    found = self._predict(encoder, self.texts[start : start + self.batch_size])
                    correct, summed, count = correct + found[0], summed + found[1], count + found[2]
        finally:
            self.loss.model = trained
            encoder.train(was_training)
        if not count:
            raise ValueError("No token of the evaluation texts was masked; give more or longer texts.")
        metrics = {
            "mntp_accuracy": correct / count,
            "mntp_perplexity": math.exp(min(summed / count, 700.0)),
            "mntp_tokens": float(count),
        }
        metrics = self.prefix_name_to_metrics(metrics, self.name)
        self.store_metrics_in_model_card_data(encoder, metrics, int(epoch), steps)
        return metrics

    def _predict(self, encoder: SentenceTransformer, texts: list[Any]) -> tuple[int, float, int]:
        features = batch_to_device(encoder.preprocess(texts), encoder.device)
        states, targets, _ = self.loss.masked_states(features)
        correct, summed = 0, 0.0
        for some, wanted in zip(states.split(self.loss.chunk_size), targets.split(self.loss.chunk_size), strict=True):
            logits = self.loss.logits(some).float()
            correct += int((logits.argmax(dim=1) == wanted).sum())
            summed += float(cross_entropy(logits, wanted, reduction="sum"))
        return correct, summed, len(targets)
