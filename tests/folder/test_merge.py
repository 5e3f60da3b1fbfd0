"""Adapters of every kind on weights in bfloat16: saved, loaded and merged without losing what they learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from st_llm2vec import TextEncoder, convert, load, publish
from st_llm2vec.folder.merge import merge

from ..conftest import TEXTS, SameVectors, cosine_distance
from ..promises import Promise
from ..publishing.conftest import same_process  # noqa: F401
from ..stand_ins import stand_in

TARGETS = ["q_proj", "v_proj"]
KINDS = {
    "dora": peft.LoraConfig(r=4, target_modules=TARGETS, use_dora=True),
    "tokens": peft.LoraConfig(r=4, target_modules=TARGETS, trainable_token_indices=[40, 41, 42]),
    "modules": peft.LoraConfig(r=4, target_modules=TARGETS, modules_to_save=["norm"]),
    "ia3": peft.IA3Config(target_modules=[*TARGETS, "down_proj"], feedforward_modules=["down_proj"]),
    "adalora": peft.AdaLoraConfig(target_modules=TARGETS, total_step=10),
    "norms": peft.LNTuningConfig(target_modules=["input_layernorm"]),
}


LORA = {"lora": peft.LoraConfig(r=4, target_modules=TARGETS)}


@pytest.fixture(scope="module")
def half_decoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return stand_in("smollm2", tmp_path_factory.mktemp("decoder") / "smollm2")


def with_adapter(
    decoder: str | TextEncoder, kind: str, scale: float = 0.1, attach: str = "add_adapter", recipe: str = "llm2vec"
) -> TextEncoder:
    """An encoder whose adapter has learned something."""
    encoder = convert(decoder, recipe, device="cpu") if isinstance(decoder, str) else decoder
    torch.manual_seed(0)  # the adapter's own draws, too
    if attach == "add_adapter":
        encoder.add_adapter({**KINDS, **LORA}[kind])
    else:
        encoder[0].model = peft.get_peft_model(encoder[0].model, KINDS[kind])
    with torch.no_grad():
        for weight in encoder.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * scale)
    return encoder


def in_float32(encoder: TextEncoder) -> np.ndarray:
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.data = weight.data.float()
    return encoder.encode(TEXTS)


@pytest.mark.promise(Promise.MERGED)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_adapter_comes_back_whole_and_merges(
    half_decoder: str, tmp_path: Path, kind: str, same_vectors: SameVectors
) -> None:
    encoder = with_adapter(half_decoder, kind)
    expected = encoder.encode(TEXTS)
    encoder.save(str(tmp_path / "adapter"))
    again = load(tmp_path / "adapter", device="cpu")
    reread = 1e-4 if kind == "adalora" else 1e-9  # Transformers does not read AdaLoRA's count of ranks
    same_vectors(again.encode(TEXTS), expected, reread)
    unmerged = in_float32(again)
    assert merge(encoder, dtype=torch.float32).distance < 1e-9
    encoder.save(str(tmp_path / "merged"))
    plain = SentenceTransformer(str(tmp_path / "merged"), device="cpu")
    same_vectors(plain.encode(TEXTS), unmerged, max(reread, 1e-6))


@pytest.mark.parametrize("attach", ["add_adapter", "get_peft_model"])
def test_what_an_adapter_learns_and_what_is_read_back_is_in_float32(
    half_decoder: str, tmp_path: Path, attach: str
) -> None:
    encoder = with_adapter(half_decoder, "dora", attach=attach)
    learned = {name: weight for name, weight in encoder.named_parameters() if weight.requires_grad}
    assert {weight.dtype for weight in learned.values()} == {torch.float32}
    encoder.save(str(tmp_path / "adapter"))
    stored = load_file(tmp_path / "adapter/adapter_model.safetensors")
    checkpoint = TextEncoder._load_with_module_classes(str(tmp_path / "adapter"), {}, device="cpu")  # as trainers do
    for again in (load(tmp_path / "adapter", device="cpu"), checkpoint):
        read = peft.get_peft_model_state_dict(again[0].model)
        assert len(read) == len(learned) == len(stored)
        assert all(torch.equal(weight, stored[f"base_model.model.{name}"]) for name, weight in read.items())


@pytest.mark.usefixtures("same_process")
def test_an_adapter_that_plain_sentence_transformers_saved_comes_back_whole(half_decoder: str, tmp_path: Path) -> None:
    convert(half_decoder, "llm2vec").save(str(tmp_path / "base"))
    encoder = with_adapter(load(tmp_path / "base", device="cpu"), "dora")
    expected = encoder.encode(TEXTS)
    SentenceTransformer.save(encoder, str(tmp_path / "plain"))
    assert (
        '"sentence_transformers.base.modules.transformer.Transformer"' in (tmp_path / "plain/modules.json").read_text()
    )
    for again in (load(tmp_path / "plain", device="cpu"), TextEncoder(str(tmp_path / "plain"), device="cpu")):
        assert cosine_distance(again.encode(TEXTS), expected) < 1e-9
    publish(tmp_path / "plain", "org/name", dry_run=True, output=tmp_path / "published")
    published = SentenceTransformer(str(tmp_path / "published"), device="cpu")
    assert cosine_distance(published.encode(TEXTS), expected) < 1e-3  # merged in bfloat16


def test_an_adapter_that_lacks_weights_is_refused(half_decoder: str, tmp_path: Path) -> None:
    with_adapter(half_decoder, "dora").save(str(tmp_path / "adapter"))
    file = tmp_path / "adapter/adapter_model.safetensors"
    weights = load_file(file)
    save_file({name: one for name, one in weights.items() if "magnitude" not in name}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks \d+ of the adapter's weights.*magnitude.*would be random"):
        load(tmp_path / "adapter")
    save_file({**weights, "base_model.model.layers.9.lora_A.weight": torch.zeros(1)}, file, {"format": "pt"})
    with pytest.raises(ValueError, match="no place in its base"):
        load(tmp_path / "adapter")


def test_a_kind_that_could_not_be_loaded_is_not_saved(half_decoder: str, tmp_path: Path) -> None:
    encoder = convert(half_decoder, "llm2vec", device="cpu")
    encoder[0].model = peft.get_peft_model(encoder[0].model, peft.VeraConfig(r=4, target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="VERA could be saved and not be loaded again.*merge"):
        encoder.save(str(tmp_path / "adapter"))
    merge(encoder)  # what the message advises
    encoder.save(str(tmp_path / "merged"))


@pytest.mark.promise(Promise.MERGED)
def test_a_small_update_is_kept_in_float32(half_decoder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Bfloat16 rounds it away; the folder then holds what training began with."""
    encoder = with_adapter(half_decoder, "lora", scale=3e-4)
    start = convert(half_decoder, "llm2vec", device="cpu", dtype=torch.float32).encode(TEXTS)
    expected = in_float32(with_adapter(half_decoder, "lora", scale=3e-4))
    done = merge(encoder)
    assert (done.dtype, done.stored, done.kept) == (torch.float32, torch.bfloat16, 1.0)
    assert done.kept_in_stored < 0.9
    assert "merged weights are in float32: in bfloat16, the type that they had" in caplog.text
    encoder.save(str(tmp_path / "merged"))
    plain = SentenceTransformer(str(tmp_path / "merged"), device="cpu")
    assert plain.dtype == torch.float32
    moved = cosine_distance(expected, start)
    assert cosine_distance(plain.encode(TEXTS), expected) < 1e-2 * moved


def test_the_type_that_was_asked_for_is_kept_with_figures(half_decoder: str, caplog: pytest.LogCaptureFixture) -> None:
    encoder = with_adapter(half_decoder, "lora", scale=3e-4)
    done = merge(encoder, dtype=torch.bfloat16)
    assert done.dtype == torch.bfloat16 and done.kept == done.kept_in_stored < 0.9
    assert {weight.dtype for weight in encoder.parameters()} == {torch.bfloat16}
    assert f"{100 * done.kept:.0f} % of what the adapter learned arrives" in caplog.text


def test_a_large_update_keeps_the_stored_type(half_decoder: str, tmp_path: Path) -> None:
    encoder = with_adapter(half_decoder, "lora")
    done = merge(encoder)
    assert done.dtype == torch.bfloat16 and done.kept > 0.9
    encoder.save(str(tmp_path / "merged"))  # in memory as on disk: only weights are cast, no frequencies of positions
    assert cosine_distance(load(tmp_path / "merged", device="cpu").encode(TEXTS), encoder.encode(TEXTS)) < 1e-9


def test_a_pooling_that_learned_in_float32_keeps_it(
    half_decoder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder of two types is read in that of its decoder by every reader but this package."""
    encoder = with_adapter(half_decoder, "lora", recipe="nv-embed")
    learned = encoder[1].latents.detach().clone()
    assert learned.dtype == torch.float32 and not torch.equal(learned, learned.bfloat16().float())
    done = merge(encoder)
    assert done.kept_in_stored > 0.9 and "what the pooling learned would be rounded" in caplog.text
    encoder.save(str(tmp_path / "merged"))
    plain = SentenceTransformer(str(tmp_path / "merged"), device="cpu", trust_remote_code=True)
    assert torch.equal(plain[1].latents, learned)
    assert cosine_distance(plain.encode(TEXTS), encoder.encode(TEXTS)) < 1e-9


def test_a_share_of_the_update(half_decoder: str) -> None:
    halfway = convert(half_decoder, "llm2vec", device="cpu", dtype=torch.float32)[0].model.state_dict()
    whole, half = (with_adapter(half_decoder, "lora") for _ in range(2))
    merge(whole, dtype=torch.float32)
    merge(half, dtype=torch.float32, share=0.5)
    for name, weight in half[0].model.named_parameters():
        torch.testing.assert_close(weight.detach(), (halfway[name] + whole[0].model.state_dict()[name]) / 2)


@pytest.mark.promise(Promise.MERGED)
def test_a_merge_that_changes_the_vectors_is_refused(half_decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = with_adapter(half_decoder, "lora")
    monkeypatch.setattr(peft.tuners.lora.Linear, "merge", lambda layer, safe_merge: None)
    with pytest.raises(ValueError, match="more than rounding explains"):
        merge(encoder)


def test_what_a_decoder_computes_of_its_type_follows_the_merge(tmp_path: Path) -> None:
    """Gemma's scale of embeddings is a constant in the type of the weights: rounded in bfloat16, not in float32."""
    decoder = stand_in("gemma", tmp_path / "gemma")
    encoder = with_adapter(decoder, "lora", scale=3e-4)
    assert merge(encoder).dtype == torch.float32
    encoder.save(str(tmp_path / "merged"))
    assert np.array_equal(load(tmp_path / "merged", device="cpu").encode(TEXTS), encoder.encode(TEXTS))
