"""The plans for a CPU: they build with the settings that docs/learning_real.md was measured with, and train."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.learning_plan import PLAN
from st_llm2vec import convert, load
from st_llm2vec.evaluation.sentence_score import sentence_groups

from ..cli.test_cli import loud_again, succeed  # noqa: F401

FOLDER = Path(__file__).parents[2] / "training_scripts" / "on_a_cpu"
PLANS = sorted(FOLDER.glob("*.yaml"))
MEASURED = yaml.safe_load(PLAN.read_text(encoding="utf-8"))
OTHERWISE = {"data", "teacher", "minutes", "evaluation", "keep_best", "training"}


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_the_settings_are_the_measured_ones(path: Path) -> None:
    plan = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert plan["adapter"] == MEASURED["shared"]["adapter"] and plan["dtype"] == MEASURED["shared"]["dtype"]
    for stage in plan["stages"]:
        measured = MEASURED["stages"][stage["stage"]]
        assert {name: value for name, value in stage.items() if name not in OTHERWISE} == {
            name: value for name, value in measured.items() if name not in OTHERWISE
        }
        whole = {**MEASURED["shared"]["training"], **measured["training"]}
        own = {**plan["training"], **stage["training"]}
        assert all(
            own[name] == whole[name] for name in ("learning_rate", "per_device_train_batch_size", "warmup_steps")
        )


@pytest.mark.slow
@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_the_plan_trains(path: Path, decoder: str, tmp_path: Path) -> None:
    groups = sentence_groups()
    (tmp_path / "texts.txt").write_text("\n".join(group["text"] for group in groups))
    pairs = [json.dumps({"query": group["text"], "positive": group["near"]}) for group in groups]
    (tmp_path / "pairs.jsonl").write_text("\n".join(pairs))
    convert(decoder, "sgpt", measure=False).save(str(tmp_path / "teacher"))
    scored = [f"{group['text']}\t{group['near']}\t{place % 5}" for place, group in enumerate(groups)]
    (tmp_path / "scored.tsv").write_text("\n".join(["sentence1\tsentence2\tscore", *scored]))
    files = {"mntp": "texts.txt", "simcse": "texts.txt", "distillation": "pairs.jsonl", "scored": "scored.tsv"}
    changes = {"model": decoder, "training.per_device_train_batch_size": 4}
    for number, stage in enumerate(yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]):
        changes |= {f"stages.{number}.data": tmp_path / files[stage["stage"]]}
        changes |= {f"stages.{number}.training.max_steps": 2}
        if stage["stage"] == "distillation":
            changes |= {f"stages.{number}.teacher": tmp_path / "teacher"}
    settings = [part for name, value in changes.items() for part in ("--set", f"{name}={value}")]
    succeed("train", "--plan", path, *settings, "--output", tmp_path / "run")
    stages = [stage["name"] for stage in load(tmp_path / "run").manifest.stages]
    assert stages == [stage["stage"] for stage in yaml.safe_load(path.read_text())["stages"]]
