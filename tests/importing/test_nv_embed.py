"""NV-Embed's repositories: both parts out of the same shards, the mask theirs, nothing of their code run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from st_llm2vec import from_nv_embed, load
from st_llm2vec.proof.fresh_process import PlainReading, read_without_package

from ..conftest import INSTRUCTION, TEXTS, SameVectors, cosine_distance
from ..elsewhere import read_here
from ..promises import Promise

SHARD = "model-00002-of-00003.safetensors"


@pytest.mark.promise(Promise.IMPORTED)
@pytest.mark.parametrize("read", [read_here, pytest.param(read_without_package, marks=pytest.mark.slow)])
def test_reference_vectors(
    shared_data: Path, tmp_path: Path, same_vectors: SameVectors, read: Callable[..., PlainReading]
) -> None:
    """Made by NV-Embed's own code; before and after saving, and by plain Sentence Transformers, here or in a fresh process."""
    folder = shared_data / "reference/nv-embed-tiny"
    expected = json.loads((folder / "expected.json").read_text())
    bare = expected["instruction"].removeprefix("Instruct: ").removesuffix("\nQuery: ")
    encoder = from_nv_embed(folder, prompts={"query": bare})
    encoder.save_pretrained(str(tmp_path / "saved"))
    for one in (encoder, load(tmp_path / "saved")):
        same_vectors(one.encode(expected["texts"]), expected["documents"])
        for prompt in (bare, expected["instruction"]):
            same_vectors(one.encode(expected["texts"], prompt=prompt), expected["queries"])
    plain = read(tmp_path / "saved", expected["texts"], [None, "query"], trust_remote_code=True)
    same_vectors(plain.vectors[0], expected["documents"])
    same_vectors(plain.vectors[1], expected["queries"])
    assert plain.probe.kind == "bidirectional"


def test_shards_are_read_into_both_parts(nv_embed: Callable[..., Path], tmp_path: Path) -> None:
    encoder = from_nv_embed(nv_embed(3))
    model, latent = encoder[0].model, encoder[1]
    tensors = {
        name: one for file in (tmp_path / "nv-embed").glob("*.safetensors") for name, one in load_file(file).items()
    }
    assert torch.equal(model.layers[1].mlp.up_proj.weight, tensors["embedding_model.layers.1.mlp.up_proj.weight"])
    assert torch.equal(
        latent.to_key_value.weight, tensors["latent_attention_model.cross_attend_blocks.0.fn.to_kv.weight"]
    )
    assert torch.equal(latent.latents, tensors["latent_attention_model.latents"])
    assert model.config.sliding_window is None
    assert model.config.rope_parameters["rope_theta"] == 5000.0
    assert encoder.manifest.base["license"] == "cc-by-nc-4.0"
    assert encoder.max_seq_length == 128
    half = from_nv_embed(tmp_path / "nv-embed", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    assert cosine_distance(half.encode(TEXTS), encoder.encode(TEXTS)) < 1e-2


def test_the_instruction_is_masked_and_the_end_is_not(nv_embed: Callable[..., Path]) -> None:
    folder = nv_embed()
    encoder = from_nv_embed(folder)
    features = encoder.preprocess(["A cat."], prompt=INSTRUCTION)
    ids, mask = features["input_ids"][0], features["pooling_mask"][0].bool()
    assert ids.tolist()[:-1] == encoder.tokenizer(f"Instruct: {INSTRUCTION}\nQuery: A cat.")["input_ids"]
    assert encoder.tokenizer.decode(ids[mask]).strip() == "A cat.</s>"
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "is_mask_instruction": False, "add_eos": False}))
    features = from_nv_embed(folder).preprocess(["A cat."], prompt=INSTRUCTION)
    assert features["pooling_mask"].all() and features["input_ids"].shape[1] == len(ids) - 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / SHARD).unlink(), f"lacks 1 of its 3 shards .*{SHARD}"),
        (lambda folder: (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:-9]), f"{SHARD} .* is truncated"),
        (lambda folder: (folder / SHARD).write_bytes(b"garbage"), f"{SHARD} .* is truncated or damaged"),
        (
            lambda folder: change(folder, "embedding_model.layers.1.mlp.down_proj.weight", None),
            "lacks 1 of its decoder's",
        ),
        (
            lambda folder: change(folder, "latent_attention_model.latents", None),
            "lacks 1 tensors of its latent attention",
        ),
        (
            lambda folder: change(folder, "lm_head.weight", torch.zeros(2)),
            "neither embedding_model.* nor .*lm_head.weight",
        ),
        (
            lambda folder: change(folder, "embedding_model.extra", torch.zeros(2)),
            "has unknown 1 of its decoder's .*extra",
        ),
        (lambda folder: change(folder, "latent_attention_model.extra.x", torch.zeros(2)), "unknown tensor .*extra.x"),
        (lambda folder: change(folder, "latent_attention_model.latents", torch.zeros(9, 32)), "has the shape .9, 32."),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "llama"}'), "is no NV-Embed checkpoint"),
        (lambda folder: declare(folder, 1_000_000), "declares 1,000,000 layers, and its files hold .* tensors"),
        (lambda folder: only_pickles(folder), "only as a pickle"),
        (lambda folder: remove_weights(folder), "holds no weights"),
    ],
)
def test_bad_checkpoints(nv_embed: Callable[..., Path], damage: Callable[[Path], object], message: str) -> None:
    folder = nv_embed()
    damage(folder)
    with pytest.raises(ValueError, match=message):
        from_nv_embed(folder)


def change(folder: Path, name: str, tensor: torch.Tensor | None) -> None:
    """Add, replace or remove one tensor."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    file = folder / index["weight_map"].get(name, SHARD)
    tensors = load_file(file)
    if tensor is None:
        del tensors[name]
    else:
        tensors[name] = tensor
    save_file(tensors, file, metadata={"format": "pt"})


def declare(folder: Path, layers: int) -> None:
    settings = json.loads((folder / "config.json").read_text())
    settings["text_config"]["num_hidden_layers"] = layers
    (folder / "config.json").write_text(json.dumps(settings))


def remove_weights(folder: Path) -> None:
    for file in (*folder.glob("*.safetensors"), folder / "model.safetensors.index.json"):
        file.unlink()


def only_pickles(folder: Path) -> None:
    remove_weights(folder)
    torch.save({}, folder / "pytorch_model.bin")
