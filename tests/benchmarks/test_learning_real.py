"""The runner of docs/learning_real.md, on the decoder in the box and what the package carries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import learning_plan, learning_real, tasks
from benchmarks.kept_rows import ROOT
from benchmarks.learning_page import page
from benchmarks.learning_plan import Setup, pace
from st_llm2vec import load


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = Setup(tmp_path / "work", quick=True)
    made.prepare()
    return made


@pytest.mark.slow
def test_a_row_is_trained_once_scored_and_written(setup: Setup) -> None:
    rows = [
        learning_real.measure(setup, tasks.BASELINE, "", ""),
        learning_real.measure(setup, "causal mean", "box", ""),
        learning_real.measure(setup, "+ MNTP + SimCSE", "box", "1"),
    ]
    trained = rows[-1]
    assert [(stage["name"], stage["steps"]) for stage in trained["stages"]] == [("mntp", 2), ("simcse", 2)]
    assert trained["stages"][1]["evaluation"]["before"] is not None and trained["stages"][1]["took"]["seconds"] > 0
    assert str(setup.work) not in json.dumps(rows), "results are committed, and say nothing of the machine's folders"
    first, second = setup.stages(setup.rows["+ MNTP + SimCSE"], "box", 1)
    assert first.output == next(setup.stages(setup.rows["+ MNTP"], "box", 1)).output == second.model
    assert first.output != next(setup.stages(setup.rows["+ MNTP"], "box", 2)).output
    written = Path(second.output, "model.safetensors").stat().st_mtime_ns
    again = learning_real.measure(setup, "+ MNTP + SimCSE", "box", "1")
    assert again["scores"] == trained["scores"]
    assert Path(second.output, "model.safetensors").stat().st_mtime_ns == written
    assert load(second.output).manifest.stages[-1]["settings"]["training"]["seed"] == 1
    shifted = {**trained, "seed": "2", "scores": {task: score + 2 for task, score in trained["scores"].items()}}
    told = page(setup, [*rows, shifted])
    (score,) = trained["scores"].values()
    assert f"| + MNTP + SimCSE | box | {score + 1:.1f} ± 1.4 | 2 |" in told
    assert "| + MNTP + SimCSE | box | 2 | simcse | 2 |" in told and "attention_dropout: 0.3" in told


def test_each_row_of_the_plan_can_be_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_plan._Budget, "steps", lambda self: 40)
    setup = Setup(tmp_path)
    assert set(setup.plan["tasks"]) <= {
        one["name"] for one in learning_plan.yaml.safe_load(tasks.PLAN.read_text())["tasks"]
    }
    for order in setup.plan["orders"]:
        assert {order["above"], order["below"]} <= set(setup.rows) and order["task"] in setup.plan["tasks"]
    for row in setup.rows.values():
        for stage in setup.stages(row, "smollm2", 3):
            arguments = stage.arguments(None, object() if stage.evaluation else None)  # type: ignore[arg-type]
            assert (arguments.max_steps, arguments.seed) == (40, 3) and stage.recipe == row.recipe
            assert not stage.keeps_best or arguments.eval_steps == arguments.save_steps == 0.25
            assert arguments.load_best_model_at_end is stage.keeps_best
    trained = [row.name for row in setup.rows.values() if row.stages]
    found = learning_real.wanted(setup, None, ["smollm2"], ["1", "2"])
    assert [one for one in found if one[0] == trained[0]] == [
        (trained[0], "smollm2", "1"),
        (trained[0], "smollm2", "2"),
    ]
    assert ("minilm", "", "") in found and ("llm2vec", "box", "") in found and ("prompteol", "smollm2", "") in found
    assert learning_real.wanted(setup, ["TF-IDF"], ["smollm2"], ["1"]) == [("TF-IDF", "", "")]


def test_minutes_become_steps_once(tmp_path: Path) -> None:
    log = [{"step": step, "loss": 1.0, "seconds": seconds} for step, seconds in ((1, 9.0), (3, 12.0), (8, 22.0))]
    assert pace([*log, {"step": 8, "seconds": 50.0}]) == 2.0
    built: list[Any] = []

    class Timed:
        def __init__(self, folder: Path, **training: Any) -> None:
            self.folder = folder
            built.append(training["max_steps"])

        def run(self) -> None:
            checkpoint = self.folder / "checkpoints/checkpoint-8"
            checkpoint.mkdir(parents=True)
            (checkpoint / "trainer_state.json").write_text(json.dumps({"log_history": log}))

    for _ in range(2):
        assert learning_plan._Budget(tmp_path / "steps" / "mntp.json", tmp_path / "mntp", 5, Timed).steps() == 150
    assert built == [8] and [file.name for file in tmp_path.iterdir()] == ["steps"]


@pytest.mark.slow
def test_the_quick_run_measures_every_row_and_goes_on(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", learning_real.MODULE, "--quick", "--work", str(tmp_path / "work")]
    subprocess.run([*command, "--rows", "TF-IDF", "+ SimCSE"], cwd=ROOT, env=environment, check=True)
    kept = (tmp_path / "work/rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in kept] == ["TF-IDF", "+ SimCSE"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    lines = (tmp_path / "work/rows.jsonl").read_text().splitlines()
    assert lines[:2] == kept
    assert {json.loads(line)["row"] for line in lines} == {"TF-IDF", *Setup(tmp_path / "work", quick=True).rows}
    assert "+ MNTP + distillation" in (tmp_path / "work/page.md").read_text(encoding="utf-8")
