"""The model whose similarity ranks candidates, as ``mine_hard_negatives`` asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router
from torch import Tensor

NONE = -1
"""The number of the class of a text that has none, and of a text that is asked for once only."""


class Teacher:
    """Gives vectors and similarities, in which a query's own text and the texts of its class are no candidates.

    ``mine_hard_negatives`` compares vectors alone. So each vector ends in two numbers, that of its text and that of its class,
    and :meth:`similarity` puts candidates that share one with the query at minus infinity, which is how the function itself
    marks those that it does not take. The similarity to the positive, which may be of the class, stays what it is.

    Args:
        model: Any ``SentenceTransformer``.
        query_prompt: The instruction of the queries; ``None`` leaves the model's own.
        document_prompt: That of the documents.
        classes: The class of each text; those that have none are of no class.
        keep: Texts whose vectors are kept, since they are asked for again: all queries among them. A corpus may be larger than
            memory, so nothing is kept of its other texts.
        last_rank: Candidates of a query that are compared; :attr:`excluded` counts those that would have been among them.
        progress: Whether the model shows bars.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        classes: Mapping[str, Any] | None = None,
        keep: Sequence[str] = (),
        last_rank: int = 100,
        progress: bool = False,
    ) -> None:
        self.model = model
        self.device = torch.device("cpu")
        self.prompts = {"query": query_prompt, "document": document_prompt}
        self._one_side = query_prompt == document_prompt and _reads_both_alike(model, query_prompt)
        labels = dict.fromkeys((classes or {}).values())
        numbers = {label: number for number, label in enumerate(labels)}
        self._classes = {text: numbers[label] for text, label in (classes or {}).items()}
        self._texts = {text: number for number, text in enumerate(keep)}
        self._kept: dict[tuple[str, str], np.ndarray] = {}
        self._last_rank = last_rank
        self._progress = progress
        self.excluded = 0

    def encode_query(self, texts: list[str], **options: Any) -> np.ndarray:
        """The queries' vectors, of shape ``(texts, width + 2)``."""
        return self._encode("query", texts, options["batch_size"])

    def encode_document(self, texts: list[str], **options: Any) -> np.ndarray:
        """The documents' vectors, of shape ``(texts, width + 2)``."""
        return self._encode("document", texts, options["batch_size"])

    def similarity(self, queries: Any, documents: Any) -> Tensor:
        """The cosine of all with all, of shape ``(queries, documents)``; minus infinity where a document is no candidate."""
        first, second = (torch.as_tensor(one) for one in (queries, documents))
        scores = first[:, :-2] @ second[:, :-2].T
        same = torch.zeros_like(scores, dtype=torch.bool)
        for number in (-1, -2):
            own = first[:, number, None]
            same |= (own == second[:, number]) & (own != NONE)
        kept = scores.masked_fill(same, -float("inf"))
        last = kept.topk(min(self._last_rank, kept.shape[1]), dim=1).values[:, -1:]
        self.excluded += int((same & (scores >= last)).sum())
        return kept

    def similarity_pairwise(self, first: Any, second: Any) -> Tensor:
        """The cosine of each with its own, of shape ``(rows,)``."""
        one, other = (torch.as_tensor(each)[:, :-2] for each in (first, second))
        return (one * other).sum(dim=1)

    def is_excluded(self, query: str, document: str) -> bool:
        """Whether a document is no candidate for a query."""
        label = self._classes.get(query, NONE)
        return query == document or (label != NONE and label == self._classes.get(document, NONE))

    def _encode(self, side: str, texts: list[str], batch_size: int) -> np.ndarray:
        key = "both" if self._one_side else side
        new = [text for text in texts if (key, text) not in self._kept]
        found: dict[str, np.ndarray] = {}
        if new:
            encode = self.model.encode_query if side == "query" else self.model.encode_document
            vectors = encode(
                new,
                prompt=self.prompts[side],
                batch_size=batch_size,
                normalize_embeddings=True,
                show_progress_bar=self._progress,
            )
            found = dict(zip(new, np.asarray(vectors, dtype=np.float32), strict=True))
            self._kept |= {(key, text): found[text] for text in new if text in self._texts}
        rows = np.stack([found[text] if text in found else self._kept[key, text] for text in texts])
        numbers = [(self._classes.get(text, NONE), self._texts.get(text, NONE)) for text in texts]
        return np.concatenate([rows, np.asarray(numbers, dtype=np.float32)], axis=1)


def _reads_both_alike(model: SentenceTransformer, prompt: str | None) -> bool:
    """Whether queries and documents with the same prompt have the same vectors."""
    saved = prompt is None and any(model.prompts.values())
    return not saved and not any(isinstance(module, Router) for module in model)
