"""What training does to weights that are stored in bfloat16, as those of most real decoders are."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from st_llm2vec import TextEncoder, convert, load
from st_llm2vec.folder import merge as merging
from st_llm2vec.training import MNTP, Adapter, SimCSE, Stage, TrainingError, build_stage

from ..conftest import TEXTS, but_first, cosine_distance
from ..promises import Promise
from ..stand_ins import stand_in

TRAINING = {
    "max_steps": 4,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-4,
    "save_steps": 2,
    "logging_steps": 1,
    "use_cpu": True,
    "disable_tqdm": True,
}


@pytest.fixture(scope="module")
def half_decoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return stand_in("smollm2", tmp_path_factory.mktemp("decoder") / "smollm2")


def simcse(decoder: str, output: Path, texts: str, **more: Any) -> SimCSE:
    more = {"adapter": Adapter(r=4), "training": TRAINING, **more}
    return SimCSE(model=decoder, output=str(output), data=texts, max_length=24, **more)


@pytest.mark.promise(Promise.RESUMED)
@pytest.mark.parametrize(
    "more", but_first([{}, {"dtype": "bfloat16"}, {"dtype": "float32"}, {"adapter": None}], fast=2)
)
def test_a_continued_run_is_the_same_run_to_the_bit(
    half_decoder: str, tmp_path: Path, texts_file: str, more: dict[str, Any]
) -> None:
    simcse(half_decoder, tmp_path / "whole", texts_file, **more).run()
    torn = simcse(half_decoder, tmp_path / "torn", texts_file, **more)
    torn.folder.claim()
    shutil.copytree(tmp_path / "whole/checkpoints/checkpoint-2", tmp_path / "torn/checkpoints/checkpoint-2")
    torn.run()
    file = "model.safetensors" if "adapter" in more else "adapter_model.safetensors"
    first, second = (load_file(tmp_path / name / "checkpoints/checkpoint-4" / file) for name in ("whole", "torn"))
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())
    assert {weight.dtype for weight in first.values()} == {torch.float32}
    whole, continued = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "torn"))
    assert whole == continued


def test_a_short_run_ends_with_what_it_learned(half_decoder: str, tmp_path: Path, texts_file: str) -> None:
    simcse(half_decoder, tmp_path / "out", texts_file).run()
    record = load(tmp_path / "out").manifest.stages[-1]
    assert record["merged"] and record["merge_distance"] < 1e-6
    assert record["weights"] == "float32" and record["update_kept"]["bfloat16"] < 0.9
    plain = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    unmerged = load(tmp_path / "out/checkpoints/checkpoint-4", device="cpu", dtype=torch.float32)
    assert cosine_distance(plain.encode(TEXTS), unmerged.encode(TEXTS)) < 1e-6


def test_a_type_that_was_asked_for_is_saved_with_figures(half_decoder: str, tmp_path: Path, texts_file: str) -> None:
    simcse(half_decoder, tmp_path / "out", texts_file, dtype="bfloat16").run()
    record = load(tmp_path / "out").manifest.stages[-1]
    assert record["weights"] == "bfloat16" and record["update_kept"]["bfloat16"] < 0.9
    assert {weight.dtype for weight in load_file(tmp_path / "out/model.safetensors").values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("dtype", "said"),
    [
        (None, "The decoder is in bfloat16 and its adapter in float32. They are merged in float32 at the end"),
        ("bfloat16", "The encoder will be saved in bfloat16, as dtype says, which keeps little of a short training"),
        ("float32", ""),
    ],
)
def test_a_run_says_first_what_its_types_will_keep(
    half_decoder: str,
    texts_file: str,
    dtype: str | None,
    said: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("st_llm2vec.encoding.dtype.cpu_speed", lambda: 0.2)
    made = simcse(half_decoder, Path("never-made"), texts_file, dtype=dtype)
    made.attach(made.start())
    found = [entry.getMessage() for entry in caplog.records if entry.name == "st_llm2vec.training.stage"]
    if not said:
        assert not found
        return
    slow, kept = found
    assert (
        re.search("in bfloat16, in which .* is 5.0 times slower than in float32: --dtype float32", slow)
        and said in kept
    )


def test_the_best_model_is_that_of_its_checkpoint_to_the_bit(
    half_decoder: str, tmp_path: Path, texts_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = tmp_path / "scores.csv"
    scores.write_text("a cat sleeps,a kitten naps,4.5\na dog runs,the sea is calm,0.2\nrain fell,it rained,5\n")
    training = {**TRAINING, "max_steps": 9, "eval_steps": 1, "save_steps": 1, "learning_rate": 1e-2}
    made = simcse(half_decoder, tmp_path / "out", texts_file, evaluation=str(scores), patience=2, training=training)
    finish, held = made.finish, {}

    def look(encoder: TextEncoder, trainer: Any, data: Any) -> TextEncoder:
        model, step = encoder.transformer.model, trainer.state.best_global_step
        assert step != trainer.state.global_step
        held[step] = {name: weight.clone() for name, weight in get_peft_model_state_dict(model).items()}
        return finish(encoder, trainer, data)

    monkeypatch.setattr(made, "finish", look)
    made.run()
    ((step, weights),) = held.items()
    stored = load_file(tmp_path / f"out/checkpoints/checkpoint-{step}/adapter_model.safetensors")
    assert stored.keys() == {f"base_model.model.{name}" for name in weights}
    assert all(torch.equal(weight, stored[f"base_model.model.{name}"]) for name, weight in weights.items())
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


def test_a_merge_that_fails_strands_nothing(
    half_decoder: str, tmp_path: Path, texts_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = simcse(half_decoder, tmp_path / "out", texts_file)
    monkeypatch.setattr(merging, "largest_cosine_distance", lambda *vectors: 1.0)
    with pytest.raises(TrainingError, match="more than rounding explains.*its adapter apart") as caught:
        made.run()
    named = str(caught.value).split("trained encoder is in ")[1].split(",")[0]
    assert load(named, device="cpu")[0].model.peft_config
    monkeypatch.undo()
    monkeypatch.setattr("st_llm2vec.training.trainer_run.SentenceTransformerTrainer.train", None)
    made.run()
    assert json.loads((tmp_path / "out/training_run.json").read_text())["finished"]


def test_all_weights_learn_in_float32(half_decoder: str, tmp_path: Path, texts_file: str) -> None:
    before = convert(half_decoder, "llm2vec", device="cpu", dtype=torch.float32)[0].model.state_dict()
    simcse(half_decoder, tmp_path / "out", texts_file, adapter=None).run()
    after = load_file(tmp_path / "out/model.safetensors")
    assert {weight.dtype for weight in after.values()} == {torch.float32}
    layers = [name for name in after if "proj" in name]
    assert sum((after[name] != before[name]).float().mean() for name in layers) / len(layers) > 0.9


def retrieval(decoder: str, output: Path, pairs: str, **more: Any) -> Stage:
    latent = {"num_latents": 8, "num_heads": 2, "head_dimension": 16}
    more = {"changes": {"latent_attention": latent}, "adapter": Adapter(r=4), "training": TRAINING, **more}
    return build_stage("retrieval", model=decoder, output=str(output), data={"path": pairs}, max_length=24, **more)


@pytest.mark.parametrize("dtype", but_first([None, "bfloat16"]))
def test_latent_attention_learns_in_float32(
    half_decoder: str, tmp_path: Path, pairs_file: str, dtype: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    made = retrieval(half_decoder, tmp_path / "out", pairs_file, dtype=dtype)
    before = made.start()[1].state_dict()
    made.run()
    assert "rounds most of an optimizer's steps away" not in caplog.text
    checkpoint = tmp_path / "out/checkpoints/checkpoint-4"
    learned = load_file(checkpoint / "1_LatentAttentionPooling/model.safetensors")
    moved = sum(int((weight != before[name].float()).sum()) for name, weight in learned.items())
    assert moved / sum(weight.numel() for weight in learned.values()) > 0.9
    kept = load(checkpoint, device="cpu")[1].state_dict()
    assert all(torch.equal(weight, kept[name]) for name, weight in learned.items())
    expected = getattr(torch, dtype or "float32")
    encoder = load(tmp_path / "out", device="cpu")
    assert {weight.dtype for weight in encoder.parameters()} == {expected}
    if dtype is None:
        plain = SentenceTransformer(str(tmp_path / "out"), device="cpu", trust_remote_code=True)
        unmerged = load(checkpoint, device="cpu", dtype=torch.float32).encode(TEXTS)
        assert max(cosine_distance(one.encode(TEXTS), unmerged) for one in (encoder, plain)) < 1e-6


@pytest.mark.slow
def test_latent_attention_continues_to_the_bit(half_decoder: str, tmp_path: Path, pairs_file: str) -> None:
    retrieval(half_decoder, tmp_path / "whole", pairs_file).run()
    torn = retrieval(half_decoder, tmp_path / "torn", pairs_file)
    torn.folder.claim()
    shutil.copytree(tmp_path / "whole/checkpoints/checkpoint-2", tmp_path / "torn/checkpoints/checkpoint-2")
    torn.run()
    for file in ("model.safetensors", "1_LatentAttentionPooling/model.safetensors"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "torn" / file).read_bytes(), file


@pytest.mark.parametrize(
    ("kind", "more", "setting"),
    [
        (SimCSE, {"adapter": None}, "adapter: null"),
        (MNTP, {"adapter": None}, "adapter: null"),
        (MNTP, {"train_head": True}, "train_head"),
    ],
)
def test_a_type_that_rounds_the_steps_away_is_refused(kind: type[Stage], more: dict[str, Any], setting: str) -> None:
    with pytest.raises(ValueError, match=rf"^With {setting}.*Leave dtype out.*bf16: true"):
        kind(model="org/decoder", output="out", data="texts.txt", dtype="bfloat16", **more)


def test_a_stage_uploads_no_checkpoints() -> None:
    with pytest.raises(ValueError, match="st-llm2vec publish out org/name"):
        SimCSE(model="org/decoder", output="out", data="texts.txt", training={"push_to_hub": True})


def test_a_stock_trainer_says_that_steps_are_rounded_away(
    half_decoder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stock_trainer(convert(half_decoder, "llm2vec", device="cpu", dtype=torch.float32), tmp_path / "full").train()
    encoder = convert(half_decoder, "llm2vec", device="cpu")
    encoder.add_adapter(LoraConfig(r=2, target_modules=["q_proj"]))
    stock_trainer(encoder, tmp_path / "adapter").train()
    assert "rounds most of an optimizer's steps away" not in caplog.text
    stock_trainer(convert(half_decoder, "llm2vec", device="cpu"), tmp_path / "half").train()
    assert caplog.text.count("learn in torch.bfloat16, which rounds most of an optimizer's steps away") == 1


def stock_trainer(encoder: TextEncoder, output: Path, **more: Any) -> SentenceTransformerTrainer:
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(output),
        max_steps=2,
        save_strategy="no",
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        **more,
    )
    pairs = Dataset.from_dict({"anchor": TEXTS, "positive": TEXTS[::-1]})
    return SentenceTransformerTrainer(
        model=encoder, args=arguments, train_dataset=pairs, loss=MultipleNegativesRankingLoss(encoder)
    )
