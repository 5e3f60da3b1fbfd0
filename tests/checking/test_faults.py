"""An encoder that was made wrong on purpose fails the check of what is wrong with it."""

from __future__ import annotations

import json
import math
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.sentence_transformer.modules import Pooling

from st_llm2vec import TextEncoder, set_attention
from st_llm2vec.checking.doors import drift, plain_reading, reloaded
from st_llm2vec.checking.finding import Finding
from st_llm2vec.checking.parallel import asyncio_tasks, threads
from st_llm2vec.checking.reading import specified, text_is_text, truncated
from st_llm2vec.checking.subject import Subject
from st_llm2vec.checking.vectors import attention, padded, random_batches
from st_llm2vec.layouts.special_tokens import set_split

Make = Callable[..., TextEncoder]
Ask = Callable[[TextEncoder], Subject]


def test_attention_that_is_not_the_recipes(encoder: Make, subject: Ask) -> None:
    asked = subject(encoder())
    assert next(attention(asked)).passed
    set_attention(asked.encoder.transformer.model, "causal")
    found = next(attention(asked))
    assert found.passed is False and "meant to attend in both directions" in found.found


def test_another_pooling_than_the_recipes(encoder: Make, subject: Ask) -> None:
    asked = subject(encoder("e5-mistral"))
    [place] = [at for at, module in enumerate(asked.encoder) if isinstance(module, Pooling)]
    asked.encoder[place] = Pooling(asked.encoder.get_embedding_dimension(), "mean")
    found = next(specified(asked))
    assert found.passed is False and found.figure > 1e-3


def test_a_vector_that_depends_on_its_neighbours(encoder: Make, subject: Ask) -> None:
    asked = subject(encoder())

    def leak(module: torch.nn.Module, args: Any, features: dict[str, torch.Tensor]) -> None:
        features["token_embeddings"] = features["token_embeddings"] + features["token_embeddings"].mean(0, keepdim=True)

    asked.encoder[0].register_forward_hook(leak)
    found = next(random_batches(asked))
    assert found.passed is False and "alone and in 5 batches" in found.found


def test_positions_that_padding_shifts(encoder: Make, subject: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = subject(encoder("sgpt", "gpt2"))
    assert [one.passed for one in padded(asked)] == [True, True]
    monkeypatch.setattr("st_llm2vec.encoding.text_reader.add_position_ids", lambda features, model: features)
    assert [(one.check, one.passed) for one in padded(asked)] == [
        ("padding on the right", True),
        ("padding on the left", False),
    ]


def test_a_template_that_is_cut_off(encoder: Make, subject: Ask) -> None:
    asked = subject(encoder("prompteol"))
    assert next(truncated(asked)).passed
    asked.encoder.preprocess = lambda texts, prompt=None: asked.encoder.tokenizer(  # type: ignore[method-assign]
        [f"This sentence : {text} means in one word:" for text in texts],
        truncation=True, max_length=100, return_tensors="pt",
    )  # fmt: skip
    found = next(truncated(asked))
    assert found.passed is False and "the template around it must stay" in found.found


def test_special_tokens_that_end_a_text(encoder: Make, subject: Ask) -> None:
    asked = subject(encoder())
    assert next(text_is_text(asked)).passed
    set_split(asked.encoder.tokenizer, False)
    found = next(text_is_text(asked))
    assert found.passed is False and "is read as a control token" in found.found


def test_weights_that_are_not_saved_as_they_are(encoder: Make, subject: Ask) -> None:
    asked = subject(encoder())
    weights = load_file(asked.saved / "model.safetensors")
    save_file(
        {name: one + 0.1 * torch.randn_like(one) for name, one in weights.items()},
        asked.saved / "model.safetensors", {"format": "pt"},
    )  # fmt: skip
    for found in (next(reloaded(asked)), next(plain_reading(asked)), drift(asked, "bfloat16")):
        assert found.passed is False and found.figure > found.tolerance


def test_a_folder_that_plain_sentence_transformers_reads_otherwise(encoder: Make, subject: Ask, tmp_path: Path) -> None:
    asked = subject(encoder("e5-mistral"))
    asked.folder = Path(shutil.copytree(asked.saved, tmp_path / "given"))
    assert next(plain_reading(asked)).passed
    [file] = asked.folder.glob("*_Pooling/config.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "pooling_mode": "mean"}))
    assert next(plain_reading(asked)).passed is False


def test_a_folder_that_plain_sentence_transformers_cannot_read(encoder: Make, subject: Ask, monkeypatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise ValueError("SentenceTransformer could not read it.")

    asked = subject(encoder())
    monkeypatch.setattr("st_llm2vec.checking.doors.read_without_package", refuse)
    assert next(plain_reading(asked)).found == "SentenceTransformer could not read it."
    assert next(plain_reading(asked)).passed is False


def test_a_type_whose_range_the_model_leaves(encoder: Make, subject: Ask) -> None:
    asked = subject(encoder("e5-mistral"))
    with torch.no_grad():
        asked.encoder.transformer.model.layers[0].mlp.down_proj.weight.mul_(1e5)
        asked.encoder.transformer.model.layers[0].mlp.up_proj.weight.mul_(1e3)
    asked.encoder.save_pretrained(str(asked.saved))
    assert drift(asked, "float32").passed
    found = drift(asked, "float16")
    assert found.passed is False and "texts are not finite" in found.found


def test_weights_that_another_type_cannot_hold(encoder: Make, subject: Ask) -> None:
    spoilt = encoder()
    torch.nn.init.constant_(spoilt.transformer.model.layers[0].mlp.down_proj.weight, 1e5)
    assert "weights that are not finite" in drift(subject(spoilt), "float16").found


def test_vectors_that_are_no_numbers_pass_nothing() -> None:
    assert not Finding.measured("16 threads", "in half precision", math.inf, math.inf).passed
    assert not Finding.measured("16 threads", "in half precision", math.nan, math.inf).passed
    assert Finding.measured("16 threads", "in half precision", math.inf, 1e-3).to_dict()["figure"] is None


@pytest.mark.parametrize("check", [threads, asyncio_tasks])
def test_an_encoder_that_is_not_for_many_at_once(encoder: Make, subject: Ask, check: Callable) -> None:
    asked, lock = subject(encoder()), threading.Lock()
    real, current = asked.encoder.encode, {}

    def encode(texts: list[str], **options: Any) -> Any:
        current["texts"] = texts
        time.sleep(0.01)
        with lock:
            return real(current["texts"], **options)

    asked.encoder.encode = encode  # type: ignore[method-assign]
    found = next(check(asked))
    assert found.passed is False and "16 calls of 6 texts" in found.found
