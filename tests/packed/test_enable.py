"""A batch that passes without padding gives what it gives with padding: states, gradients, for every family."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from transformers import AutoModel, BertConfig, MPNetConfig, RobertaConfig

from st_llm2vec import convert
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.packed import enable
from st_llm2vec.packed.attention import PACKED, current_segments
from st_llm2vec.packed.enable import disable_padding_free, enable_padding_free, padding_free
from tests.tiny_decoders import tiny_decoder
from tests.tiny_tokenizers import tiny_tokenizer

from ..conftest import TEXTS, crossed

FAMILIES = (
    "llama", "mistral", "qwen3", "gemma", "gemma2", "gemma3_text", "opt", "gpt2", "phi", "gpt_neox", "qwen2_moe", "stablelm",
)  # fmt: skip
WINDOWED = ("mistral", "gemma2", "gemma3_text")
STAY_PADDED = {"bloom": "cannot be exchanged", "gpt_oss": "does not know|do not know", "lfm2": "carry states"}
RECIPES = {"bidirectional": "llm2vec", "causal": "sgpt"}
ENCODERS = {"bert": BertConfig, "roberta": RobertaConfig}


def make(family: str, attention: str, **config: Any) -> TextEncoder:
    if family in WINDOWED:
        config["sliding_window"] = 5
    model = tiny_decoder(family, vocab_size=512, max_position_embeddings=128, **config)
    torch.manual_seed(0)
    for parameter in model.parameters():  # so that attention has something to say
        torch.nn.init.normal_(parameter, std=0.08 if parameter.ndim > 1 else 1.0)
    return convert(model, RECIPES[attention], tokenizer=tiny_tokenizer("byte-level+bos"), max_length=100).eval()


def batch(encoder: SentenceTransformer, side: str, texts: list[str] = TEXTS) -> dict[str, Any]:
    encoder.tokenizer.padding_side = side
    return dict(encoder.preprocess(texts))


def states(encoder: SentenceTransformer, features: dict[str, Any]) -> torch.Tensor:
    output = encoder[0](dict(features))["token_embeddings"]
    assert output.shape[:2] == features["input_ids"].shape
    return output[features["attention_mask"].bool()]


@pytest.mark.parametrize(("family", "side"), crossed(FAMILIES, ("right", "left"), ()))
@pytest.mark.parametrize("attention", RECIPES)
def test_states_and_gradients_of_a_padded_batch(family: str, attention: str, side: str) -> None:
    encoder = make(family, attention)
    features = batch(encoder, side)
    assert padding_free(encoder.transformer)
    found, gradients = [], []
    for _ in range(2):
        encoder.zero_grad()
        found.append(states(encoder, features))
        (encoder(dict(features))["sentence_embedding"] ** 3).sum().backward()
        gradients.append({name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None})
        disable_padding_free(encoder.transformer)
    assert torch.allclose(*found, atol=1e-5 * float(found[1].detach().abs().max()))
    assert set(gradients[0]) == set(gradients[1])
    for name, gradient in gradients[1].items():
        assert torch.allclose(gradients[0][name], gradient, atol=1e-5 * max(1.0, float(gradient.abs().max()))), name


@pytest.mark.parametrize("family", ("llama", "gemma2", "gpt2"))
def test_bfloat16(family: str) -> None:
    encoder = make(family, "bidirectional").bfloat16()
    with torch.no_grad():
        packed = encoder(batch(encoder, "right"))["sentence_embedding"].float()
        disable_padding_free(encoder.transformer)
        padded = encoder(batch(encoder, "right"))["sentence_embedding"].float()
    assert (1 - torch.cosine_similarity(packed, padded)).max() < 1e-3


@pytest.mark.parametrize("family", ("llama", "opt", "gpt2"))
def test_texts_that_begin_alike_share_what_they_share(family: str) -> None:
    encoder = make(family, "causal")
    assert padding_free(encoder.transformer).shares_prefix
    seen: list[int] = []
    embeddings = encoder.transformer.model.get_input_embeddings()
    embeddings.register_forward_pre_hook(lambda *_: seen.append(getattr(current_segments.get(), "prefix", 0)))
    features = batch(
        encoder, "left", [f"The old clock in the hall struck {hour}" for hour in ("one", "seven", "two o")]
    )
    with torch.no_grad():
        shared = states(encoder, features)
    assert seen[0] > 5
    trained = states(encoder, features)
    assert seen[1] == 0, "gradients need a prefix of each text's own"
    disable_padding_free(encoder.transformer)
    padded = states(encoder, features)
    assert torch.allclose(shared, padded, atol=1e-4 * float(padded.detach().abs().max()))
    assert torch.allclose(trained, padded, atol=1e-4 * float(padded.detach().abs().max()))


def test_bidirectional_texts_share_nothing() -> None:
    assert not padding_free(make("llama", "bidirectional").transformer).shares_prefix
    assert not padding_free(make("qwen2_moe", "bidirectional").transformer).shares_prefix


@pytest.mark.parametrize("family", STAY_PADDED)
def test_what_cannot_be_read_without_padding_stays_padded(family: str) -> None:
    encoder = make(family, "causal")
    transformer = encoder.transformer
    before = transformer.model.config._attn_implementation
    assert not padding_free(transformer)
    reason = enable_padding_free(transformer)
    assert reason is not None
    assert any(words in reason for words in STAY_PADDED[family].split("|"))
    assert transformer.model.config._attn_implementation == before
    assert encoder.encode(TEXTS).shape[0] == len(TEXTS)


def plain(config_class: Any, folder: Path) -> Transformer:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokenizer = tiny_tokenizer("byte-level+bos")
    config = config_class(vocab_size=512, max_position_embeddings=128, pad_token_id=tokenizer.pad_token_id, **sizes)
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Transformer(str(folder))


@pytest.mark.parametrize("family", ENCODERS)
def test_plain_encoders(family: str, tmp_path: Path) -> None:
    transformer = plain(ENCODERS[family], tmp_path).eval()
    features = dict(transformer.preprocess(TEXTS))
    padded = transformer(dict(features))["token_embeddings"][features["attention_mask"].bool()]
    assert enable_padding_free(transformer) is None
    packed = transformer(dict(features))["token_embeddings"][features["attention_mask"].bool()]
    assert torch.allclose(packed, padded, atol=1e-5)
    assert "_padding_free" not in transformer.get_config_dict()


def test_an_encoder_with_positions_in_its_scores_stays_padded(tmp_path: Path) -> None:
    assert enable_padding_free(plain(MPNetConfig, tmp_path)) is not None


def test_a_leak_between_texts_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make("llama", "causal")
    disable_padding_free(encoder.transformer)
    monkeypatch.setattr("st_llm2vec.packed.attention.Segments.runs", lambda segments: [(1, sum(segments.lengths))])
    reason = enable_padding_free(encoder.transformer)
    assert reason is not None
    assert "see each other" in reason


def test_wrong_states_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make("llama", "causal")
    disable_padding_free(encoder.transformer)
    monkeypatch.setattr(enable, "_position_offset", lambda model: 0)
    monkeypatch.setattr("st_llm2vec.packed.attention._window", lambda function, size: (-1, -1))
    reason = enable_padding_free(encoder.transformer)
    assert reason is not None
    assert "differ by" in reason
    assert encoder.transformer.model.config._attn_implementation == "sdpa"


def test_what_is_not_a_plain_padded_batch_passes_as_it_came() -> None:
    encoder = make("llama", "causal")
    features = batch(encoder, "right")
    shapes: list[Any] = []
    embeddings = encoder.transformer.model.get_input_embeddings()
    embeddings.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
    holes = features["attention_mask"].clone()
    holes[2, 3] = 0
    shifted = features["attention_mask"].cumsum(dim=1) + 3
    for other in ({"attention_mask": holes}, {"position_ids": shifted}):
        encoder[0]({**features, **other})
        assert shapes[-1] == features["input_ids"].shape
    encoder[0](dict(features))
    assert shapes[-1] == (1, int(features["attention_mask"].sum()))


def test_the_model_alone_reads_padded_batches_as_ever() -> None:
    encoder = make("mistral", "bidirectional")
    features = batch(encoder, "right")
    inputs = {name: features[name] for name in ("input_ids", "attention_mask")}
    assert encoder.transformer.model.config._attn_implementation == PACKED
    packed = encoder.transformer.model(**inputs).last_hidden_state
    disable_padding_free(encoder.transformer)
    assert encoder.transformer.model.config._attn_implementation == "sdpa"
    assert torch.equal(packed, encoder.transformer.model(**inputs).last_hidden_state)


def test_another_attention_set_later_is_not_packed() -> None:
    encoder = make("llama", "causal")
    wanted = states(encoder, batch(encoder, "right"))
    encoder.transformer.model.set_attn_implementation("eager")
    assert torch.allclose(states(encoder, batch(encoder, "right")), wanted, atol=1e-4)


def test_eager_attention_that_was_asked_for_is_kept() -> None:
    encoder = make("llama", "causal")
    disable_padding_free(encoder.transformer)
    encoder.transformer.model.set_attn_implementation("eager")
    assert "asked for" in (enable_padding_free(encoder.transformer) or "")
    inputs = dict(encoder.preprocess(TEXTS))
    del inputs["modality"]
    assert encoder.transformer.model(**inputs, output_attentions=True).attentions[0] is not None


def test_an_error_leaves_no_row_behind() -> None:
    encoder = make("llama", "causal")
    embeddings = encoder.transformer.model.get_input_embeddings()
    handle = embeddings.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        encoder[0](batch(encoder, "right"))
    assert current_segments.get() is None
    handle.remove()
    assert states(encoder, batch(encoder, "right")).isfinite().all()


@pytest.mark.parametrize("copied", (copy.deepcopy, lambda encoder: pickle.loads(pickle.dumps(encoder))))
def test_copies_are_padding_free_too(copied: Any) -> None:
    encoder = make("llama", "bidirectional")
    twin = copied(encoder)
    assert padding_free(twin.transformer)
    disable_padding_free(encoder.transformer)
    assert twin.transformer.model.config._attn_implementation == PACKED
    assert torch.allclose(states(twin, batch(twin, "right")), states(encoder, batch(encoder, "right")), atol=1e-4)


def test_nothing_of_it_is_saved(tmp_path: Path) -> None:
    encoder = make("llama", "bidirectional")
    encoder.save(str(tmp_path))
    assert not any(PACKED in path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.json"))
    plainly = SentenceTransformer(str(tmp_path), device="cpu")
    assert plainly[0].model.config._attn_implementation == "sdpa"


def test_gradient_checkpointing_runs_the_row_again() -> None:
    encoder = make("llama", "bidirectional")
    encoder.train()
    gradients = []
    for _ in range(2):
        encoder.zero_grad()
        (encoder(batch(encoder, "right"))["sentence_embedding"] ** 3).sum().backward()
        gradients.append({name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None})
        encoder.transformer.model.gradient_checkpointing_enable({"use_reentrant": False})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-5 * max(1.0, float(gradient.abs().max()))), name


@pytest.fixture(scope="module")
def deep_in_bfloat16(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("deep"))
    config = {"num_hidden_layers": 96, "hidden_size": 128, "intermediate_size": 256, "num_key_value_heads": 4}
    tiny_decoder("llama", vocab_size=512, **config, head_dim=32, is_causal=False).bfloat16().save_pretrained(folder)
    tiny_tokenizer("byte-level").save_pretrained(folder)
    return folder


def test_what_rounding_does_to_a_deep_model_is_no_reason_to_pad(
    deep_in_bfloat16: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enable, "ROW_STATES", replace(enable.ROW_STATES, half=1e-4))
    assert enable_padding_free(Transformer(deep_in_bfloat16, model_kwargs={"dtype": torch.bfloat16})) is None


def test_wrong_states_are_found_in_bfloat16(deep_in_bfloat16: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("st_llm2vec.packed.attention._window", lambda function, size: (-1, 0))
    reason = enable_padding_free(Transformer(deep_in_bfloat16, model_kwargs={"dtype": torch.bfloat16}))
    assert reason is not None
    assert "differ by" in reason
