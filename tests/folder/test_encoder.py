"""What an encoder refuses to be told, since it would change nothing."""

from __future__ import annotations

import pytest

from st_llm2vec import convert


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("max_length", 128, "max_seq_length"),
        ("doc_max_length", 400, "max_seq_length"),
        ("pooling_mode", "eos_token", "pooling=..."),
        ("skip_instruction", False, "mean counts it in"),
    ],
)
def test_attributes_of_llm2vec_are_refused(decoder: str, name: str, value: object, meant: str) -> None:
    encoder = convert(decoder, "llm2vec", measure=False)
    with pytest.raises(AttributeError, match=f"no '{name}': .*{meant}"):
        setattr(encoder, name, value)
    encoder.max_seq_length = 16
    assert encoder.max_seq_length == 16


@pytest.mark.parametrize("call", ["encode", "encode_query", "encode_document"])
def test_an_instruction_by_the_name_of_llm2vec(decoder: str, call: str) -> None:
    encoder = convert(decoder, "llm2vec", measure=False)
    with pytest.raises(ValueError, match="give it as prompt="):
        getattr(encoder, call)(["a cat"], instruction="Name the animal:")
