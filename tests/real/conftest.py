"""Real decoders, where they are at hand: `make test-real` brings them."""

from __future__ import annotations

import os

import pytest
import torch

from tests.real.models import real_model

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
torch.set_num_threads(max(1, (os.cpu_count() or 1) // WORKERS))  # tests/conftest.py takes one, for small models


@pytest.fixture(scope="session", params=["smollm2", pytest.param("gemma3", marks=pytest.mark.slow)])
def real_decoder(request: pytest.FixtureRequest) -> str:
    """Each real decoder in turn; what takes minutes runs on the second one with `make test-slow`."""
    return real_model(request.param)


@pytest.fixture(scope="session")
def smollm2() -> str:
    """SmolLM2-135M-Instruct: bfloat16, byte-level BPE without BOS, a chat template."""
    return real_model("smollm2")


@pytest.fixture(scope="session")
def gemma3() -> str:
    """Gemma 3 270M: bfloat16, sliding windows, a tokenizer class of its own with BOS."""
    return real_model("gemma3")
