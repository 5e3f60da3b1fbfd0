"""What the host's model card is made from."""

from __future__ import annotations

import io
import sys
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, DatasetDict, Value
from sentence_transformers.sentence_transformer.model_card import SentenceTransformerModelCardData


@dataclass
class EncoderCardData(SentenceTransformerModelCardData):
    """The host's card data, which shows examples of texts and cannot show blocks of tokens."""

    def set_widget_examples(self, dataset: Any) -> None:
        """Take examples from the datasets that have texts.

        Args:
            dataset: What the trainer was given.
        """
        if isinstance(dataset, Dataset):
            dataset = DatasetDict(dataset=dataset)
        if isinstance(dataset, dict):
            dataset = DatasetDict({name: part for name, part in dataset.items() if _has_texts(part)})
        # Where nobody watches, its bar, which a file would keep, is left out.
        silent = nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO())
        if not isinstance(dataset, dict) or dataset:
            with silent:
                super().set_widget_examples(dataset)


def _has_texts(dataset: Any) -> bool:
    features = getattr(dataset, "features", None) or {}
    return any(isinstance(one, dict) or (isinstance(one, Value) and "string" in one.dtype) for one in features.values())
