"""``STLLM2VecEmbedding``: an encoder as a LlamaIndex embedding."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.embeddings.st_llm2vec._loading import (
    OneAtATime,
    load_encoder,
    refuse_unknown,
    require_dimension,
    require_instructions_read,
    width,
    with_separator,
)
from sentence_transformers import SentenceTransformer


class STLLM2VecEmbedding(BaseEmbedding):
    """Embedding by an encoder that st-llm2vec made, or by any Sentence Transformers model.

    Texts go through ``encode_document`` and queries through ``encode_query``, so that both have the prompts that are
    saved with the encoder. Every argument is a field, so ``from_dict(to_dict())`` rebuilds the object.

    Args:
        model_name: A folder, or a name on the Hugging Face Hub.
        **fields: The other fields.

    Example:
        ```python
        from llama_index.embeddings.st_llm2vec import STLLM2VecEmbedding

        embed_model = STLLM2VecEmbedding("my-encoder")
        embed_model.get_query_embedding("How is a violin made?")
        ```
    """

    model_name: str = Field(description="A folder, or a name on the Hugging Face Hub.")
    embed_batch_size: int = Field(default=32, gt=0, le=2048, description="Texts in a batch.")
    revision: str | None = Field(default=None, description="Branch, tag or commit on the Hub.")
    cache_folder: str | None = Field(default=None, description="Where downloads are kept.")
    device: str | None = Field(default=None, description="cuda, cpu, mps; chosen if not given.")
    trust_remote_code: bool = Field(
        default=False,
        description="Whether code of the repository may run. Not needed where st-llm2vec is installed.",
    )
    query_instruction: str | None = Field(
        default=None, description="Bare instruction for queries. None: the saved one. Empty: none."
    )
    text_instruction: str | None = Field(
        default=None, description="Bare instruction for texts. None: the saved one. Empty: none."
    )
    normalize: bool = Field(default=False, description="Whether to give vectors length one, after truncation.")
    truncate_dim: int | None = Field(default=None, gt=0, description="Keep only the first dimensions (Matryoshka).")
    expected_dimension: int | None = Field(
        default=None, gt=0, description="The width that vectors must have, such as that of an index that exists."
    )
    show_progress_bar: bool = Field(default=False, description="Whether to show a progress bar.")
    model_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="More arguments for loading: dtype, attn_implementation, prompts."
    )

    _encoder: SentenceTransformer = PrivateAttr()
    _lock: OneAtATime = PrivateAttr(default_factory=OneAtATime)

    def __init__(self, model_name: str, **fields: Any) -> None:
        refuse_unknown(fields, type(self).model_fields)
        super().__init__(model_name=model_name, **fields)
        if "token" in self.model_kwargs:
            raise ValueError(
                "A token in model_kwargs would be written into caches and stored indices. Log in with `hf auth login` "
                "or set the environment variable HF_TOKEN instead."
            )
        self._encoder = load_encoder(
            self.model_name,
            revision=self.revision,
            device=self.device,
            cache_folder=self.cache_folder,
            trust_remote_code=self.trust_remote_code,
            model_kwargs=self.model_kwargs,
        )
        require_dimension(self.dimension, self.expected_dimension)
        require_instructions_read(self._encoder, self.query_instruction, self.text_instruction)

    @classmethod
    def class_name(cls) -> str:
        """The name under which it is serialised."""
        return "STLLM2VecEmbedding"

    @property
    def encoder(self) -> SentenceTransformer:
        """The model."""
        return self._encoder

    @property
    def dimension(self) -> int:
        """The width of the vectors."""
        return width(self._encoder, self.truncate_dim)

    def get_query_embedding(self, query: str) -> Embedding:
        """Embed a query; never from ``embeddings_cache``, whose keys do not tell a query from a text."""
        return super(STLLM2VecEmbedding, self._without_cache()).get_query_embedding(query)

    async def aget_query_embedding(self, query: str) -> Embedding:
        """Embed a query without blocking the event loop."""
        return await super(STLLM2VecEmbedding, self._without_cache()).aget_query_embedding(query)

    def _without_cache(self) -> STLLM2VecEmbedding:
        return self if self.embeddings_cache is None else self.model_copy(update={"embeddings_cache": None})

    def _get_query_embedding(self, query: str) -> Embedding:
        _require_texts([query])
        with self._lock:
            return _plain(self._encoder.encode_query([query], **self._options(self.query_instruction)))[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        _require_texts(texts)
        if not texts:
            return []
        with self._lock:
            return _plain(self._encoder.encode_document(texts, **self._options(self.text_instruction)))

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

    def _options(self, instruction: str | None) -> dict[str, Any]:
        options: dict[str, Any] = {
            "batch_size": self.embed_batch_size,
            "normalize_embeddings": self.normalize,
            "show_progress_bar": self.show_progress_bar,
            "truncate_dim": self.truncate_dim,
        }
        if instruction is not None:
            options["prompt"] = with_separator(self._encoder, instruction)
        return options

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the model, which is loaded again."""
        bare = self.model_copy()
        bare.__pydantic_private__ = None
        return super(STLLM2VecEmbedding, bare).__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Load the model again, and say why where that fails; the base class would go on without a model."""
        type(self).__init__(self, **state["__dict__"])


def _require_texts(texts: Sequence[Any]) -> None:
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(
                f"Text {position} is {type(text).__name__} {str(text)[:40]!r}; a string is expected. Convert it or "
                "leave it out."
            )


def _plain(vectors: Any) -> list[Embedding]:
    """Python's own floats."""
    return np.asarray(vectors, dtype=np.float64).tolist()
