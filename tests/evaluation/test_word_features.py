from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from st_llm2vec import set_attention
from st_llm2vec.evaluation import encode_words
from st_llm2vec.evaluation import word_features as features_module
from st_llm2vec.evaluation.word_features import word_features

from .test_words import SENTENCES, stock


def test_kept_vectors_are_those_computed_and_cost_no_pass(
    tiny: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, cache, done = stock(tiny("llama")), tmp_path / "cache", []
    monkeypatch.setattr(features_module, "AT_ONCE", 4)
    expected = np.concatenate(encode_words(encoder, SENTENCES))
    first = word_features(encoder, SENTENCES, cache=cache, advance=done.append)
    assert np.allclose(first, expected, atol=1e-5) and np.allclose(word_features(encoder, SENTENCES), first)
    again = stock(encoder[0].model.config._name_or_path)
    monkeypatch.setattr(features_module, "encode_words", None)
    kept = word_features(again, SENTENCES, cache=cache, advance=done.append)
    assert isinstance(kept, np.memmap) and kept.dtype == np.float32 and np.array_equal(kept, first)
    assert done == [4, 2, 6]


def test_whatever_changes_vectors_is_computed_anew(tiny: Callable[..., str], tmp_path: Path) -> None:
    encoder = stock(tiny("llama"))

    def files() -> int:
        word_features(encoder, SENTENCES, cache=tmp_path / "cache")
        return len(list((tmp_path / "cache").iterdir()))

    assert files() == 1
    encoder.tokenizer(["a", "b c"], padding=True, truncation=True, max_length=4)
    encoder.encode("An encoder that was in use.")
    assert files() == 1
    with torch.no_grad():
        next(reversed(list(encoder[0].model.parameters()))).flatten()[-1] += 1e-6
    assert files() == 2
    set_attention(encoder[0].model, "bidirectional")
    assert files() == 3
    encoder.max_seq_length = 12
    assert files() == 4
    encoder.bfloat16()
    assert files() == 5
    word_features(encoder, SENTENCES, True, tmp_path / "cache")
    word_features(encoder, SENTENCES[1:], cache=tmp_path / "cache")
    assert files() == 7


def test_an_interrupted_run_leaves_nothing(
    tiny: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = stock(tiny("llama"))
    monkeypatch.setattr(features_module, "AT_ONCE", 1)

    def interrupt(sentences: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        word_features(encoder, SENTENCES, cache=tmp_path / "cache", advance=interrupt)
    with pytest.raises(ValueError, match="Among the 1 sentences from number 1 on: Sentence 0 .* has no words"):
        word_features(encoder, [["a"], []], cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
