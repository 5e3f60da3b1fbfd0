from __future__ import annotations

import logging

import pytest

from st_llm2vec.conversion.convert import convert
from st_llm2vec.inspection import inspect_model

pytestmark = pytest.mark.real


@pytest.mark.slow
def test_what_is_recommended_untrained_scores_best_on_sts_too(real_decoder: str) -> None:
    """On the STS benchmark's dev set prompteol-icl is the best of the untrained recipes on both decoders."""
    found = inspect_model(real_decoder)
    scores = {one.recipe: one.score for one in found.recipes if one.score is not None}
    assert found.untrained == "prompteol-icl"
    assert found.recommended == "llm2vec"
    assert scores["prompteol-icl"] > 70


@pytest.mark.parametrize(("recipe", "warned"), [("llm2vec", True), ("prompteol-icl", False)])
def test_a_near_useless_encoder_is_called_so(
    smollm2: str, recipe: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="st_llm2vec"):
        convert(smollm2, recipe)
    assert ("near-useless" in caplog.text) == warned


@pytest.mark.slow
def test_what_freed_attention_does_is_known_before_training(real_decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Untrained and bidirectional, Gemma 3 has 70 on STS-B dev and SmolLM2 13."""
    monkeypatch.setattr("st_llm2vec.inspection.decoder.SECONDS", 1e-9)
    found = inspect_model(real_decoder)
    breaks = "smollm2" in real_decoder
    assert found.readiness is not None and found.readiness.verdict == ("breaks" if breaks else "copes")
    assert found.stages == (("mntp", "simcse") if breaks else ("simcse",))
    assert found.readiness.uses_future
