"""One encoder for many at once: from 16 threads and from asyncio, a text has the vector that it has alone."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from st_llm2vec import accelerate, convert

from .conftest import INSTRUCTION, TEXTS, SameVectors, but_first
from .promises import Promise

THREADS, CALLS = 16, 32
OTHERS = ["a </s> cat", "北京是中国的首都", "the cat slept on " * 12]
Make = Callable[[str], SentenceTransformer]


@pytest.fixture
def make(tiny: Callable[..., str], tmp_path: Path) -> Make:
    """An encoder of this package; one that plain Sentence Transformers loaded, accelerated; or one with compiled layers."""

    def make(kind: str) -> SentenceTransformer:
        recipe = kind if kind in ("llm2vec", "e5-mistral", "echo") else "llm2vec"
        folder = tiny("llama", max_position_embeddings=128)
        encoder = convert(folder, recipe, prompts={"query": INSTRUCTION}, max_length=100, device="cpu")
        if kind == "compiled":
            return accelerate(encoder, compile=True)
        if kind == "accelerated":
            encoder.save_pretrained(str(tmp_path / "saved"))
            return accelerate(SentenceTransformer(str(tmp_path / "saved"), device="cpu"))
        return encoder

    return make


@pytest.mark.promise(Promise.ONE_VECTOR)
@pytest.mark.parametrize("kind", ["llm2vec", "e5-mistral", "echo", "accelerated", *but_first(["compiled"], 0)])
def test_many_at_once_get_what_each_gets_alone(make: Make, kind: str, same_vectors: SameVectors) -> None:
    encoder, texts, draws = make(kind), [*TEXTS, *OTHERS], random.Random(kind)
    alone = {name: np.stack([encoder.encode(text, prompt_name=name) for text in texts]) for name in (None, "query")}
    calls = [
        (draws.choice([None, "query"]), draws.sample(range(len(texts)), k=draws.randint(1, len(texts))))
        for _ in range(CALLS)
    ]
    asked = [partial(encoder.encode, [texts[row] for row in rows], prompt_name=name) for name, rows in calls]

    async def gather() -> list[np.ndarray]:
        return await asyncio.gather(*map(asyncio.to_thread, asked))

    with ThreadPoolExecutor(THREADS) as pool:
        by_threads = list(pool.map(lambda call: call(), asked))
    for found in (by_threads, asyncio.run(gather())):
        for (name, rows), vectors in zip(calls, found, strict=True):
            same_vectors(vectors, alone[name][rows])


@pytest.mark.parametrize("kind", ["llm2vec", "e5-mistral", "accelerated"])
def test_what_one_call_sets_on_the_tokenizer_is_not_read_by_another(
    make: Make, kind: str, monkeypatch: pytest.MonkeyPatch, same_vectors: SameVectors
) -> None:
    """Texts that are cut, texts that are not, and prompts that are new cut and pad otherwise: here each waits in between."""
    encoder, texts = make(kind), ["Hello", "a cat", "a long text " * 40]
    told = [f"Find number {number}:" for number in range(6)]
    alone = {name: encoder.encode(texts, prompt=name) for name in [None, *told]}
    if kind != "accelerated":
        encoder._fitting_prompts.clear()
        encoder._rendering = type(encoder._rendering)()
    tokenizer, sets = encoder.tokenizer, encoder.tokenizer.set_truncation_and_padding

    def set_and_wait(*args: Any, **kwargs: Any) -> None:
        sets(*args, **kwargs)
        time.sleep(0.003)

    monkeypatch.setattr(tokenizer, "set_truncation_and_padding", set_and_wait)
    names = [name for one in told for name in (None, one)]
    with ThreadPoolExecutor(THREADS) as pool:
        asked = pool.map(lambda name: encoder.encode(texts[:2] if name is None else texts, prompt=name), names)
        for name, vectors in zip(names, asked, strict=True):
            same_vectors(vectors, alone[name][: len(vectors)])
