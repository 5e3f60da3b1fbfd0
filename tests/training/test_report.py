"""The report of a run that is evaluated, and that its best checkpoint is kept."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import TrainerCallback

from st_llm2vec import load
from st_llm2vec.publishing.stages import dev_set, stage_settings
from st_llm2vec.training import SimCSE, named_data

from ..conftest import TEXTS, cosine_distance

TRAINING = {
    "max_steps": 6,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "eval_steps": 1,
    "use_cpu": True,
}
PAIRS = [("a cat sleeps", "a kitten naps", 4.5), ("a dog runs", "the sea is calm", 0.2), ("rain fell", "it rained", 5)]


@pytest.fixture
def scores(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "scores.csv"
    path.write_text("\n".join(f"{first},{second},{score}" for first, second, score in PAIRS) + "\n")
    return {"path": str(path), "columns": ["sentence1", "sentence2", "score"]}


class Interrupt(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 4:
            raise KeyboardInterrupt


def evaluated(decoder: str, tmp_path: Path, texts_file: str, scores: dict[str, Any], **training: Any) -> SimCSE:
    """A stage that keeps its best checkpoint."""
    return SimCSE(
        model=decoder,
        output=str(tmp_path / "out"),
        data=texts_file,
        max_length=16,
        evaluation=scores,
        keep_best=True,
        training=TRAINING | training,
    )


def test_a_training_that_raised_no_score_is_said(
    decoder: str, tmp_path: Path, texts_file: str, scores: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    stage = evaluated(decoder, tmp_path, texts_file, scores, learning_rate=0.0, max_steps=2)
    stage.keep_best = False
    stage.run()
    assert "before the first step and is" in caplog.text and "at step 2, whose weights are the result" in caplog.text


@pytest.mark.parametrize("rate", [0.0, 1e-2])
def test_scores_that_are_all_equal_are_said(
    decoder: str, tmp_path: Path, texts_file: str, scores: dict[str, Any], rate: float, caplog: pytest.LogCaptureFixture
) -> None:
    with Path(scores["path"]).open("w", newline="", encoding="utf-8") as file:
        pairs = itertools.combinations(TEXTS[:8], 2)
        csv.writer(file).writerows((*pair, number) for number, pair in enumerate(pairs))
    evaluated(decoder, tmp_path, texts_file, scores, learning_rate=rate).run()
    said = "All 6 evaluations gave eval_sts_spearman_cosine=" in caplog.text
    assert said == (rate == 0) and ("with it, of step 1 of 6, was kept" in caplog.text) == said
    assert dev_set(load(tmp_path / "out").manifest.stages[-1]).chose != said


def test_the_report_of_an_interrupted_run_is_whole_and_its_best_weights_are_kept(
    decoder: str, tmp_path: Path, texts_file: str, scores: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    made = evaluated(decoder, tmp_path, texts_file, scores)
    callbacks = made.callbacks
    made.callbacks = lambda: [*callbacks(), Interrupt()]
    with pytest.raises(KeyboardInterrupt):
        made.run()
    made.callbacks = callbacks
    before = json.loads((tmp_path / "out/checkpoints/checkpoint-3/trainer_state.json").read_text())["log_history"]
    made.run()
    history = json.loads((tmp_path / "out/checkpoints/checkpoint-6/trainer_state.json").read_text())["log_history"]
    steps = [entry["step"] for entry in history if "eval_sts_spearman_cosine" in entry]
    assert steps == sorted(set(steps)), "going on is no evaluation, which patience would count"
    encoder = load(tmp_path / "out")
    record = encoder.manifest.stages[-1]
    found = record["evaluation"]
    assert [step for step, _ in found["curve"]] == list(range(7)) and found["metric"] == "sts_spearman_cosine"
    values = dict(map(tuple, found["curve"]))
    assert found["before"] == values[0] and found["after"] == record["best"] == max(
        values[step] for step in range(1, 7)
    )
    best = load(tmp_path / f"out/checkpoints/checkpoint-{found['step']}")
    best.max_seq_length = encoder.max_seq_length  # a checkpoint has the length of training
    assert cosine_distance(best.encode(TEXTS), encoder.encode(TEXTS)) < 1e-6
    assert record["took"]["seconds"] > max(entry["seconds"] for entry in before) and record["took"]["memory"] > 2**20
    page = (tmp_path / "out/training_report.md").read_text(encoding="utf-8")
    assert f"| simcse | 6 | sts_spearman_cosine | {found['before']:.4g} | {found['after']:.4g} | 0:" in page
    assert page.count("\n| ") > 25 and f"| `{texts_file}` |" in page and "sha256" in page and "| scale | 20.0 |" in page
    assert "tokens a second in the median; 1 process on" in page
    drawn = importlib.util.find_spec("matplotlib") is not None
    assert (tmp_path / "out/training_curve.png").exists() is drawn is ("training_curve.png" in page)
    assert f"best {found['after']:.4g} at step {found['step']}" in capsys.readouterr().err
    told = stage_settings(record)
    assert told["score"].endswith(f"after step {found['step']}") and "GiB of memory" in told["took"]


def test_a_run_without_an_evaluation_reports_its_loss(decoder: str, tmp_path: Path, texts_file: str) -> None:
    training = {**TRAINING, "max_steps": 2, "eval_steps": None}
    SimCSE(model=decoder, output=str(tmp_path / "out"), data=texts_file, max_length=16, training=training).run()
    assert load(tmp_path / "out").manifest.stages[-1]["evaluation"] is None
    page = (tmp_path / "out/training_report.md").read_text(encoding="utf-8")
    assert "| step | loss | learning rate |" in page and "| simcse | 2 |  |  |  | 0:" in page


def test_a_continued_run_reports_the_losses_of_all_its_steps(
    decoder: str, tmp_path: Path, texts_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    training = {**TRAINING, "max_steps": 4, "eval_steps": None}
    training |= {
        "logging_steps": 10,
        "save_steps": 2,
    }  # a run shorter than its logging has its losses at the checkpoints

    def made(name: str) -> SimCSE:
        return SimCSE(model=decoder, output=str(tmp_path / name), data=texts_file, max_length=16, training=training)

    whole = made("whole").run().manifest.stages[-1]
    stopped = made("stopped")
    callbacks = stopped.callbacks
    stopped.callbacks = lambda: [*callbacks(), Interrupt()]
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    continued = made("stopped").run().manifest.stages[-1]
    assert continued["mean_loss"] == pytest.approx(whole["mean_loss"]) != whole["last_loss"]
    curves = [
        re.findall(r"## Curve.*(?=## Data)", (tmp_path / name / "training_report.md").read_text("utf-8"), re.DOTALL)
        for name in ("whole", "stopped")
    ]
    assert curves[0] == curves[1] and "| step | loss | learning rate |" in curves[0][0]
    assert re.search(r"\| 2 \| \S+ \| 0.0075 \|\n\| 4 \| \S+ \| 0.0025 \|", curves[0][0])
    assert '"learning_rate": 0.01' in (tmp_path / "stopped/training_report.md").read_text("utf-8")
    assert capsys.readouterr().err.count(f"mean loss of all steps {whole['mean_loss']:.4g}") == 2


def test_the_sts_benchmark_has_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []

    def read(path: Any, **options: Any) -> Dataset:
        asked.append((path, options["split"]))
        return Dataset.from_dict({"sentence1": ["a"], "sentence2": ["b"], "score": [0.5]})

    monkeypatch.setattr(named_data, "read_dataset", lambda path, split="train", columns=None: read(path, split=split))
    monkeypatch.chdir(tmp_path)
    assert named_data.open_scored_pairs("stsb")["score"] == [0.5]
    Path("stsb").mkdir()
    named_data.open_scored_pairs("stsb")
    assert asked == [("sentence-transformers/stsb", "validation"), ("stsb", "train")]


def test_the_best_needs_something_to_be_measured_by(decoder: str, tmp_path: Path, texts_file: str) -> None:
    with pytest.raises(ValueError, match="keep_best needs an evaluation"):
        SimCSE(model=decoder, output=str(tmp_path / "out"), data=texts_file, keep_best=True)
