"""Texts that are read forward and backward."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from st_llm2vec import convert, load
from st_llm2vec.losses import CachedHardNegativesRankingLoss, HardNegativesRankingLoss
from st_llm2vec.modules import InstructionFormatter, MeanOfReadings
from st_llm2vec.recipe.config import get_recipe

from ..conftest import TEXTS, cosine_distance

PLAIN = """
import sys
sys.modules["st_llm2vec"] = None
import numpy as np
from sentence_transformers import SentenceTransformer
encoder = SentenceTransformer(sys.argv[1], trust_remote_code=True, model_kwargs={"dtype": "float32"})
np.save(sys.argv[2], encoder.encode(sys.argv[3:], batch_size=3))
"""


def backward(texts: list[str]) -> list[str]:
    return [" ".join(reversed(text.split())) for text in texts]


@pytest.mark.parametrize("changes", [{}, {"demonstrations": get_recipe("prompteol-icl").demonstrations}])
def test_a_vector_is_the_mean_of_both_readings_through_every_door(decoder: str, tmp_path: Path, changes: dict) -> None:  # type: ignore[type-arg]
    once = convert(decoder, "prompteol", normalize=False, measure=False, **changes)
    both = (once.encode(TEXTS) + once.encode(backward(TEXTS))) / 2
    encoder = convert(decoder, "reverse-eol", measure=False, **changes)
    found = encoder.encode(TEXTS)
    assert found.shape == both.shape and cosine_distance(found, both) < 1e-6
    assert cosine_distance(np.stack([encoder.encode(text) for text in TEXTS]), both) < 1e-6
    assert [len(one) for one in encoder.encode(TEXTS, output_value="token_embeddings")] == [
        len(one) for one in once.encode(TEXTS, output_value="token_embeddings")
    ]
    encoder.save(str(tmp_path / "saved"))
    assert cosine_distance(load(str(tmp_path / "saved")).encode(TEXTS), both) < 1e-6
    plain = SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=True)
    assert cosine_distance(plain.encode(TEXTS, batch_size=3), both) < 1e-6


@pytest.mark.slow
def test_a_folder_loads_where_the_package_is_missing(decoder: str, tmp_path: Path) -> None:
    encoder, vectors = convert(decoder, "reverse-eol", measure=False), tmp_path / "vectors.npy"
    encoder.save(str(tmp_path / "saved"))
    subprocess.run([sys.executable, "-c", PLAIN, str(tmp_path / "saved"), str(vectors), *TEXTS], check=True)
    assert cosine_distance(np.load(vectors), encoder.encode(TEXTS)) < 1e-6


def test_an_instruction_is_read_forward(decoder: str) -> None:
    encoder = convert(decoder, "e5-mistral", readings=["forward", "backward"], measure=False)
    once = convert(decoder, "e5-mistral", normalize=False, measure=False)
    told = ["Name the animal.", None]
    both = once.encode(TEXTS[:2], prompt=told) + once.encode(backward(TEXTS[:2]), prompt=told)
    assert cosine_distance(encoder.encode(TEXTS[:2], prompt=told), both) < 1e-6
    alone = convert(decoder, "e5-mistral", readings=["backward"], measure=False)
    assert cosine_distance(alone.encode(TEXTS), once.encode(backward(TEXTS))) < 1e-6


def test_a_batch_that_was_cut_amid_a_text_is_refused() -> None:
    with pytest.raises(ValueError, match="batch size that 2 divides"):
        MeanOfReadings(2)({"sentence_embedding": torch.ones(3, 4)})
    with pytest.raises(ValueError, match="read twice"):
        MeanOfReadings(1)


@pytest.mark.parametrize("readings", [[], ["sideways"], ["forward", "forward"]])
def test_readings_that_cannot_be_are_refused(readings: list[str]) -> None:
    with pytest.raises(ValueError, match="must name one or more of forward, backward"):
        get_recipe("reverse-eol").replace(readings=readings)
    with pytest.raises(ValueError, match="must name one or more of forward, backward"):
        InstructionFormatter("{text}", readings=readings)


def test_a_folder_without_its_mean_of_readings_is_refused(decoder: str, tmp_path: Path) -> None:
    encoder = convert(decoder, "reverse-eol", measure=False)
    del encoder._modules["2"]
    with pytest.raises(ValueError, match="means of readings"):
        encoder.save(str(tmp_path / "saved"))


def test_cached_gradients_are_those_of_the_whole_batch(decoder: str) -> None:
    encoder = convert(decoder, "reverse-eol", measure=False).eval()
    columns = [encoder.preprocess(TEXTS[:4]), encoder.preprocess([f"It is so: {text}" for text in TEXTS[:4]])]

    def gradients(loss: torch.nn.Module) -> torch.Tensor:
        encoder.zero_grad()
        loss([dict(one) for one in columns], torch.zeros(4)).backward()
        return torch.cat([one.grad.flatten() for one in encoder.parameters() if one.grad is not None])

    whole = gradients(HardNegativesRankingLoss(encoder))
    cached = gradients(CachedHardNegativesRankingLoss(encoder, mini_batch_size=2))
    assert (whole - cached).norm() < 1e-4 * whole.norm()
    with pytest.raises(ValueError, match="cut amid"):
        gradients(CachedHardNegativesRankingLoss(encoder, mini_batch_size=3))
