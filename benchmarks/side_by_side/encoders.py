"""Subjects that encode: plain Sentence Transformers, this library, and llm2vec."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

BATCH = 32  # the default of Sentence Transformers and of llm2vec


class Encoder:
    """A subject that encodes the texts of a file."""

    about: dict[str, Any]
    texts_mib: float

    def encode(self, texts: list[str]) -> np.ndarray:
        raise NotImplementedError

    def touch(self) -> None:
        self.encode(["One text."])

    def prepare(self, texts: str, first: int | None = None, **_: Any) -> Any:
        read = json.loads(Path(texts).read_text(encoding="utf-8"))["texts"][:first]
        self.texts_mib = sum(map(sys.getsizeof, read)) / 2**20
        return lambda: self.encode(read)

    def describe(self, value: np.ndarray, vectors: str | None = None, **_: Any) -> dict[str, Any]:
        if vectors is not None:
            np.save(vectors, value)
        return {"vectors_mib": value.nbytes / 2**20, "texts_mib": self.texts_mib}


class PlainSentenceTransformers(Encoder):
    """What users of Sentence Transformers have."""

    def __init__(self, folder: str, dtype: str, device: str = "cpu", batch: int = BATCH) -> None:
        from sentence_transformers import SentenceTransformer

        require(device)
        self.model = SentenceTransformer(folder, device=device, model_kwargs={"dtype": torch_dtype(dtype)})
        self.about = {"dtype": dtype_name(self.model.dtype)}
        self.batch = batch

    def encode(self, texts: list[str]) -> np.ndarray:
        return self.model.encode(texts, batch_size=self.batch, show_progress_bar=False)


class ThisLibrary(Encoder):
    """This library's encoder, as ``load`` returns it."""

    def __init__(self, folder: str, dtype: str, device: str = "cpu", compiled: bool = False) -> None:
        import st_llm2vec

        require(device)
        self.model = st_llm2vec.load(folder, dtype=torch_dtype(dtype), device=device)
        if compiled:
            st_llm2vec.accelerate(self.model, compile=True)
        self.about = {"dtype": dtype_name(self.model.dtype)}

    def encode(self, texts: list[str]) -> np.ndarray:
        return self.model.encode(texts, show_progress_bar=False)


class LLM2Vec(Encoder):
    """llm2vec; its own limit of 400 tokens for a document is set to the 512 of the others."""

    def __init__(self, folder: str, dtype: str, device: str = "cpu") -> None:
        from llm2vec import LLM2Vec

        require(device)
        options = {"pooling_mode": "mean", "max_length": 512, "doc_max_length": 512}
        self.device = device
        self.model = LLM2Vec.from_pretrained(folder, torch_dtype=torch_dtype(dtype), **options)
        self.about = {"dtype": dtype_name(self.model.model.dtype)}

    def encode(self, texts: list[str]) -> np.ndarray:
        options = {"batch_size": BATCH, "show_progress_bar": False, "device": self.device}
        return self.model.encode(texts, convert_to_numpy=True, **options)


def torch_dtype(name: str) -> Any:
    return name if name == "auto" else getattr(torch, name)


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def require(device: str) -> None:
    """Refuse to measure the processor instead of a GPU that this environment's torch cannot use."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise RuntimeError(f"torch {torch.__version__} sees no GPU")
