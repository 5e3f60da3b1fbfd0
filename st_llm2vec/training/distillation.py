"""Distillation: the stage that learns from a stronger encoder, without labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from datasets import Dataset

from st_llm2vec.data import TrainingData, check_contrast, check_texts, require_texts
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.losses import SimilarityDistillationLoss
from st_llm2vec.training.named_data import called, describe_files, open_data
from st_llm2vec.training.run_folder import CHECKPOINTS
from st_llm2vec.training.stage import Stage
from st_llm2vec.training.teacher import require_teacher, with_teacher_vectors


@dataclass(kw_only=True)
class Distillation(Stage):
    """Learn a stronger encoder's similarities (arXiv 1907.09682; arXiv 2412.19048, section 3).

    The teacher's vectors are computed before training begins, once, and kept: see
    :func:`~st_llm2vec.training.teacher.with_teacher_vectors`.

    Args:
        data: Texts, as :func:`st_llm2vec.data.read_dataset` reads them.
        teacher: The stronger encoder, of any width: a folder or a name on the Hub.
        teacher_prompt: What the teacher is told before each text; nothing in the place of its own default if empty.
        columns: The columns of texts. Related texts, such as the two of a pair, belong into two columns: random ones are
            seldom alike, and the similarities of those that are teach most.
        max_length: 128 tokens for the student; the teacher reads as much as it can.
        temperature: As for :class:`~st_llm2vec.losses.SimilarityDistillationLoss`.
        gather_across_devices: Whether the texts of all processes are compared, or each process's own.
    """

    name: ClassVar[str] = "distillation"
    # No paper trains a decoder so: batch and steps are LLM2Vec's for SimCSE, the learning rate is that of its supervised stage.
    arguments_of_paper: ClassVar[dict[str, Any]] = {
        "per_device_train_batch_size": 128,
        "max_steps": 1000,
        "learning_rate": 2e-4,
        "warmup_steps": 50,
        "lr_scheduler_type": "linear",
    }

    teacher: str = ""
    teacher_prompt: str | None = None
    columns: list[str] = field(default_factory=lambda: ["text"])
    max_length: int | None = 128
    temperature: float | None = None
    gather_across_devices: bool = True

    def read(self, encoder: TextEncoder) -> TrainingData:
        """Read the texts, and have the teacher's vectors of them; rows with a blank text are left out."""
        for column in self.columns:
            check_texts(open_data(self.data), column, encoder.tokenizer, every=False, where=called(self.data))
        return TrainingData(with_teacher_vectors(self._texts(), self.teacher, self.teacher_prompt), {})

    def check_data(self) -> None:
        """Refuse texts that are not there or all the same, and a teacher that is none."""
        require_teacher(self.teacher)
        require_texts(open_data(self.data), self.columns, called(self.data))
        for column in self.columns:
            check_contrast(self._texts().select_columns(column), self.batch_rows(), called(self.data))
        self.pairs()

    @cached_property
    def files_read(self) -> dict[str, Any]:
        """As for every stage, and the teacher's weights where they are in a folder."""
        weights = sorted(Path(self.teacher).glob("**/*.safetensors")) if Path(self.teacher).is_dir() else []
        mine = [file for file in weights if CHECKPOINTS not in file.relative_to(self.teacher).parts]
        return super().files_read | describe_files([str(file) for file in mine])

    def _texts(self) -> Dataset:
        texts = open_data(self.data).select_columns(self.columns)
        return texts.filter(lambda *row: all(text and text.strip() for text in row), input_columns=self.columns)

    def loss(self, encoder: TextEncoder, data: TrainingData) -> SimilarityDistillationLoss:
        """Make the loss."""
        return SimilarityDistillationLoss(encoder, self.temperature, self.gather_across_devices)
