"""MNTP against a reference from scratch, for tied and untied heads, and through the stock trainer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from st_llm2vec import TextEncoder, convert, load
from st_llm2vec.losses import MNTPLoss, TokenMasker, add_mask_token
from st_llm2vec.training.adapters import Adapter, attach_adapter
from tests.tiny_decoders import tiny_config
from tests.tiny_tokenizers import tiny_tokenizer

from ..conftest import TEXTS, cosine_distance


def with_head(folder: Path, family: str, **config: object) -> str:
    """Write a tiny decoder with its output head."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(tiny_config(family, vocab_size=512, **config)).save_pretrained(folder)
    tiny_tokenizer("byte-level+bos").save_pretrained(folder)
    return str(folder)


def reference(base: str, encoder: TextEncoder, loss: MNTPLoss, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """All logits first, then the masked ones; returns the loss and the gradient of the embeddings."""
    state = torch.get_rng_state()
    ids, attention = features["input_ids"], features["attention_mask"]
    shown, chosen = loss.masker(ids, attention, loss._generator(ids))
    torch.set_rng_state(state)
    whole = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager")
    body = whole.base_model
    body.config.is_causal = False
    for module in body.modules():
        if hasattr(module, "is_causal"):
            module.is_causal = False
    logits = whole(input_ids=shown, attention_mask=attention).logits
    labels = torch.full_like(ids, -100)
    labels[chosen] = ids[chosen]
    value = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    value.backward()
    return value.detach(), next(body.layers[0].mlp.parameters()).grad


@pytest.mark.parametrize("masking", ["bert", "all_mask"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("side", "chunk_size"), [("right", 3), ("left", 1024)])
def test_loss_and_gradient_equal_all_logits_then_selection(
    tmp_path: Path, masking: str, tied: bool, side: str, chunk_size: int
) -> None:
    base = with_head(tmp_path / "base", "llama", tie_word_embeddings=tied)
    encoder = convert(base, "llm2vec", padding_side=side)
    loss = MNTPLoss(encoder, 0.5, masking, mask_token="e", chunk_size=chunk_size)
    features = encoder.preprocess(TEXTS)
    expected, gradient = reference(base, encoder, loss, dict(features))
    found = loss([features], None)
    found.backward()
    torch.testing.assert_close(found.detach(), expected, atol=1e-5, rtol=1e-5)
    found_gradient = next(encoder[0].model.layers[0].mlp.parameters()).grad
    torch.testing.assert_close(found_gradient, gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("recipe", ["llm2vec", "nv-embed", "gritlm", "prompteol"])
def test_every_layout_is_read(decoder: str, recipe: str) -> None:
    encoder = convert(decoder, recipe)
    loss = MNTPLoss(encoder)
    value = loss([encoder.preprocess(TEXTS * 4)], None)
    assert 1 < float(value.detach()) < 20


def test_masks_follow_the_generator_and_evaluation_leaves_it_alone(decoder: str) -> None:
    encoder = convert(decoder, "llm2vec")
    loss = MNTPLoss(encoder, 0.3)
    features = encoder.preprocess(TEXTS)

    def draw() -> Tensor:
        return loss.masker(features["input_ids"], features["attention_mask"], loss._generator(features["input_ids"]))[1]

    torch.manual_seed(5)
    first, second = draw(), draw()
    torch.manual_seed(5)
    assert torch.equal(draw(), first) and not torch.equal(first, second)
    with torch.no_grad():
        assert torch.equal(draw(), draw())


@pytest.mark.parametrize(("masking", "shares"), [("bert", (0.8, 0.1, 0.1)), ("all_mask", (1.0, 0.0, 0.0))])
def test_shares_of_the_masking(decoder: str, masking: str, shares: tuple[float, float, float]) -> None:
    tokenizer = convert(decoder, "llm2vec").tokenizer
    masker = TokenMasker(tokenizer, 0.4, masking)
    ids = torch.full((200, 100), 300)
    ids[:, 0] = tokenizer.bos_token_id
    attention = torch.ones_like(ids)
    attention[:, -20:] = 0
    shown, chosen = masker(ids, attention, torch.Generator().manual_seed(0))
    assert not chosen[:, 0].any() and not chosen[:, -20:].any()
    assert float(chosen[:, 1:-20].float().mean()) == pytest.approx(0.4, abs=0.02)
    seen = shown[chosen]
    masked, kept = float((seen == masker.mask_id).float().mean()), float((seen == 300).float().mean())
    assert (masked, 1 - masked - kept, kept) == pytest.approx(shares, abs=0.02)
    assert torch.equal(shown[~chosen], ids[~chosen])


def test_a_share_of_its_own_for_each_batch(decoder: str) -> None:
    tokenizer = convert(decoder, "llm2vec").tokenizer
    ids = torch.full((50, 100), 300)

    def share(masker: TokenMasker, seed: int) -> float:
        chosen = masker(ids, torch.ones_like(ids), torch.Generator().manual_seed(seed))[1]
        return float(chosen[:, 1:].float().mean())

    drawn = [share(TokenMasker(tokenizer, (0.15, 0.8)), seed) for seed in range(40)]
    assert 0.13 < min(drawn) < 0.25 and 0.7 < max(drawn) < 0.82
    assert sum(drawn) / 40 == pytest.approx(0.475, abs=0.1)
    assert drawn[0] == share(TokenMasker(tokenizer, (0.15, 0.8)), 0)
    assert share(TokenMasker(tokenizer, [0.3, 0.3]), 0) == share(TokenMasker(tokenizer, 0.3), 0)


def test_tokens_without_a_predecessor_and_special_ones_are_never_predicted(decoder: str) -> None:
    encoder = convert(decoder, "llm2vec", padding_side="left")
    masker = TokenMasker(encoder.tokenizer, 1.0)
    features = encoder.preprocess(["a longer text than the other one", "short"])
    candidates = masker.candidates(features["input_ids"], features["attention_mask"])
    first = features["attention_mask"].argmax(dim=1)
    assert not candidates[torch.arange(2), first].any()
    assert not candidates[features["input_ids"] == encoder.tokenizer.bos_token_id].any()
    assert int(candidates.sum()) == int(features["attention_mask"].sum()) - 2


def test_a_text_of_one_token_teaches_nothing_and_breaks_nothing(decoder: str) -> None:
    encoder = convert(decoder, "llm2vec")
    loss = MNTPLoss(encoder)
    value = loss([encoder.preprocess([""])], None)
    value.backward()
    assert float(value.detach()) == 0


def test_mask_tokens(decoder: str, tmp_path: Path) -> None:
    encoder = convert(decoder, "llm2vec")
    assert MNTPLoss(encoder, mask_token="eos").masker.mask_id == encoder.tokenizer.eos_token_id
    with pytest.raises(ValueError, match=r"'two words' is \d+ tokens for this tokenizer"):
        MNTPLoss(encoder, mask_token="two words")
    with pytest.raises(ValueError, match="no mask token of its own"):
        MNTPLoss(encoder, mask_token="own")
    before = encoder.encode(TEXTS)
    added = add_mask_token(encoder)
    assert MNTPLoss(encoder, mask_token="own").masker.mask_id == added
    MNTPLoss(encoder, mask_token="own")([encoder.preprocess(TEXTS)], None).backward()
    encoder.save(str(tmp_path / "encoder"))
    again = load(tmp_path / "encoder")
    assert again.tokenizer.mask_token_id == added
    assert cosine_distance(again.encode(TEXTS), before) < 1e-6
    with pytest.raises(ValueError, match="already has '<mask>'"):
        add_mask_token(encoder)


def test_bad_settings(decoder: str) -> None:
    encoder = convert(decoder, "llm2vec")
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        MNTPLoss(encoder, mlm_probability=0)
    for wrong in ([0.8, 0.15], [0.1], [0, 0.5], "0.2"):
        with pytest.raises(ValueError, match="a pair of such numbers, the smaller one first"):
            MNTPLoss(encoder, mlm_probability=wrong)
    with pytest.raises(ValueError, match="choose from bert, all_mask"):
        MNTPLoss(encoder, masking="half")
    with pytest.raises(ValueError, match="one column of texts; the dataset gave 2"):
        MNTPLoss(encoder)([encoder.preprocess(TEXTS), encoder.preprocess(TEXTS)], None)


class TestUntiedHead:
    """An encoder keeps no head; it comes from the base, or the loss says that it cannot."""

    def test_it_is_read_from_the_base_that_the_manifest_names(self, tmp_path: Path) -> None:
        base = with_head(tmp_path / "base", "llama", tie_word_embeddings=False)
        convert(base, "llm2vec").save(str(tmp_path / "encoder"))
        encoder = load(tmp_path / "encoder")
        head = AutoModelForCausalLM.from_pretrained(base).lm_head.weight
        found = dict(zip(MNTPLoss(encoder).head.names, MNTPLoss(encoder).head.weights, strict=True))
        assert torch.equal(found["lm_head.weight"], head)
        assert not found["lm_head.weight"].requires_grad

    def test_a_lost_base_is_named(self, tmp_path: Path) -> None:
        base = with_head(tmp_path / "base", "llama", tie_word_embeddings=False)
        convert(base, "llm2vec").save(str(tmp_path / "encoder"))
        shutil.move(base, tmp_path / "elsewhere")
        with pytest.raises(ValueError, match="output head could not be read from the base"):
            MNTPLoss(load(tmp_path / "encoder"))
        assert MNTPLoss(load(tmp_path / "encoder"), head=str(tmp_path / "elsewhere")).head is not None

    def test_a_base_of_another_shape_is_refused(self, tmp_path: Path) -> None:
        base = with_head(tmp_path / "base", "llama", tie_word_embeddings=False)
        other = with_head(tmp_path / "other", "llama", tie_word_embeddings=False, hidden_size=32)
        with pytest.raises(ValueError, match="fits this encoder|could not be read"):
            MNTPLoss(convert(base, "llm2vec"), head=other)


def test_a_trained_head_stays_with_its_encoder(tmp_path: Path) -> None:
    base = with_head(tmp_path / "base", "llama", tie_word_embeddings=False)
    encoder, first, second = convert(base, "llm2vec"), tmp_path / "first", tmp_path / "second"
    MNTPLoss(encoder, train_head=True)
    with torch.no_grad():
        next(iter(encoder[0].mntp_head.weights)).add_(1)
    encoder.save(str(first))
    trained = load_file(first / "mntp_head.safetensors")["lm_head.weight"]
    load(first).save(str(second))
    load(second).save(str(second))
    for read in (load(second), TextEncoder(str(second))):
        assert torch.equal(next(iter(MNTPLoss(read).head.weights)), trained)
    later = load(second)
    later.manifest.stages.append({"name": "simcse"})
    later.save(str(tmp_path / "later"))
    assert not (tmp_path / "later" / "mntp_head.safetensors").exists(), "it belongs to other weights"
    (second / "mntp_head.safetensors").unlink()
    with pytest.raises(ValueError, match="mntp_head.safetensors, which is not there any more"):
        MNTPLoss(later)


@pytest.mark.parametrize("tied", [True, False])
def test_a_trained_head_is_saved_and_restored_with_checkpoints(tmp_path: Path, tied: bool) -> None:
    base = with_head(tmp_path / "base", "llama", tie_word_embeddings=tied)
    texts = Dataset.from_dict({"text": TEXTS * 4})

    def trainer(steps: int) -> tuple[TextEncoder, MNTPLoss, SentenceTransformerTrainer]:
        torch.manual_seed(0)
        encoder = convert(base, "llm2vec")
        attach_adapter(encoder, Adapter(r=2, dropout=0.1))
        loss = MNTPLoss(encoder, 0.5, mask_token="e", train_head=True)
        arguments = SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path / f"run-{steps}"),
            max_steps=steps,
            per_device_train_batch_size=4,
            learning_rate=1e-2,
            lr_scheduler_type="constant",
            save_steps=2,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
        )
        return encoder, loss, SentenceTransformerTrainer(encoder, arguments, texts, loss=loss)

    def head(encoder: TextEncoder) -> Tensor:
        return next(iter(encoder[0].mntp_head.weights)).detach().clone()

    encoder, _, training = trainer(4)
    before = head(encoder)
    training.train()
    expected = head(encoder)
    assert not torch.equal(before, expected)
    shutil.rmtree(tmp_path / "run-4/checkpoint-4")
    resumed, _, training = trainer(4)
    training.train(resume_from_checkpoint=str(tmp_path / "run-4/checkpoint-2"))
    assert torch.equal(head(resumed), expected)
    stored = load_file(tmp_path / "run-4/checkpoint-4/mntp_head.safetensors")
    assert torch.equal(next(iter(stored.values())), expected)
    fresh = MNTPLoss(convert(base, "llm2vec"), mask_token="e", head=str(tmp_path / "run-4/checkpoint-4"))
    assert torch.equal(next(iter(fresh.head.weights)), expected)
