"""``st-llm2vec train`` on real decoders: its options, and its log lines in a file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from st_llm2vec import load
from st_llm2vec.training import Adapter, Supervised

pytestmark = pytest.mark.real

SUBJECTS = [
    f"The {thing} {verb} by the river." for thing in ("mill", "inn", "oak") for verb in ("stood", "lay", "burned")
]
LINE = r"step {step}/2  loss \d+\.\d+  lr {rate}  [\d,]+ tokens/s  0:\d\d:\d\d left  peak \d+\.\d GiB"


def test_options_and_log_lines(smollm2: str, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(SUBJECTS) + "\n")
    scores = "A mill stood.,The mill stood.,4.5\nRain fell.,The sea was calm.,0.4\nA cat slept.,A dog ran.,2\n"
    (tmp_path / "scores.csv").write_text(scores)
    command = [sys.executable, "-m", "st_llm2vec", "train", "--model", smollm2, "--output", str(tmp_path / "out")]
    command += ["--texts", str(tmp_path / "texts.txt"), "--steps", "2", "--lr", "1e-4", "--batch-size", "4"]
    command += ["--dtype", "float32", "--eval", str(tmp_path / "scores.csv")]
    command += ["--set", "stages.0.block_size=16", "--set", "training.logging_steps=1"]
    with (tmp_path / "log").open("w") as log:
        done = subprocess.run(command, stderr=log, stdout=subprocess.PIPE, text=True, check=False)
    lines = (tmp_path / "log").read_text()
    assert done.returncode == 0, lines
    for step, rate in ((1, "0.0001"), (2, "5e-05")):
        assert len(re.findall(LINE.format(step=step, rate=rate), lines)) == 2, lines
    assert len(re.findall(r"step \d/2  eval_sts\S* \S+", lines)) == 3, lines
    assert [record["steps"] for record in load(tmp_path / "out").manifest.stages] == [2, 2]
    (tmp_path / "texts.txt").write_text("\n".join(SUBJECTS[1:]) + "\n")
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 1 and "texts.txt has changed since" in " ".join(again.stderr.split())


def test_compiled_steps_have_the_losses_of_plain_ones(smollm2: str, tmp_path: Path) -> None:
    rows = [  # rows with a text in common are never in one batch
        {"query": text.lower(), "positive": text, "negative": text.replace("river", "sea")} for text in SUBJECTS
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    losses = []
    for compiled in ({}, {"torch_compile": True, "torch_compile_backend": "aot_eager"}):
        training: dict[str, Any] = {"max_steps": 2, "per_device_train_batch_size": 4, "warmup_steps": 0, **compiled}
        stage = Supervised(
            model=smollm2,
            output=str(tmp_path / f"out-{len(losses)}"),
            data={"path": str(tmp_path / "pairs.jsonl")},
            adapter=Adapter(r=4, dropout=0.0),
            dtype="float32",
            training={"logging_steps": 1, "use_cpu": True, "learning_rate": 1e-3, **training},
        )
        stage.begin()
        encoder = stage.start()
        data = stage.read(encoder)
        stage.attach(encoder)
        trainer = stage.trainer(encoder, data)
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
        torch._dynamo.reset()
    assert losses[0][0] != losses[0][1]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
