"""One call for any encoder: the same vectors, without padding, compiled if asked to."""

from __future__ import annotations

import copy
import logging
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from transformers import AutoModel, BertConfig

from st_llm2vec import TextEncoder, accelerate, convert
from st_llm2vec.encoding import accelerate as acceleration
from st_llm2vec.packed.enable import padding_free
from tests.tiny_tokenizers import tiny_tokenizer

from ..conftest import TEXTS, cosine_distance

POOLINGS = ("mean", "max", "cls", "lasttoken", "weightedmean", "mean_sqrt_len_tokens")


def plain(folder: Path, *poolings: str) -> SentenceTransformer:
    tokenizer = tiny_tokenizer("byte-level+bos")
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    config = BertConfig(vocab_size=512, max_position_embeddings=128, pad_token_id=tokenizer.pad_token_id, **sizes)
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pooling = Pooling(64, list(poolings) if len(poolings) > 1 else poolings[0])
    return SentenceTransformer(modules=[Transformer(str(folder)), pooling, Normalize()], device="cpu")


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_plain_encoder_keeps_its_vectors(pooling: str, tmp_path: Path) -> None:
    model = plain(tmp_path, pooling)
    expected = model.encode(TEXTS)
    prompted = model.encode(TEXTS, prompt="query: ")
    assert accelerate(model) is model
    assert padding_free(model[0])
    assert cosine_distance(model.encode(TEXTS), expected) < 1e-6
    assert cosine_distance(model.encode(TEXTS, prompt="query: "), prompted) < 1e-6
    assert cosine_distance(model.encode(TEXTS[0])[None], expected[:1]) < 1e-6
    assert [one.shape[1] for one in model.encode(TEXTS, output_value="token_embeddings")] == [64] * 5


def test_every_pooling_at_once_and_prompts_left_out(tmp_path: Path) -> None:
    model = plain(tmp_path, *POOLINGS)
    model[1].include_prompt = False
    expected = model.encode(TEXTS, prompt="query: ")
    assert cosine_distance(accelerate(model).encode(TEXTS, prompt="query: "), expected) < 1e-6


def test_a_plainly_loaded_decoder(decoder: str, tmp_path: Path) -> None:
    convert(decoder, "prompteol-icl").save(str(tmp_path))
    model = SentenceTransformer(str(tmp_path), device="cpu")
    expected = model.encode(TEXTS)
    assert not isinstance(model, TextEncoder)
    assert cosine_distance(accelerate(accelerate(model)).encode(TEXTS), expected) < 1e-6


def test_nothing_of_it_is_saved(tmp_path: Path) -> None:
    model = accelerate(plain(tmp_path / "bert", "mean"))
    model.save(str(tmp_path / "saved"))
    written = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "saved").rglob("*.json"))
    assert "st_llm2vec" not in written
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert cosine_distance(again.encode(TEXTS), model.encode(TEXTS)) < 1e-6


def test_copies_are_accelerated_too(tmp_path: Path) -> None:
    model = accelerate(plain(tmp_path, "mean"))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert padding_free(twin[0])
        assert twin._inference.args[0] is twin
        assert cosine_distance(twin.encode(TEXTS), model.encode(TEXTS)) < 1e-6


def test_a_first_module_that_is_no_transformer() -> None:
    with pytest.raises(ValueError, match="first module of this encoder is Normalize"):
        accelerate(SentenceTransformer(modules=[Normalize()], device="cpu"))


def test_what_stays_padded_says_so_and_runs(tiny, caplog: pytest.LogCaptureFixture) -> None:
    encoder = convert(tiny("lfm2"), "sgpt")
    with caplog.at_level(logging.WARNING):
        accelerate(encoder)
    assert "Batches stay padded: Lfm2Model has layers that carry states" in caplog.text
    assert encoder.encode(TEXTS).shape[0] == 5


@pytest.mark.slow  # compiled for the first time, a layer takes most of a minute
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_layers_give_the_same_vectors_at_any_length_without_compiling_anew(decoder: str) -> None:
    from torch._dynamo.utils import counters

    encoder = convert(decoder, "llm2vec")
    expected = encoder.encode(TEXTS)
    counters.clear()
    accelerate(encoder, compile=True)
    assert np.allclose(encoder.encode(TEXTS), expected, atol=1e-5)
    for count in (1, 2, 5):
        for length in (1, 3, 40, 300):
            encoder.encode(["word " * (length + number) for number in range(count)])
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


def test_without_a_compiler_it_says_so_and_runs_on(
    decoder: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(acceleration.shutil, "which", lambda name: None)
    encoder = accelerate(convert(decoder, "llm2vec"), compile=True)
    assert "needs a C++ compiler" in caplog.text
    assert encoder.encode(TEXTS).shape == (5, 192)


@pytest.mark.slow
def test_a_failing_compiler_is_given_up(
    decoder: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(acceleration, "COMPILER_OPTIONS", {"cpp.cxx": (None, "no-such-compiler")})
    monkeypatch.setenv("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")
    encoder = convert(decoder, "llm2vec")
    accelerate(encoder, compile=True)
    assert "Not compiled: " in caplog.text
    assert encoder.encode(TEXTS).shape == (5, 192)
