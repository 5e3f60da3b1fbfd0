"""What demonstrations are chosen by: a number for each row of a dev set, and the score of any rows of it."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from st_llm2vec.folder.encoder import TextEncoder

VERSION = 1
"""Raised when the same rows give other numbers, so that kept ones are not read."""


@dataclass(frozen=True)
class DevSet(ABC):
    """Rows of texts, whose numbers are kept: a candidate that gets further meets the rows that it has not met yet."""

    @abstractmethod
    def __len__(self) -> int:
        """How many rows there are."""

    @abstractmethod
    def measure(self, encoder: TextEncoder, rows: Sequence[int]) -> list[float]:
        """A number for each of these rows.

        Args:
            encoder: The encoder.
            rows: The rows, by number.
        """

    @abstractmethod
    def score(self, numbers: Sequence[float], rows: Sequence[int]) -> float:
        """How good these rows' numbers are, 100 being the best.

        Args:
            numbers: What :meth:`measure` gave.
            rows: The rows, by number.
        """

    def fingerprint(self) -> str:
        """A digest of the texts."""
        written = json.dumps([VERSION, type(self).__name__, astuple(self)])
        return hashlib.sha256(written.encode()).hexdigest()


@dataclass(frozen=True)
class ScoredPairs(DevSet):
    """Pairs of sentences with scores, as STS-B: cosines are ranked (Spearman), as PromptEOL chooses by.

    Args:
        first: The first sentences.
        second: The second ones.
        scores: How alike each two are.
        instruction: What recipes that take an instruction are told.

    Raises:
        ValueError: If there are fewer than two different scores.

    Example:
        >>> pairs = ScoredPairs(["a cat", "the sea"], ["a kitten", "a stone"], [5.0, 0.0])
        >>> round(pairs.score([0.9, 0.1], [0, 1]))
        100
    """

    first: list[str]
    second: list[str]
    scores: list[float]
    instruction: str | None = None

    def __post_init__(self) -> None:
        if len(set(self.scores)) < 2:
            raise ValueError(
                f"The dev set has {len(self.scores)} pairs and fewer than two different scores, by which nothing can be ranked."
            )

    def __len__(self) -> int:
        return len(self.scores)

    def measure(self, encoder: TextEncoder, rows: Sequence[int]) -> list[float]:
        """The cosine of each pair."""
        texts = list(dict.fromkeys(text for row in rows for text in (self.first[row], self.second[row])))
        vectors = dict(zip(texts, _unit_vectors(encoder.encode, texts, self.instruction), strict=True))
        return [float(vectors[self.first[row]] @ vectors[self.second[row]]) for row in rows]

    def score(self, numbers: Sequence[float], rows: Sequence[int]) -> float:
        """Spearman's rank correlation, times 100; 0 where all scores or cosines are alike."""
        scores = [self.scores[row] for row in rows]
        if len(set(scores)) < 2 or len(set(numbers)) < 2:
            return 0.0
        return 100 * float(spearmanr(numbers, scores).statistic)


@dataclass(frozen=True)
class Retrieval(DevSet):
    """Queries with a positive each, which is searched among the positives of all: the mean reciprocal rank.

    Args:
        queries: The queries.
        positives: Each query's document.
        instruction: The task's, for queries; documents have none.

    Raises:
        ValueError: If there are fewer than two different documents.
    """

    queries: list[str]
    positives: list[str]
    instruction: str

    def __post_init__(self) -> None:
        if len(set(self.positives)) < 2:
            raise ValueError("The dev set has fewer than two different positives, among which nothing can be searched.")

    def __len__(self) -> int:
        return len(self.queries)

    def measure(self, encoder: TextEncoder, rows: Sequence[int]) -> list[float]:
        """The reciprocal rank of each query's positive among the positives of all rows."""
        documents = list(dict.fromkeys(self.positives))
        place = {text: number for number, text in enumerate(documents)}
        queries = _unit_vectors(encoder.encode_query, [self.queries[row] for row in rows], self.instruction)
        similarities = queries @ self._document_vectors(encoder, documents).T
        own = similarities[np.arange(len(rows)), [place[self.positives[row]] for row in rows]]
        return [1 / int(rank) for rank in (similarities >= own[:, None]).sum(axis=1)]

    def score(self, numbers: Sequence[float], rows: Sequence[int]) -> float:
        """The mean, times 100."""
        return 100 * float(np.mean(numbers))

    def _document_vectors(self, encoder: TextEncoder, documents: list[str]) -> Any:
        """Vectors of the documents, computed once where no demonstration stands before a text without an instruction."""
        assert encoder.manifest is not None
        kept: Any = self.__dict__.get("_kept")
        if kept is not None and kept[0] is encoder and "{demonstrations}" not in encoder.manifest.config.template:
            return kept[1]
        vectors = _unit_vectors(encoder.encode_document, documents, None)
        self.__dict__["_kept"] = encoder, vectors
        return vectors


def _unit_vectors(encode: Any, texts: list[str], instruction: str | None) -> Any:
    options = {"normalize_embeddings": True, "show_progress_bar": False, "convert_to_numpy": True}
    return np.asarray(encode(texts, prompt=instruction, **options), dtype=np.float64)
