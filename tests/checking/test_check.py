"""All checks in turn: what they say of sound encoders, of folders that others saved, and of what is no encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer

from st_llm2vec import TextEncoder
from st_llm2vec.checking import check, failures
from st_llm2vec.checking.subject import Subject
from st_llm2vec.checking.vectors import attention

from ..conftest import but_first
from .conftest import LAYOUTS

EVERY = [
    "attention",
    "what is pooled",
    "texts in random batches",
    "padding on the right",
    "padding on the left",
    "truncation",
    "special tokens in texts",
    "saving and loading",
    "plain Sentence Transformers",
    "16 threads",
    "asyncio",
    "float32",
    "bfloat16",
    "float16",
]


def test_a_causal_folder_that_lost_its_recipe_does_not_say_what_its_attention_is_meant_to_be(
    encoder: Callable[..., TextEncoder], subject: Callable[[TextEncoder], Subject]
) -> None:
    asked = subject(encoder("e5-mistral"))
    asked.encoder.manifest = None
    found = next(attention(asked))
    assert found.result == "not applicable" and "It is causal under" in found.found


@pytest.mark.parametrize("recipe", but_first(LAYOUTS))
def test_a_sound_encoder_passes(encoder: Callable[..., TextEncoder], recipe: str) -> None:
    steps: list[str] = []
    made = encoder(recipe, prompt=True)
    assert made.layout == LAYOUTS[recipe]
    findings = check(made, progress=steps.append)
    assert [one.check for one in findings] == EVERY
    assert all(one.passed for one in findings), [one for one in findings if not one.passed]
    assert all(one.figure <= one.tolerance for one in findings if one.figure is not None)
    assert any("asyncio" in step for step in steps)


def test_a_folder_in_bfloat16_is_held_against_its_own_rounding(
    encoder: Callable[..., TextEncoder], tmp_path: Path
) -> None:
    encoder().bfloat16().save_pretrained(str(tmp_path / "half"))
    findings = check(tmp_path / "half", dtypes=["bfloat16"])
    assert not failures(findings)
    assert {one.check: one.tolerance for one in findings}["16 threads"] >= 1e-3


@pytest.mark.slow
def test_a_folder_that_plain_sentence_transformers_saved_has_no_recipe(
    encoder: Callable[..., TextEncoder], tmp_path: Path
) -> None:
    encoder().save_pretrained(str(tmp_path / "ours"))
    SentenceTransformer(str(tmp_path / "ours")).save_pretrained(str(tmp_path / "plain"))
    findings = {one.check: one for one in check(tmp_path / "plain", dtypes=[])}
    assert findings["what is pooled"].result == "not applicable"
    assert "no st_llm2vec.json" in findings["what is pooled"].found
    assert {one.result for name, one in findings.items() if name != "what is pooled"} == {"pass"}


def test_what_is_no_encoder_is_refused(decoder: str) -> None:
    with pytest.raises(ValueError, match="not an encoder yet"):
        check(decoder)
    with pytest.raises(ValueError, match="takes an encoder of this package or its folder, not a Linear"):
        check(torch.nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'int8' is not one of float32"):
        check(decoder, dtypes=["int8"])
