"""What a run says while it trains, and that it stops where its numbers do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

from st_llm2vec import convert
from st_llm2vec.host.memory import peak_memory
from st_llm2vec.losses import HardNegativesRankingLoss
from st_llm2vec.training import SimCSE, StopAtNonFinite
from st_llm2vec.training.callbacks import ProgressLines

TRAINING = {"per_device_train_batch_size": 4, "max_steps": 3, "logging_steps": 1, "use_cpu": True}


def test_lines_of_a_log_that_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProgressLines(stop_after=40)
    state = SimpleNamespace(global_step=0, max_steps=100, is_world_process_zero=True)
    lines.on_train_begin(SimpleNamespace(disable_tqdm=False), state, None)
    lines.since -= 30.0  # half a minute ago
    state.global_step = 10
    lines.on_step_end(None, state, None)
    lines.on_log(None, state, None, {"loss": 2.3456, "learning_rate": 4.5e-5, "tokens_per_second": 5120, "epoch": 0.1})
    lines.on_log(None, state, None, {"eval_sts_spearman_cosine": 0.78125, "eval_runtime": 3.0, "epoch": 0.1})
    lines.on_train_end(None, state, None)
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"step 10/40  loss 2.346  lr 4.5e-05  5,120 tokens/s  0:01:30 left  peak \d+\.\d GiB", first), (
        first
    )
    assert second == "step 10/40  eval_sts_spearman_cosine 0.7812"
    assert 2**26 < peak_memory() < 2**40


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_stops_the_run(
    decoder: str, texts_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, value: float
) -> None:
    made = SimCSE(model=decoder, output=str(tmp_path / "out"), data=texts_file, max_length=16, training=TRAINING)
    build = made.loss
    calls: list[int] = []

    def spoilt(encoder: Any, data: Any) -> Any:
        loss = build(encoder, data)
        forward = loss.forward

        def spoil(*args: Any) -> torch.Tensor:
            found: torch.Tensor = forward(*args)
            calls.append(1)
            if len(calls) < 2:
                return found
            if what == "loss":
                return found * value
            found.register_hook(lambda gradient: gradient * value)
            return found

        monkeypatch.setattr(loss, "forward", spoil)
        return loss

    monkeypatch.setattr(made, "loss", spoilt)
    with pytest.raises(ValueError, match=rf"The {what} of step 2 is (nan|inf), so the run stops here"):
        made.run()
    assert len(calls) == 2
    assert not (tmp_path / "out/modules.json").exists() and not list((tmp_path / "out").glob("checkpoints/*"))
    assert not json.loads((tmp_path / "out/training_run.json").read_text())["finished"]


def test_a_stock_trainer_stops_by_the_callback(decoder: str, tmp_path: Path) -> None:
    encoder = convert(decoder, "llm2vec", device="cpu")
    arguments = SentenceTransformerTrainingArguments(output_dir=str(tmp_path), report_to="none", **TRAINING)
    loss = HardNegativesRankingLoss(encoder, scale=float("inf"))
    pairs = Dataset.from_dict({"query": ["a cat", "a dog"] * 6, "positive": ["it purrs", "it barks"] * 6})
    trainer = SentenceTransformerTrainer(model=encoder, args=arguments, train_dataset=pairs, loss=loss)
    trainer.add_callback(StopAtNonFinite(trainer.loss))
    with pytest.raises(ValueError, match="The loss of step 1 is nan, so the run stops here"):
        trainer.train()


def test_a_scaler_of_float16_deals_with_its_own_gradients() -> None:
    model = torch.nn.Linear(1, 1)
    model.weight.grad = torch.full((1, 1), torch.inf)
    watch, state = StopAtNonFinite(model), SimpleNamespace(global_step=4)
    watch.on_pre_optimizer_step(SimpleNamespace(fp16=True), state, None, model=model)
    with pytest.raises(ValueError, match="The gradient of step 5 is inf"):
        watch.on_pre_optimizer_step(SimpleNamespace(fp16=False), state, None, model=model)
