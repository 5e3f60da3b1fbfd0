"""Unsupervised SimCSE: the stage that turns a reader into an encoder, without labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from datasets import Dataset

from st_llm2vec.data import TrainingData, check_contrast, check_texts, require_texts
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.losses import SimCSELoss
from st_llm2vec.training.named_data import called, open_data
from st_llm2vec.training.stage import Stage


@dataclass(kw_only=True)
class SimCSE(Stage):
    """LLM2Vec's second training stage (arXiv 2404.05961, section 2.2 and appendix D.1.2).

    Args:
        data: Sentences, as :func:`st_llm2vec.data.read_dataset` reads them.
        max_length: 128 tokens, as the authors'.
        column: Their column.
        scale: Inverse temperature.
        attention_dropout: Dropout of the attention weights while training.
        hidden_dropout: Dropout of the hidden states, where the architecture has it.
        mini_batch_size: Texts in a pass, for batches that memory does not hold.
        gather_across_devices: Whether the other processes' texts are negatives too.
    """

    name: ClassVar[str] = "simcse"
    # Batch 128, 128 tokens, 1000 steps at 3e-5, seed 42; train_configs/simcse/*.json of the authors.
    arguments_of_paper: ClassVar[dict[str, Any]] = {
        "per_device_train_batch_size": 128,
        "max_steps": 1000,
        "learning_rate": 3e-5,
        "lr_scheduler_type": "linear",
        "batch_sampler": "no_duplicates",
    }

    max_length: int | None = 128
    column: str = "text"
    scale: float = 20.0
    attention_dropout: float | None = 0.3
    hidden_dropout: float | None = None
    mini_batch_size: int | None = None
    gather_across_devices: bool = True

    def read(self, encoder: TextEncoder) -> TrainingData:
        """Read the sentences; blank ones are left out."""
        check_texts(open_data(self.data), self.column, encoder.tokenizer, every=False, where=called(self.data))
        return TrainingData(self._sentences(), {})

    def check_data(self) -> None:
        """Refuse sentences that are not there, or all the same."""
        require_texts(open_data(self.data), [self.column], called(self.data))
        check_contrast(self._sentences(), self.batch_rows(), called(self.data))
        self.pairs()

    def _sentences(self) -> Dataset:
        texts = open_data(self.data).select_columns(self.column)
        return texts.filter(lambda text: bool(text and text.strip()), input_columns=self.column)

    def loss(self, encoder: TextEncoder, data: TrainingData) -> SimCSELoss:
        """Make the loss."""
        return SimCSELoss(
            encoder,
            self.scale,
            self.attention_dropout,
            self.hidden_dropout,
            gather_across_devices=self.gather_across_devices,
            mini_batch_size=self.mini_batch_size,
        )
