"""Batches of several sources, of which some have other rows' documents as negatives and some have not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from sentence_transformers.base.sampler import DefaultBatchSampler, NoDuplicatesBatchSampler
from torch.utils.data import BatchSampler, RandomSampler


@dataclass(frozen=True)
class BatchesBySource:
    """The ``batch_sampler`` of a trainer whose sources differ in their in-batch negatives.

    Rows that are told from each other have no text in common in a batch; the others may: each row of two classes holds both
    classes' names, and no two of them would fit one batch.

    Args:
        in_batch_negatives: Whether a source's rows are told from each other, by the source's name.
    """

    in_batch_negatives: Mapping[str, bool]

    def __call__(self, dataset: Dataset, **options: Any) -> BatchSampler:
        """Make the sampler of a source.

        Args:
            dataset: The source's rows, with the column ``dataset_name`` that the host gives them where losses differ.
            **options: As for the host's samplers.

        Returns:
            The sampler.
        """
        if self.in_batch_negatives[dataset[0]["dataset_name"]]:
            return NoDuplicatesBatchSampler(dataset, **options)
        return DefaultBatchSampler(RandomSampler(dataset, generator=options["generator"]), **options)
