"""Every stage, from a folder to a folder."""

from __future__ import annotations

import json
import math
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from st_llm2vec import convert, load
from st_llm2vec.training import (
    MNTP,
    Adapter,
    SimCSE,
    Stage,
    Supervised,
    TrainingError,
    attach_adapter,
    build_stage,
    build_stages,
    run_stages,
)

from ..conftest import TEXTS, but_first, cosine_distance

TRAINING = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "warmup_steps": 0,
    "logging_steps": 1,
    "use_cpu": True,
    "disable_tqdm": True,
}
LATENT = {"latent_attention": {"num_latents": 8, "num_heads": 2, "head_dimension": 16}}


def stage(kind: type[Stage] | str, decoder: str, output: Path, data: Any, **more: Any) -> Stage:
    training = {**TRAINING, **more.pop("training", {})}
    made = partial(build_stage, kind) if isinstance(kind, str) else kind
    return made(model=decoder, output=str(output), data=data, max_length=64, training=training, **more)


def assert_trained(before: Any, folder: Path, name: str, portable: bool = True) -> None:
    encoder = load(folder)
    assert cosine_distance(before.encode(TEXTS), encoder.encode(TEXTS)) > 1e-6
    record = encoder.manifest.stages[-1]
    assert record["name"] == name and record["steps"] == 2
    assert math.isfinite(record["last_loss"])
    assert encoder.max_seq_length == before.max_seq_length
    assert not (folder / "adapter_config.json").exists()
    if portable:
        plain = SentenceTransformer(str(folder))
        assert cosine_distance(plain.encode(TEXTS), encoder.encode(TEXTS)) < 1e-6


@pytest.mark.parametrize(
    "more",
    [{"block_size": 32, "mlm_probability": (0.15, 0.8)}, {"block_size": None, "adapter": None, "masking": "all_mask"}],
)
def test_mntp(decoder: str, tmp_path: Path, texts_file: str, more: dict[str, Any]) -> None:
    stage(MNTP, decoder, tmp_path / "out", texts_file, evaluation=texts_file, **more).run()
    assert_trained(convert(decoder, "llm2vec"), tmp_path / "out", "mntp")


@pytest.mark.slow
def test_mntp_with_an_added_mask_token(decoder: str, tmp_path: Path, texts_file: str) -> None:
    token = {"mask_token": "<mask>", "add_mask_token": True}
    stage(MNTP, decoder, tmp_path / "out", texts_file, block_size=None, **token).run()
    encoder = load(tmp_path / "out")
    assert encoder.tokenizer.mask_token == "<mask>"
    assert encoder.max_seq_length == convert(decoder, "llm2vec").max_seq_length, "that of training was for training"
    assert not (tmp_path / "out/start").exists()


@pytest.mark.slow
def test_simcse_from_an_earlier_folder(decoder: str, tmp_path: Path, texts_file: str) -> None:
    plan = {
        "model": decoder,
        "training": TRAINING,
        "stages": [
            {"stage": "mntp", "data": texts_file, "block_size": 32},
            {"stage": "simcse", "data": texts_file, "max_length": 64},
        ],
    }
    said: list[str] = []
    encoder = run_stages(build_stages(plan, tmp_path / "out"), said.append)
    assert [record["name"] for record in encoder.manifest.stages] == ["mntp", "simcse"]
    assert all(record["merged"] and record["merge_distance"] < 1e-5 for record in encoder.manifest.stages)
    assert len(said) == 2 and "Stage 2 of 2: simcse" in said[1]
    assert cosine_distance(SentenceTransformer(str(tmp_path / "out")).encode(TEXTS), encoder.encode(TEXTS)) < 1e-6
    written = (tmp_path / "out/model.safetensors").stat().st_mtime_ns
    run_stages(build_stages(plan, tmp_path / "out"))
    assert (tmp_path / "out/model.safetensors").stat().st_mtime_ns == written


@pytest.mark.parametrize("mini_batch_size", [None, 2])
def test_supervised_with_an_instruction(
    decoder: str, tmp_path: Path, pairs_file: str, mini_batch_size: int | None
) -> None:
    source = {"path": pairs_file, "query_instruction": "Find the passage:"}
    stage(Supervised, decoder, tmp_path / "out", source, mini_batch_size=mini_batch_size).run()
    assert_trained(convert(decoder, "llm2vec"), tmp_path / "out", "supervised")
    assert load(tmp_path / "out").manifest.stages[-1]["instructions"]["query"] == ["Find the passage:"]


def test_a_run_that_can_teach_little_is_said_before_it(
    decoder: str, tmp_path: Path, texts_file: str, caplog: pytest.LogCaptureFixture
) -> None:
    short = stage(MNTP, decoder, tmp_path / "out", texts_file, block_size=16)
    short.training |= {"per_device_train_batch_size": 1000, "max_steps": 3, "warmup_steps": 3}
    short.begin()
    assert "rises for 3 steps and the run has 3" in caplog.text
    caplog.clear()
    by_epochs = stage(MNTP, decoder, tmp_path / "epochs", texts_file, block_size=16)
    by_epochs.training = {**by_epochs.training, "max_steps": -1, "num_train_epochs": 1, "warmup_steps": 300}
    by_epochs.run()
    assert re.search(r"rises for 300 steps and the run has \d+,", caplog.text)
    short.read(short.start())
    assert re.search(r"make \d+ block\(s\) of block_size=16 tokens, fewer than the 1000 rows", caplog.text)


@pytest.mark.parametrize("role", ["query", "document"])
def test_an_instruction_that_training_does_not_have_is_said(
    decoder: str, tmp_path: Path, pairs_file: str, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept = {"changes": {"prompts": {role: "Find the passage:"}}}
    said = f"with which encode_{role} reads every text"
    stage(Supervised, decoder, tmp_path / "bare", pairs_file, **kept).begin()
    assert said in caplog.text
    for told, expected in (("Find the passage:", False), ("Find the pasage:", True)):
        caplog.clear()
        source = {"path": pairs_file, f"{role}_instruction": told}
        stage(Supervised, decoder, tmp_path / f"told {expected}", source, **kept).begin()
        assert (said in caplog.text) == (f"has {told!r} for that side" in caplog.text) == expected


@pytest.mark.parametrize("kept", [False, True])
def test_an_instruction_that_queries_will_not_have_is_said(
    decoder: str, tmp_path: Path, pairs_file: str, kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    source = {"path": pairs_file, "query_instruction": "Find the passage:"}
    prompts = {"query": "Find the passage:"} if kept else {}
    convert(decoder, "llm2vec", prompts=prompts).save(str(tmp_path / "encoder"))
    for name, more in (("encoder", {}), ("decoder", {"changes": {"prompts": prompts}})):
        caplog.clear()
        model = decoder if name == "decoder" else str(tmp_path / name)
        stage(Supervised, model, tmp_path / f"out-{name}", source, **more).begin()
        said = "trained with the instruction 'Find the passage:', and the encoder keeps none for them"
        assert (said in caplog.text) == (not kept), name


def test_in_batch_negatives_are_chosen_per_dataset(decoder: str, tmp_path: Path, pairs_file: str) -> None:
    sources = [{"path": pairs_file, "name": "on"}, {"path": pairs_file, "name": "off", "in_batch_negatives": False}]
    made = stage(Supervised, decoder, tmp_path / "out", sources)
    encoder = made.start()
    losses = made.loss(encoder, made.read(encoder))
    assert {name: loss.in_batch_negatives for name, loss in losses.items()} == {"on": True, "off": False}
    made.run()


def test_two_stages_of_nv_embed(decoder: str, tmp_path: Path, pairs_file: str) -> None:
    stage("retrieval", decoder, tmp_path / "one", {"path": pairs_file}, changes=LATENT).run()
    sources = [
        {"path": pairs_file, "name": "a", "query_instruction": "Find the passage:", "in_batch_negatives": True},
        {"path": pairs_file, "name": "b", "query_instruction": "Name the topic:", "symmetric": True},
    ]
    made = stage("blended", str(tmp_path / "one"), tmp_path / "two", sources)
    made.run()
    encoder = load(tmp_path / "two")
    assert [record["name"] for record in encoder.manifest.stages] == ["retrieval", "blended"]
    assert encoder.manifest.stages[1]["rows"] == {"train": 84}


def test_prompteol(decoder: str, tmp_path: Path, pairs_file: str) -> None:
    stage("prompteol_cse", decoder, tmp_path / "out", pairs_file, training={"max_steps": 2}).run()
    assert_trained(convert(decoder, "prompteol"), tmp_path / "out", "prompteol_cse")


@pytest.mark.slow
def test_full_fine_tuning_with_interpolation(decoder: str, tmp_path: Path, texts_file: str) -> None:
    vectors = {}
    for share in (1.0, 0.5, 0.0):
        folder = tmp_path / str(share)
        stage(SimCSE, decoder, folder, texts_file, adapter=None, interpolation=share).run()
        vectors[share] = load(folder).encode(TEXTS)
    plain = convert(decoder, "llm2vec").encode(TEXTS)
    assert cosine_distance(plain, vectors[0.0]) < 1e-6
    assert cosine_distance(plain, vectors[1.0]) > cosine_distance(plain, vectors[0.5]) > 1e-6


@pytest.mark.slow
def test_gradient_checkpointing_and_bfloat16(decoder: str, tmp_path: Path, texts_file: str) -> None:
    training = {"gradient_checkpointing": True, "bf16": True}
    stage(SimCSE, decoder, tmp_path / "out", texts_file, training=training).run()
    assert_trained(convert(decoder, "llm2vec"), tmp_path / "out", "simcse")


@pytest.mark.slow
def test_two_runs_of_one_seed_are_identical(decoder: str, tmp_path: Path, texts_file: str) -> None:
    for name in ("one", "two"):
        stage(SimCSE, decoder, tmp_path / name, texts_file).run()
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert first == second


@pytest.fixture
def scores_file(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "scores.csv"
    rows = [
        ("a cat sleeps", "a kitten naps", 4.5),
        ("a dog runs", "the sea is calm", 0.2),
        ("rain fell", "it rained", 5),
    ]
    path.write_text("\n".join(f"{first},{second},{score}" for first, second, score in rows) + "\n")
    return {"path": str(path), "columns": ["sentence1", "sentence2", "score"]}


def test_early_stopping_goes_back_to_the_best_checkpoint(
    decoder: str, tmp_path: Path, texts_file: str, scores_file: dict[str, Any]
) -> None:
    training = {"max_steps": 9, "eval_steps": 1, "learning_rate": 1e-2}
    made = stage(SimCSE, decoder, tmp_path / "out", texts_file, evaluation=scores_file, patience=2, training=training)
    made.run()
    last = max((tmp_path / "out/checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    history = json.loads((last / "trainer_state.json").read_text())
    encoder = load(tmp_path / "out")
    assert encoder.manifest.stages[-1]["best"] == history["best_metric"]
    best = tmp_path / f"out/checkpoints/checkpoint-{history['best_global_step']}"
    assert best != last
    assert cosine_distance(load(best).encode(TEXTS), encoder.encode(TEXTS)) < 1e-6
    assert any("tokens_per_second" in entry for entry in history["log_history"])


def test_a_best_checkpoint_that_cannot_be_read_stops_the_run(
    decoder: str, tmp_path: Path, texts_file: str, scores_file: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainer itself would only log, and keep the last weights."""
    training = {"max_steps": 3, "eval_steps": 1, "save_steps": 1, "learning_rate": 1e-2}
    made = stage(SimCSE, decoder, tmp_path / "out", texts_file, evaluation=scores_file, patience=3, training=training)

    def lose(self: Any, path: str) -> None:
        with torch.no_grad():
            next(self.model.parameters()).add_(0.01)  # the last weights, whatever the best ones are
        raise OSError("the disk is gone")

    monkeypatch.setattr("sentence_transformers.SentenceTransformerTrainer._load_from_checkpoint", lose)
    try:
        with pytest.raises(TrainingError, match="could not be read back"):
            made.run()
    finally:
        monkeypatch.undo()
    assert not (tmp_path / "out/modules.json").exists()


@pytest.mark.parametrize("more", but_first([{"stop_after": 2}, {}]))
def test_a_run_that_was_over_is_not_trained_on(
    decoder: str, tmp_path: Path, texts_file: str, more: dict[str, Any]
) -> None:
    training = {"max_steps": 4 if more else 2, "save_steps": 1}
    made = stage(SimCSE, decoder, tmp_path / "out", texts_file, training=training, **more)
    made.run()
    weights = (tmp_path / "out/model.safetensors").read_bytes()
    record = json.loads((tmp_path / "out/training_run.json").read_text())
    (tmp_path / "out/training_run.json").write_text(json.dumps({**record, "finished": False}))
    for name in ("model.safetensors", "modules.json", "st_llm2vec.json"):
        (tmp_path / "out" / name).unlink()
    made.run()
    assert (tmp_path / "out/model.safetensors").read_bytes() == weights
    assert load(tmp_path / "out").manifest.stages[-1]["steps"] == 2


def test_an_encoder_keeps_its_own_length(decoder: str, tmp_path: Path, texts_file: str) -> None:
    encoder = convert(decoder, "llm2vec")
    encoder.max_seq_length = 200
    encoder.save(str(tmp_path / "start"))
    stage(SimCSE, str(tmp_path / "start"), tmp_path / "out", Path(texts_file)).run()
    assert load(tmp_path / "out").max_seq_length == 200


@pytest.mark.slow
def test_a_trained_head_goes_into_the_next_stage(decoder: str, tmp_path: Path, texts_file: str) -> None:
    stage(MNTP, decoder, tmp_path / "one", texts_file, block_size=32, train_head=True).run()
    trained = load_file(tmp_path / "one/mntp_head.safetensors")["lm_head.weight"]
    made = stage(MNTP, str(tmp_path / "one"), tmp_path / "two", texts_file, block_size=32)
    encoder = made.start()
    loss = made.loss(encoder, made.read(encoder))
    assert torch.equal(next(iter(loss.head.weights)), trained)


class TestBadInput:
    """Each a sentence, before any training time is spent."""

    def test_data(self, decoder: str, tmp_path: Path, texts_file: str, pairs_file: str) -> None:
        (tmp_path / "short.txt").write_text("a\nb\n")
        (tmp_path / "empty.txt").write_text("")
        (tmp_path / "equal.jsonl").write_text('{"query": "a", "positive": "b c", "negative": "b c "}\n')
        (tmp_path / "bare.jsonl").write_text('{"query": "a", "positive": "b c"}\n')
        cases: list[tuple[type[Stage], Any, dict[str, Any], str]] = [
            (SimCSE, None, {}, "no data"),
            (SimCSE, pairs_file, {}, "no column 'text'"),
            (SimCSE, str(tmp_path / "empty.txt"), {}, "(?i)empty|no rows"),
            (MNTP, str(tmp_path / "short.txt"), {"block_size": None}, "fewer than 2 tokens"),
            (MNTP, texts_file, {"block_size": 4096}, "more than the encoder reads|not even one block"),
            (MNTP, texts_file, {"block_size": 32, "mask_token": "no such token"}, "tokens for this tokenizer"),
            (Supervised, None, {}, "no data"),
            (Supervised, str(tmp_path / "equal.jsonl"), {}, "(?i)negative"),
            (
                Supervised,
                str(tmp_path / "bare.jsonl"),
                {"in_batch_negatives": False},
                "nothing to tell a positive from",
            ),
            (SimCSE, texts_file, {"adapter": Adapter(targets=["nowhere"])}, "adapter does not fit"),
            (SimCSE, texts_file, {"adapter": Adapter(dropout=0.0), "attention_dropout": None}, "dropout is zero"),
        ]
        for number, (kind, data, more, message) in enumerate(cases):
            with pytest.raises(ValueError, match=message):
                stage(kind, decoder, tmp_path / f"out-{number}", data, **more).run()
            assert not (tmp_path / f"out-{number}/modules.json").exists()

    def test_settings(self, decoder: str, tmp_path: Path, texts_file: str) -> None:
        with pytest.raises(ValueError, match="interpolation is 2"):
            stage(SimCSE, decoder, tmp_path / "out", texts_file, interpolation=2)
        with pytest.raises(ValueError, match="patience needs an evaluation"):
            stage(SimCSE, decoder, tmp_path / "out", texts_file, patience=2)
        with pytest.raises(ValueError, match="do not fit SentenceTransformerTrainingArguments"):
            stage(SimCSE, decoder, tmp_path / "out", texts_file, training={"steps": 3}).arguments()
        with pytest.raises(ValueError, match="QLoRA needs bitsandbytes"):
            stage(SimCSE, decoder, tmp_path / "out", texts_file, adapter=Adapter(quantize="nf4")).run()

    def test_a_later_stage_is_checked_before_the_first_one_trains(
        self, decoder: str, tmp_path: Path, texts_file: str
    ) -> None:
        first = {"stage": "mntp", "data": texts_file, "block_size": 32}
        for second, message in [
            ({"stage": "simcse", "data": str(tmp_path / "lost.txt")}, "no file"),
            ({"stage": "simcse", "data": texts_file, "training": {"colour": 1}}, "do not fit"),
            ({"stage": "supervised", "data": texts_file}, "(?i)column"),
        ]:
            plan = {"model": decoder, "training": TRAINING, "stages": [first, second]}
            with pytest.raises(ValueError, match=message):
                run_stages(build_stages(plan, tmp_path / "out"))
            assert not (tmp_path / "out-stages").exists()

    def test_evaluating_and_saving_at_different_steps(
        self, decoder: str, tmp_path: Path, texts_file: str, scores_file: dict[str, Any]
    ) -> None:
        training = {"eval_steps": 1, "save_steps": 2}
        with pytest.raises(ValueError, match="evaluate and save at the same steps"):
            stage(
                SimCSE, decoder, tmp_path / "out", texts_file, evaluation=scores_file, patience=2, training=training
            ).run()

    def test_a_folder_without_a_manifest(self, decoder: str, tmp_path: Path, texts_file: str) -> None:
        convert(decoder, "llm2vec").save(str(tmp_path / "start"))
        (tmp_path / "start/st_llm2vec.json").unlink()
        with pytest.raises(ValueError, match="has no st_llm2vec.json"):
            stage(SimCSE, str(tmp_path / "start"), tmp_path / "out", texts_file).run()

    def test_a_folder_of_another_run(self, decoder: str, tmp_path: Path, texts_file: str) -> None:
        stage(SimCSE, decoder, tmp_path / "out", texts_file).run()
        with pytest.raises(ValueError, match="holds another run: scale was 20.0 and is 5.0 now"):
            stage(SimCSE, decoder, tmp_path / "out", texts_file, scale=5.0).run()

    def test_a_folder_that_another_process_trains_into(self, decoder: str, tmp_path: Path, texts_file: str) -> None:
        made = stage(SimCSE, decoder, tmp_path / "out", texts_file)
        with made.folder.held(), pytest.raises(ValueError, match="Another process is training into .*out. Wait for it"):
            made.run()
        assert not any(tmp_path.iterdir())

    @pytest.mark.parametrize("lost", ["adapter_model.safetensors", "base"])
    def test_a_missing_adapter_or_its_base(self, decoder: str, tmp_path: Path, texts_file: str, lost: str) -> None:
        shutil.copytree(decoder, tmp_path / "base")
        encoder = convert(tmp_path / "base", "llm2vec")
        attach_adapter(encoder, Adapter(r=2))
        encoder.save(str(tmp_path / "adapter"))
        place = tmp_path / ("adapter" if "adapter" in lost else "") / lost
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        with pytest.raises(ValueError, match=f"{tmp_path}/(adapter|base)"):
            stage(SimCSE, str(tmp_path / "adapter"), tmp_path / "out", texts_file).run()
        assert not (tmp_path / "out/checkpoints").exists()

    def test_plans(self, decoder: str, tmp_path: Path) -> None:
        for plan, message in [
            ({"model": decoder}, "has no stages"),
            ({"model": decoder, "stages": [{"stage": "magic"}]}, "must be one of mntp, simcse"),
            ({"model": decoder, "stages": [{"stage": ["mntp"]}]}, r"is \['mntp'\].*must be one of mntp, simcse"),
            ({"stages": [{"stage": "mntp"}]}, "names no model"),
            ({"model": decoder, "stages": [{"stage": "mntp", "colour": 3}]}, "does not have these settings"),
        ]:
            with pytest.raises(ValueError, match=message):
                build_stages(plan, tmp_path / "out")
