from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from st_llm2vec import TextEncoder, convert
from st_llm2vec.checking.subject import Subject

from ..conftest import INSTRUCTION, TEXTS
from ..elsewhere import read_here
from ..tiny_decoders import tiny_decoder
from ..tiny_tokenizers import tiny_tokenizer

LAYOUTS = {"llm2vec": "text", "e5-mistral": "message", "echo": "custom"}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few texts, and plain Sentence Transformers in this process: whole checks take minutes on real decoders."""
    monkeypatch.setattr("st_llm2vec.checking.subject.TEXTS", tuple(TEXTS))
    monkeypatch.setattr("st_llm2vec.checking.subject.DRAWN", 2)
    monkeypatch.setattr("st_llm2vec.checking.vectors.BATCHES", 4)
    monkeypatch.setattr("st_llm2vec.checking.doors.read_without_package", read_here)


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TextEncoder]:
    """Convert a tiny random decoder, once for all tests."""

    @functools.cache
    def make(recipe: str, family: str, prompt: bool) -> TextEncoder:
        folder = tmp_path_factory.mktemp(family)
        tiny_decoder(family, vocab_size=512, max_position_embeddings=128).save_pretrained(folder)
        tiny_tokenizer("byte-level+bos").save_pretrained(folder)
        prompts = {"query": INSTRUCTION} if prompt else {}
        return convert(folder, recipe, prompts=prompts, max_length=100, device="cpu", measure=False)

    return make


@pytest.fixture
def encoder(converted: Callable[..., TextEncoder]) -> Callable[..., TextEncoder]:
    """An encoder that a test may spoil."""

    def make(recipe: str = "llm2vec", family: str = "llama", prompt: bool = False) -> TextEncoder:
        return copy.deepcopy(converted(recipe, family, prompt))

    return make


@pytest.fixture
def subject(tmp_path: Path) -> Callable[[TextEncoder], Subject]:
    """An encoder and its folder, as they are checked."""

    def make(encoder: TextEncoder) -> Subject:
        encoder.save_pretrained(str(tmp_path / "saved"))
        return Subject(encoder, tmp_path / "saved", None)

    return make
