from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from st_llm2vec import TextEncoder, convert
from st_llm2vec.playground.models import Models


@pytest.fixture(scope="session")
def saved(decoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A saved encoder that has a prompt for queries."""
    folder = tmp_path_factory.mktemp("saved") / "my-encoder"
    convert(decoder, "llm2vec", measure=False, prompts={"query": "Find the story:"}).save(str(folder))
    return str(folder)


@pytest.fixture(scope="session")
def models(decoder: str, saved: str) -> Models:
    return Models([decoder, saved])


@pytest.fixture(scope="session")
def made(models: Models, decoder: str) -> Callable[[str], TextEncoder]:
    """The encoder of a recipe."""

    def made(recipe: str) -> TextEncoder:
        with models.opened(Path(decoder).name, recipe) as encoder:
            return encoder

    return made
