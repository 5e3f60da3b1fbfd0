"""What training does to weights that are stored in bfloat16, as those of most real decoders are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from st_llm2vec import TextEncoder, convert, load
from st_llm2vec.checkpoints import merging
from st_llm2vec.training import MNTP, Adapter, SimCSE, Stage

from ..conftest import TEXTS, cosine_distance
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


@pytest.mark.parametrize("more", [{}, {"dtype": "float32"}, {"dtype": "bfloat16"}, {"adapter": None}])
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


def test_a_merge_that_fails_strands_nothing(
    half_decoder: str, tmp_path: Path, texts_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = simcse(half_decoder, tmp_path / "out", texts_file)
    monkeypatch.setattr(merging, "_distance", lambda *vectors: 1.0)
    with pytest.raises(RuntimeError, match="more than rounding explains.*its adapter apart") as caught:
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


@pytest.mark.parametrize(
    ("kind", "more"), [(SimCSE, {"adapter": None}), (MNTP, {"adapter": None}), (MNTP, {"train_head": True})]
)
def test_a_type_that_rounds_the_steps_away_is_refused(kind: type[Stage], more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"adapter: null|train_head.*Leave dtype out.*bf16: true"):
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
