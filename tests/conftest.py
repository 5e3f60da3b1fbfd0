"""Small decoders and tokenizers, made here, so that every test runs offline."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from st_llm2vec import decoder_path
from tests.promises import pytest_collection_modifyitems  # noqa: F401
from tests.tiny_decoders import tiny_decoder
from tests.tiny_tokenizers import TOKENIZERS, tiny_tokenizer

torch.set_num_threads(1)

TEXTS = [
    "Once upon a time there was a little girl.",
    "Hello",
    "The old clock in the hall struck seven, and nobody in the house seemed to notice; the cat slept on.",
    "A man is playing a guitar.",
    "12 ships left the harbour",
]
INSTRUCTION = "Retrieve stories that match the query:"
DATA = Path(os.environ.get("ST_LLM2VEC_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_collection_finish() -> None:
    """Keep what was imported out of every later collection of garbage: half a second each, and training asks for it."""
    gc.freeze()


@pytest.fixture(autouse=True)
def unmeasured(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what ``convert`` measures of a decoder to warn of it, but on real ones."""
    if request.node.get_closest_marker("real") is None:
        monkeypatch.setattr("st_llm2vec.evaluation.untrained.sentence_score", lambda encoder: 100.0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real models and reference vectors, where they are at hand."""
    if not DATA.is_dir():
        pytest.skip("the shared data is not here; set ST_LLM2VEC_DATA to its folder")
    return DATA


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The first two layers of the decoder in the box: a pretrained Llama with a byte-level tokenizer and BOS."""
    folder = tmp_path_factory.mktemp("decoder") / "stories"
    model = AutoModelForCausalLM.from_pretrained(decoder_path(), num_hidden_layers=2)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(decoder_path()).save_pretrained(folder)
    shutil.copy(Path(decoder_path()) / "README.md", folder)
    return str(folder)


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, PreTrainedTokenizerFast]:
    return {kind: tiny_tokenizer(kind) for kind in TOKENIZERS}


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., str]:
    """Write a tiny random decoder of a family, with a tokenizer, and return its folder."""

    def write(model_type: str, tokenizer: str = "byte-level+bos", **config: object) -> str:
        folder = tmp_path / f"{model_type}-{tokenizer}"
        model: PreTrainedModel = tiny_decoder(model_type, vocab_size=512, **config)
        model.save_pretrained(folder)
        made = tiny_tokenizer(tokenizer)
        made.model_max_length = 512
        made.save_pretrained(folder)
        return str(folder)

    return write


OTHER_WORDS = ("prompteol-cot", "prompteol-knowledge", "bge-en-icl", "echo-last")
"""Recipes that differ from others, which are tried, in words or in the pooled token alone."""


def crossed(
    first: Iterable[Any], second: Iterable[str], whole: tuple[str, ...], later: Iterable[str] = OTHER_WORDS
) -> list[Any]:
    """Every pair, as parameters: those with the first of ``first`` or with one of ``whole`` now, the rest as slow tests,
    and so are all pairs with one of ``later``."""
    first, later = list(first), set(later)
    return [
        pair
        if pair[1] not in later and (pair[0] == first[0] or pair[1] in whole)
        else pytest.param(*pair, marks=pytest.mark.slow)
        for pair in itertools.product(first, second)
    ]


def but_first(values: Iterable[Any], fast: int = 1) -> list[Any]:
    """Values as parameters: the first of them now, the rest as slow tests."""
    return [one if place < fast else pytest.param(one, marks=pytest.mark.slow) for place, one in enumerate(values)]


def cosine_distance(first: np.ndarray, second: np.ndarray) -> float:
    """The largest cosine distance between rows."""
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    norms = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return float((1 - (first * second).sum(-1) / norms).max())


SameVectors = Callable[..., None]


@pytest.fixture
def same_vectors(record_property: Callable[[str, object], None]) -> Iterator[SameVectors]:
    """Assert that vectors are the same, and report how many were compared and how far apart they are."""
    compared, largest = 0, 0.0

    def compare(first: np.ndarray, second: np.ndarray, tolerance: float = 1e-6) -> None:
        nonlocal compared, largest
        distance = cosine_distance(first, second)
        compared, largest = compared + np.asarray(first).size // np.shape(first)[-1], max(largest, distance)
        assert distance < tolerance

    yield compare
    record_property("cases", compared)
    record_property("figure", f"largest cosine distance {largest:.1e}")
