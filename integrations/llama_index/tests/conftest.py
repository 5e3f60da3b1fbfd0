from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from st_llm2vec import convert, decoder_path

torch.set_num_threads(1)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

PROMPTS = {"query": "Find the passage that answers:", "document": "A passage:"}
TEXTS = ["The oak stood in the garden.", "a\nb", "", "A violin is carved from spruce and maple.", "Hello", "x" * 3000]


@pytest.fixture(scope="session")
def portable(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of stock modules only, with a prompt for queries and one for documents."""
    folder = tmp_path_factory.mktemp("encoders") / "portable"
    convert(decoder_path(), "llm2vec", prompts=PROMPTS).save(str(folder))
    return str(folder)


@pytest.fixture(scope="session")
def custom(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with modules of st-llm2vec's own."""
    folder = tmp_path_factory.mktemp("encoders") / "custom"
    convert(decoder_path(), "echo", prompts=PROMPTS).save(str(folder))
    return str(folder)


@pytest.fixture(params=["portable", "custom"])
def folder(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


def shared_cranfield() -> Path:
    """The Cranfield collection, where it is at hand."""
    default = Path(__file__).parents[4] / "shared" / "data"
    found = Path(os.environ.get("ST_LLM2VEC_DATA", default)) / "retrieval" / "cranfield"
    if not found.is_dir():
        pytest.skip("the shared data is not here; set ST_LLM2VEC_DATA to its folder")
    return found
