"""Vectors of the methods' own implementations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import MistralConfig, MistralModel, PreTrainedTokenizerFast

from st_llm2vec import convert

from .conftest import SameVectors
from .promises import Promise


@pytest.mark.promise(Promise.IMPORTED)
@pytest.mark.parametrize(
    ("key", "overrides"),
    [
        ("mean", {}),
        ("weighted_mean", {"pooling": "weighted_mean"}),
        ("causal_weighted_mean", {"pooling": "weighted_mean", "attention": "causal"}),
        (
            "eos_token",
            {
                "pooling": "last_token",
                "template": "{bos}{text} {eos}",
                "instruction_template": "{bos}{instruction} {text} {eos}",
            },
        ),
    ],
)
def test_llm2vec_vectors(shared_data: Path, key: str, overrides: dict, same_vectors: SameVectors) -> None:
    reference = json.loads((shared_data / "reference/llm2vec-stories260k.json").read_text())
    texts, instruction = reference["texts"], reference["instruction"]
    encoder = convert(shared_data / "models/stories260k", "llm2vec", prompts={"query": instruction}, **overrides)
    same_vectors(encoder.encode(texts), reference[key])
    same_vectors(encoder.encode_document(texts), reference[key])
    if f"{key}+instruction" in reference:
        expected = reference[f"{key}+instruction"]
        same_vectors(encoder.encode_query(texts), expected)
        same_vectors(encoder.encode(texts, prompt=instruction), expected)
        same_vectors(encoder.encode(texts, prompt_name="query"), expected)


@pytest.mark.promise(Promise.IMPORTED)
def test_llm2vec_vectors_through_plain_sentence_transformers(
    shared_data: Path, tmp_path: Path, same_vectors: SameVectors
) -> None:
    reference = json.loads((shared_data / "reference/llm2vec-stories260k.json").read_text())
    texts, bare = reference["texts"], reference["instruction"]
    encoder = convert(shared_data / "models/stories260k", "llm2vec", prompts={"query": bare, "other": "Tell it:"})
    encoder.save_pretrained(str(tmp_path / "saved"))
    plain = SentenceTransformer(str(tmp_path / "saved"))
    for side in ("left", "right"):
        plain.tokenizer.padding_side = side
        for vectors in (plain.encode(texts), plain.encode_document(texts)):
            same_vectors(vectors, reference["mean"])
        for vectors in (
            plain.encode_query(texts),
            plain.encode(texts, prompt_name="query"),
            plain.encode(texts, prompt=bare),
            plain.encode(texts, prompt=f"{bare} "),
        ):
            same_vectors(vectors, reference["mean+instruction"])


def test_llm2vec_lengths_of_the_unnormalized_mean(shared_data: Path) -> None:
    reference = json.loads((shared_data / "reference/llm2vec-stories260k.json").read_text())
    encoder = convert(
        shared_data / "models/stories260k", "llm2vec", normalize=False, prompts={"query": reference["instruction"]}
    )
    assert encoder.manifest.layout == "custom"
    torch.testing.assert_close(
        torch.tensor(encoder.encode_query(reference["texts"])),
        torch.tensor(reference["mean+instruction"]),
        atol=1e-4,
        rtol=1e-4,
    )


def test_llm2vec_token_ids(shared_data: Path) -> None:
    reference = json.loads((shared_data / "reference/llm2vec-stories260k.json").read_text())
    encoder = convert(shared_data / "models/stories260k", "llm2vec", prompts={"query": reference["instruction"]})
    for text, plain, instructed in zip(reference["texts"], reference["ids"], reference["ids+instruction"], strict=True):
        assert encoder.preprocess([text])["input_ids"][0].tolist() == plain
        found = encoder.preprocess([text], prompt=reference["instruction"])["input_ids"][0].tolist()
        assert found == instructed


# NV-Embed's names for the weights of its latent attention, without the leading ``latent_attention_model.``
NV_EMBED_NAMES = {
    "latents": "latents",
    "cross_attend_blocks.0.norm": "query_norm",
    "cross_attend_blocks.0.norm_context": "latent_norm",
    "cross_attend_blocks.0.fn.to_q": "to_query",
    "cross_attend_blocks.0.fn.to_kv": "to_key_value",
    "cross_attend_blocks.0.fn.to_out": "to_output",
    "cross_attend_blocks.1.norm": "feed_forward_norm",
    "cross_attend_blocks.1.fn.net.0": "feed_forward.project_in",
    "cross_attend_blocks.1.fn.net.2": "feed_forward.project_out",
}


@pytest.mark.promise(Promise.IMPORTED)
def test_nv_embed_vectors(shared_data: Path, same_vectors: SameVectors) -> None:
    folder = shared_data / "reference/nv-embed-tiny"
    settings = json.loads((folder / "config.json").read_text())
    expected = json.loads((folder / "expected.json").read_text())
    weights = load_file(folder / "model.safetensors")
    names = ("vocab_size", "max_position_embeddings", "hidden_size", "intermediate_size", "num_hidden_layers")
    names += ("num_attention_heads", "head_dim", "num_key_value_heads", "rms_norm_eps", "sliding_window")
    decoder = MistralModel(MistralConfig(**{name: settings["text_config"][name] for name in names}))
    prefix = "embedding_model."
    decoder.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    latent = settings["latent_attention_config"]
    encoder = convert(
        decoder,
        "nv-embed",
        tokenizer=tokenizer,
        latent_attention={
            "num_latents": latent["num_latents_value"],
            "num_heads": latent["num_cross_heads"],
            "head_dimension": latent["cross_dim_head"],
        },
    )
    renamed = {}
    for name, tensor in weights.items():
        if name.startswith("latent_attention_model."):
            name = name.removeprefix("latent_attention_model.")
            stem, _, leaf = name.rpartition(".")
            renamed[NV_EMBED_NAMES.get(name) or f"{NV_EMBED_NAMES[stem]}.{leaf}"] = tensor
    encoder[1].load_state_dict(renamed)
    bare = expected["instruction"].removeprefix("Instruct: ").removesuffix("\nQuery: ")
    same_vectors(encoder.encode(expected["texts"]), expected["documents"])
    same_vectors(encoder.encode(expected["texts"], prompt=bare), expected["queries"])
    same_vectors(encoder.encode(expected["texts"], prompt=expected["instruction"]), expected["queries"])
