from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from st_llm2vec import convert
from st_llm2vec.evaluation.fingerprint import encoder_fingerprint
from st_llm2vec.evaluation.sentence_score import sentence_score
from st_llm2vec.reporting.measure import begin_report, look_inside, measure_model, steps

from ..evaluation.test_words import plain
from ..tiny_decoders import tiny_decoder
from ..tiny_tokenizers import tiny_tokenizer


def test_a_model_is_measured_once(decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, report, done = convert(decoder, "llm2vec", measure=False), begin_report([]), []
    kept = (tmp_path, encoder_fingerprint(encoder))
    found = measure_model(encoder, "mine", report, *kept, advance=done.append)
    inside = look_inside(encoder, *kept, advance=done.append)
    assert sum(done) == steps(report)
    assert found.results[0].main == pytest.approx(sentence_score(encoder), abs=1e-3)
    assert report.baseline[0].main < found.results[0].main
    assert found.facts["recipe"] == "llm2vec" and found.facts["trained"] == "no"
    assert len(found.places) == len(report.mapped.texts)
    assert inside.pieces[:2] == ["My", "sister"] and inside.future["share"] > 0.5
    assert np.shape(inside.states) == (3, len(inside.pieces)) and np.allclose(inside.states[0], 1, atol=1e-5)

    def computed(*_: object, **__: object) -> None:
        raise AssertionError("it was computed anew")

    monkeypatch.setattr("st_llm2vec.reporting.measure.analyse", computed)
    monkeypatch.setattr(type(encoder), "encode", computed)
    again = measure_model(encoder, "mine", report, *kept)
    assert [tuple(one) for one in again.places] == found.places and again.results == found.results
    assert asdict(look_inside(encoder, *kept)) == json.loads(json.dumps(asdict(inside)))
    with pytest.raises(AssertionError):
        look_inside(encoder, *kept, again=True)


def test_models_without_layers_have_scores_and_places() -> None:
    encoder = SentenceTransformer(modules=[StaticEmbedding(tiny_tokenizer("byte-level+bos"), embedding_dim=8)])
    found = measure_model(encoder, "static", begin_report([]))
    assert np.isfinite(found.results[0].main) and len(found.places) == 32
    inside = look_inside(encoder)
    assert "has no states of tokens" in inside.refusal and not inside.analysis and not inside.states


def test_a_model_with_one_kind_of_attention_is_called_by_it(tmp_path: Path) -> None:
    encoder = plain(tiny_tokenizer("byte-level+bos"), tmp_path, tiny_decoder("gpt_neo", vocab_size=512))
    inside = look_inside(encoder)
    assert inside.refusal == "It has causal attention only, as a GPTNeoModel has." and inside.analysis["quality"]
