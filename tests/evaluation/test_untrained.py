from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from st_llm2vec.conversion.convert import convert
from st_llm2vec.conversion.decoder import load_model
from st_llm2vec.evaluation import untrained
from st_llm2vec.training import MNTP


@pytest.fixture
def poor(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every encoder that is scored scores badly, and is kept."""
    scored: list[object] = []
    monkeypatch.setattr(untrained, "sentence_score", lambda encoder: scored.append(encoder) or 5.0)
    return scored


def warned(caplog: pytest.LogCaptureFixture) -> bool:
    return any("before it is trained" in record.getMessage() for record in caplog.records)


def test_a_bidirectional_recipe_that_makes_poor_vectors_is_called_so(
    decoder: str, poor: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    encoder = convert(decoder, "llm2vec")
    assert poor == [encoder]
    assert "score 5 of 100" in caplog.text and "prompteol-icl" in caplog.text and "st-llm2vec inspect" in caplog.text


def test_a_good_one_is_not(decoder: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(untrained, "sentence_score", lambda encoder: 80.0)
    convert(decoder, "llm2vec")
    assert not warned(caplog)


def test_what_is_not_looked_at(
    decoder: str, tmp_path: Path, poor: list[object], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Causal recipes, loaded models, training's own conversion, large models, and whoever says no."""
    convert(decoder, "prompteol")
    convert(decoder, "llm2vec", measure=False)
    tokenizer = convert(decoder, "sgpt").tokenizer
    convert(load_model(decoder, None, None, {}), "llm2vec", tokenizer=tokenizer)
    MNTP(model=decoder, output=str(tmp_path / "run"), data=["a text"]).start()
    monkeypatch.setattr(untrained, "LARGEST", 1_000)
    convert(decoder, "llm2vec", device="cpu")
    assert poor == []
    assert not warned(caplog)


def test_random_latent_attention_is_called_random(
    tiny: Callable[..., str], caplog: pytest.LogCaptureFixture, poor: list[object]
) -> None:
    with caplog.at_level(logging.WARNING):
        convert(tiny("llama"), "nv-embed")
    assert "random until it is trained" in caplog.text
    assert poor == []
