from __future__ import annotations

import json

import pytest

from st_llm2vec import convert
from st_llm2vec.evaluation.analyses import analyse
from st_llm2vec.inspection import inspect_model
from st_llm2vec.inspection.readiness import Readiness, measure_readiness
from st_llm2vec.modules.attention import probe_attention


def readiness(causal: float, bidirectional: float, low: float = 0.6) -> Readiness:
    return Readiness(causal, bidirectional, 3, 60.0, [1.0, 0.8, 0.6], [1.0, 0.5, 0.3], 0.75, (low, 0.9))


@pytest.mark.parametrize(
    ("causal", "bidirectional", "verdict"),
    [(59, 27, "breaks"), (64, 54, "copes"), (30, 25, "poor"), (30, 45, "copes")],
)
def test_the_score_decides(causal: float, bidirectional: float, verdict: str) -> None:
    assert readiness(causal, bidirectional).verdict == verdict


def test_embeddings_do_not_count_and_chance_is_not_use() -> None:
    found = readiness(60, 50)
    assert found.same_state == pytest.approx(0.7) and found.uses_future
    assert not readiness(60, 50, low=0.45).uses_future


def test_it_is_what_the_analysis_finds_and_attention_is_put_back(decoder: str) -> None:
    encoder = convert(decoder, "llm2vec", attention="causal", measure=False)
    found, expected = measure_readiness(encoder.transformer), analyse(encoder)
    assert probe_attention(encoder.transformer.model).kind == "causal"
    assert found.causal == pytest.approx(expected.quality["causal"].scores[-1])
    assert found.bidirectional == pytest.approx(expected.quality["bidirectional"].scores[-1])
    assert found.similarity == pytest.approx(expected.similarity)
    assert found.ranked_right == expected.future["bidirectional"].share


def test_inspect_measures_it(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("st_llm2vec.inspection.decoder.SECONDS", 1e-9)  # no recipe is scored
    found = inspect_model(decoder)
    assert found.readiness is not None and found.readiness.verdict == "copes" and found.stages == ("simcse",)
    data = json.loads(json.dumps(found.to_dict()))
    assert data["readiness"]["verdict"] == "copes" and data["stages"] == ["simcse"]
    assert len(data["readiness"]["similarity"]) == found.layers + 1
