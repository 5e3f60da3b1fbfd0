from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from st_llm2vec import TextEncoder, convert
from st_llm2vec.checking.subject import Subject

from ..conftest import INSTRUCTION, TEXTS
from ..elsewhere import read_here

LAYOUTS = {"llm2vec": "text", "e5-mistral": "message", "echo": "custom"}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few texts, and plain Sentence Transformers in this process: whole checks take minutes on real decoders."""
    monkeypatch.setattr("st_llm2vec.checking.subject.TEXTS", tuple(TEXTS))
    monkeypatch.setattr("st_llm2vec.checking.subject.DRAWN", 2)
    monkeypatch.setattr("st_llm2vec.checking.vectors.BATCHES", 4)
    monkeypatch.setattr("st_llm2vec.checking.doors.read_without_package", read_here)


@pytest.fixture
def encoder(tiny: Callable[..., str]) -> Callable[..., TextEncoder]:
    """Convert a tiny random decoder."""

    def make(recipe: str = "llm2vec", family: str = "llama", prompt: bool = False) -> TextEncoder:
        folder = tiny(family, max_position_embeddings=128)
        prompts = {"query": INSTRUCTION} if prompt else {}
        return convert(folder, recipe, prompts=prompts, max_length=100, device="cpu", dtype=torch.float32)

    return make


@pytest.fixture
def subject(tmp_path: Path) -> Callable[[TextEncoder], Subject]:
    """An encoder and its folder, as they are checked."""

    def make(encoder: TextEncoder) -> Subject:
        encoder.save_pretrained(str(tmp_path / "saved"))
        return Subject(encoder, tmp_path / "saved", None)

    return make
