"""Where real decoders are, if they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

MODELS = Path(os.environ.get("ST_LLM2VEC_MODELS", "~/.cache/st-llm2vec-models")).expanduser()
NAMES = {"smollm2": "smollm2-135m", "gemma3": "gemma3-270m"}


def real_model(name: str) -> str:
    """A real decoder's folder; without it the test is skipped."""
    folder = MODELS / NAMES[name]
    if not (folder / "model.safetensors").is_file():
        pytest.skip(f"{folder} is not here; `make test-real` brings it")
    return str(folder)
