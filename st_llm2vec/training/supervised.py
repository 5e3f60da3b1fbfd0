"""Supervised contrastive training on queries, their positives and hard negatives."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from accelerate import PartialState
from datasets import DatasetDict
from torch import nn

from st_llm2vec.data import TrainingData, TrainingSource, build_training_data, check_contrast
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.losses import CachedHardNegativesRankingLoss, HardNegativesRankingLoss
from st_llm2vec.losses.contrastive import InBatchNegatives
from st_llm2vec.training.named_data import called, open_sources
from st_llm2vec.training.stage import Stage

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Supervised(Stage):
    """LLM2Vec's supervised stage (arXiv 2404.05961, section 5 and appendix G), and with other values E5-Mistral's.

    Args:
        data: One source or several, each a mapping with the fields of :class:`st_llm2vec.data.TrainingSource`: path, task,
            columns, instructions, negatives; or a mixture of them in a file of its own, ``{mixture: file.yaml}``. Every batch
            comes from one source.
        scale: Inverse temperature.
        in_batch_negatives: Whether other rows' documents are negatives. If so, a source of a task has them as its task does;
            if not, a source has them only where it says so itself.
        blended: Whether all sources are mixed in every batch, each row with its own instruction and its source's
            in-batch negatives.
        mini_batch_size: Texts in a pass, for batches that memory does not hold (GradCache).
        gather_across_devices: Whether the other processes' documents are negatives too, with gradients.
    """

    name: ClassVar[str] = "supervised"
    # 64 on each of 8 GPUs, 512 tokens, 2e-4 after 300 steps of warm-up, 1000 steps; run_supervised.py of the authors.
    arguments_of_paper: ClassVar[dict[str, Any]] = {
        "per_device_train_batch_size": 64,
        "max_steps": 1000,
        "learning_rate": 2e-4,
        "warmup_steps": 300,
        "lr_scheduler_type": "linear",
        "batch_sampler": "no_duplicates",
    }

    scale: float = 50.0
    in_batch_negatives: bool = True
    blended: bool = False
    mini_batch_size: int | None = None
    gather_across_devices: bool = True

    def read(self, encoder: TextEncoder) -> TrainingData:
        """Read the sources."""
        return self._data

    def forewarn(self, first: Stage) -> None:
        """As every stage, and warn where texts will be encoded with another instruction than they are trained with."""
        super().forewarn(first)
        for role, told in self.instructions().items():
            kept = first.kept_instruction(role)
            named = f"{told[0]!r}{f' and {len(told) - 1} others' if len(told) > 1 else ''}" if told else "none"
            if kept and kept.strip() not in (one.strip() for one in told):
                logger.warning(
                    "The encoder keeps the instruction %r, with which encode_%s reads every text, and the training data has %s "
                    "for that side: it is trained %s. Name it in the data, `data: {path: ..., %s_instruction: ...}` in a "
                    "plan, or begin with an encoder that keeps %s.",
                    kept,
                    role,
                    named,
                    "with that" if told else "without",
                    role,
                    "that" if told else "none",
                )
            elif told and not kept and role == "query":
                logger.warning(
                    "Queries are trained with the instruction %s, and the encoder keeps none for them: encode_query will read "
                    "them without. Keep it: `changes: {prompts: {query: ...}}` in a plan that begins with a decoder, `st-llm2vec convert "
                    "--prompt query=...` for a folder to begin with; or give prompt= in every call.",
                    named,
                )

    def instructions(self) -> dict[str, list[str]]:
        """The instructions of all sources, each once."""
        told = [one.instructions for one in self._sources]
        return {
            role: list(dict.fromkeys(filter(None, (one[side] for one in told))))
            for side, role in enumerate(("query", "document"))
        }

    def check_data(self) -> None:
        """Refuse sources that are not there, or whose rows are not what they should be."""
        self.pairs()
        data, switches = self._data.dataset, self._data.in_batch_negatives  # the data is kept for the run
        if isinstance(data, DatasetDict):
            data = DatasetDict({name: one for name, one in data.items() if switches[name]})
        if any(switches.values()):
            check_contrast(data, self.batch_rows(), called(self.data))
        self._require_whole_batches()

    def _require_whole_batches(self) -> None:
        """Several processes read whole batches alone, and a source that fills none would not be trained on."""
        rows, data = self.batch_rows(), self._data.dataset
        for name, one in data.items() if isinstance(data, DatasetDict) else [(called(self.data), data)]:
            if PartialState().num_processes > 1 and len(one) < rows:
                raise ValueError(
                    f"{name} has {len(one)} rows, and a batch of all {PartialState().num_processes} processes has {rows}: it would "
                    "not be trained on. Lower per_device_train_batch_size, or join it with another source."
                )

    @cached_property
    def _sources(self) -> list[TrainingSource]:
        return open_sources(self.data, {} if self.in_batch_negatives else {"in_batch_negatives": False})

    @cached_property
    def _data(self) -> TrainingData:
        return build_training_data(self._sources, blended=self.blended, seed=self.arguments().seed)

    def loss(self, encoder: TextEncoder, data: TrainingData) -> nn.Module | dict[str, nn.Module]:
        """Make the loss; one for each dataset where they differ in their in-batch negatives."""
        switches = data.in_batch_negatives
        if self.blended:
            return self._loss(encoder, "per_row")
        if len(set(switches.values())) == 1:
            return self._loss(encoder, next(iter(switches.values())))
        return {name: self._loss(encoder, switch) for name, switch in switches.items()}

    def _loss(self, encoder: TextEncoder, in_batch_negatives: InBatchNegatives) -> nn.Module:
        options: dict[str, Any] = {
            "scale": self.scale,
            "in_batch_negatives": in_batch_negatives,
            "gather_across_devices": self.gather_across_devices,
        }
        if self.mini_batch_size is None:
            return HardNegativesRankingLoss(encoder, **options)
        return CachedHardNegativesRankingLoss(encoder, mini_batch_size=self.mini_batch_size, **options)
