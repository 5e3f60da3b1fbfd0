"""``STLLM2VecEmbeddings``: an encoder as LangChain embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from langchain_core.embeddings import Embeddings
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator
from sentence_transformers import SentenceTransformer
from typing_extensions import Self

from langchain_st_llm2vec._loading import (
    OneAtATime,
    load_encoder,
    refuse_unknown,
    require_dimension,
    require_instructions_read,
    width,
    with_separator,
)

IN_MEMORY = "(a model in memory)"


class STLLM2VecEmbeddings(BaseModel, Embeddings):
    """Embeddings by an encoder that st-llm2vec made, or by any Sentence Transformers model.

    Documents go through ``encode_document`` and queries through ``encode_query``, so that both have the prompts that
    are saved with the encoder. Texts are left as they are.

    Example:
        ```python
        from langchain_st_llm2vec import STLLM2VecEmbeddings

        embeddings = STLLM2VecEmbeddings(model="my-encoder")
        embeddings.embed_query("How is a violin made?")
        ```
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), populate_by_name=True)

    model_name: str = Field(alias="model")
    """A folder, or a name on the Hugging Face Hub."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    cache_folder: str | None = None
    """Where downloads are kept."""
    device: str | None = None
    """``"cuda"``, ``"cpu"``, ``"mps"``; chosen by Sentence Transformers if not given."""
    trust_remote_code: bool = False
    """Whether code of the repository may run. Not needed where st-llm2vec is installed."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """More arguments for loading: ``dtype``, ``attn_implementation``, ``token``, ``prompts``, and what
    ``SentenceTransformer`` has beside them."""
    query_instruction: str | None = None
    """Bare instruction for queries. ``None``: the encoder's saved one. ``""``: none."""
    document_instruction: str | None = None
    """Bare instruction for documents. ``None``: the encoder's saved one. ``""``: none."""
    batch_size: int = Field(default=32, gt=0)
    """Texts in a batch."""
    normalize: bool = False
    """Whether to give vectors length one, after truncation."""
    truncate_dim: int | None = Field(default=None, gt=0)
    """Keep only the first dimensions (Matryoshka); all if not given."""
    expected_dimension: int | None = Field(default=None, gt=0)
    """The width that vectors must have, such as that of an index that exists; anything else is refused at once."""
    encode_kwargs: dict[str, Any] = Field(default_factory=dict)
    """More arguments for ``encode_document``, and for ``encode_query`` if it has none of its own."""
    query_encode_kwargs: dict[str, Any] = Field(default_factory=dict)
    """More arguments for ``encode_query``."""
    multi_process: bool = False
    """Whether documents are encoded by several processes, one for each GPU."""
    show_progress: bool = False
    """Whether to show a progress bar."""

    _encoder: SentenceTransformer | None = PrivateAttr(default=None)
    _lock: OneAtATime = PrivateAttr(default_factory=OneAtATime)

    @classmethod
    def from_model(cls, model: SentenceTransformer, **fields: Any) -> Self:
        """Use a model that is in memory, such as one that was just converted or trained.

        Args:
            model: The encoder.
            **fields: As for the class, without ``model``.

        Returns:
            The embeddings. They can be pickled, with the model in them, but not be rebuilt from a dictionary or JSON.
        """
        if not isinstance(model, SentenceTransformer):
            raise TypeError(f"from_model takes a SentenceTransformer; {type(model).__name__} was given.")
        made = cls(model=IN_MEMORY, **fields)
        made._encoder = model
        made._require_fit()
        return made

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, given: Any) -> Any:
        """Say what an unknown argument is called here."""
        if isinstance(given, dict):
            refuse_unknown(given, {"model", *cls.model_fields})
        return given

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse what contradicts itself, and load the encoder now, so that a wrong name shows here."""
        asked = (
            ("encode_kwargs", self.encode_kwargs, self.document_instruction),
            ("query_encode_kwargs", self.query_encode_kwargs or self.encode_kwargs, self.query_instruction),
        )
        for name, kwargs, instruction in asked:
            if kwargs.get("precision") in ("int8", "uint8"):
                raise ValueError(
                    f"{name} asks for {kwargs['precision']}, whose ranges would differ from call to call, so that "
                    "vectors could not be compared. Use the vector store's own quantisation, or precision='binary'."
                )
            if "truncate_dim" in kwargs:
                raise ValueError(
                    f"{name} asks for truncate_dim, which has a field of its own: truncate_dim={kwargs['truncate_dim']}, for "
                    "queries and documents alike."
                )
            if instruction is not None and {"prompt", "prompt_name"} & set(kwargs):
                raise ValueError(f"An instruction is given, and a prompt in {name} as well. Give one of them.")
        if self._encoder is None and self.model_name != IN_MEMORY:
            self._encoder = self._load()
            self._require_fit()
        return self

    def _require_fit(self) -> None:
        require_dimension(self.dimension, self.expected_dimension)
        require_instructions_read(self.encoder, self.query_instruction, self.document_instruction)

    @property
    def encoder(self) -> SentenceTransformer:
        """The model; loaded again where this object was unpickled."""
        if self._encoder is None:
            self._encoder = self._load()
        return self._encoder

    @property
    def dimension(self) -> int:
        """The width of the vectors."""
        return width(self.encoder, self.truncate_dim)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents.

        Args:
            texts: The documents.

        Returns:
            Their vectors.
        """
        if isinstance(texts, str):
            raise TypeError("embed_documents takes a list of texts; a single text was given. Put it in a list.")
        texts = list(texts)
        _require_texts(texts)
        if not texts:
            return []
        options = self._options(self.document_instruction, self.encode_kwargs)
        with self._lock:
            if not self.multi_process:
                return _plain(self.encoder.encode_document(texts, **options))
            pool = self.encoder.start_multi_process_pool()
            try:
                return _plain(self.encoder.encode_document(texts, pool=pool, **options))
            finally:
                self.encoder.stop_multi_process_pool(pool)

    def embed_query(self, text: str) -> list[float]:
        """Embed a query.

        Args:
            text: The query.

        Returns:
            Its vector.
        """
        _require_texts([text])
        options = self._options(self.query_instruction, self.query_encode_kwargs or self.encode_kwargs)
        with self._lock:
            return _plain(self.encoder.encode_query([text], **options))[0]

    def _load(self) -> SentenceTransformer:
        if self.model_name == IN_MEMORY:
            raise ValueError(
                "These embeddings were made from a model in memory, which a dictionary or JSON does not hold. Save the "
                "model, and give its folder: STLLM2VecEmbeddings(model=folder)."
            )
        return load_encoder(
            self.model_name,
            revision=self.revision,
            device=self.device,
            cache_folder=self.cache_folder,
            trust_remote_code=self.trust_remote_code,
            model_kwargs=self.model_kwargs,
        )

    def _options(self, instruction: str | None, more: dict[str, Any]) -> dict[str, Any]:
        options: dict[str, Any] = {
            "batch_size": self.batch_size,
            "normalize_embeddings": self.normalize,
            "show_progress_bar": self.show_progress,
            "truncate_dim": self.truncate_dim,
        }
        if instruction is not None:
            options["prompt"] = with_separator(self.encoder, instruction)
        return options | more

    def __getstate__(self) -> dict[Any, Any]:
        """Leave out the model, unless it exists nowhere else."""
        state = super().__getstate__()
        if self.model_name != IN_MEMORY:
            state["__pydantic_private__"] = {**(state["__pydantic_private__"] or {}), "_encoder": None}
        return state


def _require_texts(texts: Sequence[Any]) -> None:
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(
                f"Text {position} is {type(text).__name__} {str(text)[:40]!r}; a string is expected. Convert it or "
                "leave it out."
            )


def _plain(vectors: Any) -> list[list[float]]:
    """Python's own floats."""
    return np.asarray(vectors, dtype=np.float64).tolist()
