"""What a page may load is what it was started with, once each, and one request at a time has it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from st_llm2vec import decoder_path
from st_llm2vec.playground import models as module
from st_llm2vec.playground.comparison import Question, by_encoder
from st_llm2vec.playground.models import FIRST, OFFERED, OWN, Models


def test_models_are_told_apart(models: Models) -> None:
    assert models.decoders == ("stories",)
    assert models.encoders == ("my-encoder",)
    assert Models([decoder_path()]).decoders == (OWN,)
    assert "nv-embed" not in OFFERED and set(FIRST) <= set(OFFERED)
    with pytest.raises(ValueError, match="There is no model to try"):
        Models([])


@pytest.mark.parametrize(
    ("model", "recipe", "sentence"),
    [
        ("/etc", "llm2vec", "There is no model '/etc' on this page; it was started with stories, my-encoder"),
        ("org/name", "llm2vec", "There is no model 'org/name'"),
        ("stories", "/tmp/mine.yaml", "There is no recipe '/tmp/mine.yaml' on this page"),
        ("stories", "nv-embed", "There is no recipe 'nv-embed'"),
        ("stories", None, "There is no recipe None"),
        ("my-encoder", "echo", "my-encoder is a saved encoder and has its recipe"),
    ],
)
def test_nothing_else_is_loaded(models: Models, model: str, recipe: str | None, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence), models.opened(model, recipe):
        pass


def test_many_at_once_get_what_each_gets_alone(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    converted, convert, using = [], module.convert, threading.Semaphore(1)

    def counted(name: str, recipe: str, **options: Any) -> Any:
        converted.append(recipe)
        return convert(name, recipe, **options)

    monkeypatch.setattr(module, "convert", counted)
    recipes, question = ("echo", "sgpt", "last-token"), Question("a bird", ("A bird sings.", "It rains."))

    def ask(models: Models, recipe: str) -> np.ndarray:
        with models.opened("stories", recipe) as encoder:
            assert using.acquire(blocking=False), "two have an encoder at once"
            found = by_encoder(encoder, question).to_query
            using.release()
            return found

    models = Models([decoder])
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda recipe: ask(models, recipe), recipes * 3))
    assert sorted(converted) == sorted(recipes)
    for at, recipe in enumerate(recipes):
        for other in found[at :: len(recipes)]:
            assert np.allclose(other, ask(models, recipe), atol=1e-6)
    assert not np.allclose(found[0], found[1], atol=1e-3)


def test_what_was_used_longest_ago_goes_first(decoder: str) -> None:
    models, held = Models([decoder], kept=2), {}
    for recipe in ("echo", "sgpt", "echo", "last-token", "echo", "sgpt"):
        with models.opened("stories", recipe) as encoder:
            held.setdefault(recipe, []).append(encoder)
    assert held["echo"][0] is held["echo"][1] is held["echo"][2]
    assert held["sgpt"][0] is not held["sgpt"][1]
