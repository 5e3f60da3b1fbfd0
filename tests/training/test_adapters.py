"""Adapters: attached, merged once with equal vectors, interpolated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from st_llm2vec import TextEncoder, convert, load
from st_llm2vec.modules.adapter import has_adapter
from st_llm2vec.training.adapters import Adapter, attach_adapter, body_weights, interpolate, merge_adapter

from ..conftest import TEXTS, SameVectors, cosine_distance
from ..promises import Promise


def with_update(encoder: TextEncoder) -> TextEncoder:
    """Give the adapter, which starts as zero, something to say."""
    torch.manual_seed(1)
    for name, weight in encoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    return encoder


@pytest.mark.promise(Promise.MERGED)
@pytest.mark.parametrize("recipe", ["llm2vec", "nv-embed"])
def test_merging_keeps_the_vectors_and_leaves_a_plain_encoder(
    decoder: str, tmp_path: Path, recipe: str, same_vectors: SameVectors
) -> None:
    encoder = convert(decoder, recipe)
    plain = encoder.encode(TEXTS)
    attach_adapter(encoder, Adapter(r=4, alpha=8))
    with_update(encoder)
    unmerged = encoder.encode(TEXTS)
    assert cosine_distance(plain, unmerged) > 1e-3
    assert merge_adapter(encoder) < 1e-6
    same_vectors(unmerged, encoder.encode(TEXTS))
    encoder.save(str(tmp_path / "merged"))
    assert not (tmp_path / "merged/adapter_config.json").exists()
    same_vectors(unmerged, load(tmp_path / "merged").encode(TEXTS))


def test_an_adapter_is_merged_once(decoder: str) -> None:
    encoder = convert(decoder, "llm2vec")
    with pytest.raises(ValueError, match="has 0 adapters"):
        merge_adapter(encoder)
    attach_adapter(encoder, Adapter(r=2))
    with pytest.raises(ValueError, match="has an adapter already"):
        attach_adapter(encoder, Adapter(r=2))
    merge_adapter(encoder)
    with pytest.raises(ValueError, match="has 0 adapters"):
        merge_adapter(encoder)


def test_a_second_adapter_after_a_merge_and_a_save(decoder: str, tmp_path: Path) -> None:
    """The order of stages: attach, merge, save, load, attach again."""
    encoder = convert(decoder, "llm2vec")
    attach_adapter(encoder, Adapter(r=4))
    with_update(encoder)
    merge_adapter(encoder)
    encoder.save(str(tmp_path / "first"))
    second = load(tmp_path / "first")
    attach_adapter(second, Adapter(r=4))
    second.save(str(tmp_path / "second"))
    assert (tmp_path / "second/adapter_model.safetensors").exists()
    assert cosine_distance(load(tmp_path / "second").encode(TEXTS), encoder.encode(TEXTS)) < 1e-6


def test_all_linear_layers_of_any_family_get_one(tiny: Callable[..., str]) -> None:
    for family in ("gpt2", "phi", "opt"):
        encoder = convert(tiny(family), "llm2vec")
        attach_adapter(encoder, Adapter(r=2))
        touched = {
            name.split(".lora_")[0].rsplit(".", 1)[-1] for name, _ in encoder.named_parameters() if "lora_" in name
        }
        assert len(touched) >= 3
        with_update(encoder)
        assert merge_adapter(encoder) < 1e-6


def test_only_the_adapter_learns(decoder: str) -> None:
    encoder = convert(decoder, "llm2vec")
    attach_adapter(encoder, Adapter(r=2, targets=["q_proj"]))
    learning = [name for name, weight in encoder.named_parameters() if weight.requires_grad]
    assert learning and all("lora_" in name for name in learning)
    merge_adapter(encoder)
    assert all(weight.requires_grad for weight in encoder.transformer.model.parameters())


def test_interpolation_is_linear(decoder: str) -> None:
    encoder = convert(decoder, "llm2vec")
    start = body_weights(encoder)
    with torch.no_grad():
        for weight in encoder.transformer.model.parameters():
            weight.add_(0.01)
    trained = body_weights(encoder)
    interpolate(encoder, start, 0.25)
    for name, weight in encoder.transformer.model.named_parameters():
        torch.testing.assert_close(weight.detach(), 0.25 * trained[name] + 0.75 * start[name])
    with pytest.raises(ValueError, match="between 0 and 1"):
        interpolate(encoder, start, 1.5)


def test_bad_input(decoder: str) -> None:
    with pytest.raises(ValueError, match="rank of at least 1"):
        Adapter(r=0)
    with pytest.raises(ValueError, match="choose null or nf4"):
        Adapter(quantize="int3")
    with pytest.raises(ValueError, match="does not fit LlamaModel"):
        attach_adapter(convert(decoder, "llm2vec"), Adapter(targets=["no_such_layer"]))


@pytest.mark.promise(Promise.MERGED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_merge_that_loses_the_adapter_is_refused(
    decoder: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = convert(decoder, "llm2vec", dtype=dtype)
    attach_adapter(encoder, Adapter(r=4))
    assert all(weight.dtype == torch.float32 for name, weight in encoder.named_parameters() if "lora_" in name)
    with_update(encoder)
    for layer in encoder.modules():
        if isinstance(layer, BaseTunerLayer):
            monkeypatch.setattr(layer, "merge", lambda safe_merge: None)
    with pytest.raises(ValueError, match="more than rounding explains"):
        merge_adapter(encoder)


def test_merging_in_half_precision(decoder: str) -> None:
    encoder = convert(decoder, "llm2vec", dtype=torch.bfloat16)
    attach_adapter(encoder, Adapter(r=4))
    start = encoder.encode(TEXTS)
    unmerged = with_update(encoder).encode(TEXTS)
    merge_adapter(encoder)
    assert not has_adapter(encoder.transformer.model)
    moved = cosine_distance(start, unmerged)
    assert cosine_distance(encoder.encode(TEXTS), unmerged) < 1e-2 * moved, moved
