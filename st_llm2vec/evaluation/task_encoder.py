"""What evaluators encode with: an encoder told a task's instruction, and word counts as the baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import cos_sim
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor

from st_llm2vec.folder.encoder import TextEncoder

AT_ONCE = 2048
TERMS = 20_000


class NoCard:
    """Takes an evaluator's scores and keeps none: an encoder's model card is not for every task that is tried."""

    def set_evaluation_metrics(self, *args: Any, **kwargs: Any) -> None:
        """Keep nothing."""


class TaskEncoder:
    """An encoder as Sentence Transformers' evaluators call it, with a task's instruction in its place.

    Args:
        encoder: Any ``SentenceTransformer``.
        instruction: The task's bare instruction; the encoder's own prompts are used without one, and where
            :func:`takes_instructions` is false.
        advance: Called with the numbers of texts as they are done.
        cache: Where vectors of words are kept.
    """

    similarity_fn_name = "cosine"
    similarity = staticmethod(cos_sim)

    def __init__(
        self,
        encoder: SentenceTransformer,
        instruction: str | None = None,
        advance: Callable[[int], object] = lambda texts: None,
        cache: Path | None = None,
    ) -> None:
        self.encoder, self.advance, self.cache = encoder, advance, cache
        self.instruction = instruction if takes_instructions(encoder) else None
        self.model_card_data = NoCard()

    def encode(self, texts: Sequence[str], **_: Any) -> Tensor:
        """Vectors of texts that are compared with each other, or classified, in float32 of shape ``(texts, dimension)``."""
        return self._vectors(self.encoder.encode, texts, self.instruction)

    def encode_query(self, texts: Sequence[str], **_: Any) -> Tensor:
        """Vectors of queries."""
        return self._vectors(self.encoder.encode_query, texts, self.instruction)

    def encode_document(self, texts: Sequence[str], **_: Any) -> Tensor:
        """Vectors of documents, which have no instruction of the task."""
        return self._vectors(self.encoder.encode_document, texts, None)

    def _vectors(self, encode: Callable[..., Tensor], texts: Sequence[str], instruction: str | None) -> Tensor:
        parts = []
        for start in range(0, len(texts), AT_ONCE):
            some = list(texts[start : start + AT_ONCE])
            parts.append(
                encode(some, prompt=instruction, convert_to_tensor=True, show_progress_bar=False).float().cpu()
            )
            self.advance(len(some))
        return torch.cat(parts)


class TfidfEncoder:
    """A baseline without a model: each text's words, weighted by how rare they are (TF-IDF), at most 20,000 of them.

    Args:
        texts: The texts that tell which words there are and how rare they are.

    Raises:
        ValueError: If they hold no words.
    """

    instruction = None
    similarity_fn_name = "cosine"
    similarity = staticmethod(cos_sim)

    def __init__(self, texts: Sequence[str]) -> None:
        self.model_card_data = NoCard()
        self.vectorizer = TfidfVectorizer(sublinear_tf=True, max_features=TERMS)
        try:
            self.vectorizer.fit(texts)
        except ValueError as error:
            raise ValueError(f"TF-IDF found no words of two letters or more in {len(texts)} texts.") from error

    def sparse(self, texts: Sequence[str]) -> Any:
        """Vectors as SciPy's sparse matrix, which scikit-learn reads."""
        return self.vectorizer.transform(texts)

    def encode(self, texts: Sequence[str], **_: Any) -> Tensor:
        """Vectors in float32, of shape ``(texts, words)``."""
        return torch.from_numpy(self.sparse(texts).astype("float32").toarray())

    encode_query = encode_document = encode


def takes_instructions(encoder: SentenceTransformer) -> bool:
    """Whether an encoder knows where a bare instruction goes: one of this package, whose recipe has a place for it.

    Other models were trained with prompts of their own, or with none, and a task's instruction would be read as text.
    """
    manifest = encoder.manifest if isinstance(encoder, TextEncoder) else None
    return manifest is not None and manifest.config.instruction_template is not None
