"""Vectors of words from real models, held against a loop over sentences, words and tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from st_llm2vec import convert
from st_llm2vec.evaluation import encode_words

from ..evaluation.test_words import SENTENCES, agree
from .models import MODELS

pytestmark = pytest.mark.real


def test_decoders_saved_and_loaded(real_decoder: str, tmp_path: Path) -> None:
    encoder = convert(real_decoder, "llm2vec", device="cpu", dtype=torch.float32, measure=False)
    agree(encoder, tolerance=1e-3)
    encoder.save(str(tmp_path))
    agree(SentenceTransformer(str(tmp_path), device="cpu"), tolerance=1e-3)


def test_decoders_in_bfloat16(real_decoder: str) -> None:
    halves, wholes = (
        np.concatenate(encode_words(convert(real_decoder, "sgpt", device="cpu", dtype=dtype), SENTENCES))
        for dtype in (torch.bfloat16, torch.float32)
    )
    cosines = (halves * wholes).sum(1) / np.linalg.norm(halves, axis=1) / np.linalg.norm(wholes, axis=1)
    assert np.median(cosines) > 0.99


def test_minilm() -> None:
    if not (MODELS / "minilm" / "model.safetensors").is_file():
        pytest.skip("there is no all-MiniLM-L6-v2 beside the real decoders")
    agree(SentenceTransformer(str(MODELS / "minilm"), device="cpu"), tolerance=1e-3)
