"""The commands that measure, from end to end on a tiny model, in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import encoding, training_steps
from benchmarks.side_by_side import contenders, encoders, flops
from benchmarks.side_by_side.process import InProcess


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (contenders, training_steps):
        monkeypatch.setattr(module, "Process", lambda *_: InProcess())
    monkeypatch.setattr(flops, "matmul_rate", lambda dtype, device: 1e14)


def run(work: Path, output: Path, *options: str) -> dict[str, Any]:
    folders = ["--work", work, "--data", work / "none", "--llm2vec", work / "none", "--output", output]
    encoding.main([*options, "--shapes", "tiny", "--threads", "1", *map(str, folders)])
    name = "encoding_growing" if "--growing" in options else "encoding"
    found: dict[str, Any] = json.loads((output / f"{name}.json").read_text())
    return {**found, "page": (output / f"{name}.md").read_text()}


@pytest.mark.slow
def test_encoders_are_measured_and_compared(work: Path, tmp_path: Path) -> None:
    names = ["plain-float32", "ours-float32", "ours-bfloat16", "llm2vec-float32"]
    found = run(work, tmp_path, "--datasets", "short", "demonstrations", "--rounds", "2", "--contenders", *names)
    rows = {(row["dataset"], row["contender"]): row for row in found["results"]}
    assert set(rows) == {(dataset, name) for dataset in ("short", "demonstrations") for name in names[:3]}
    for (_, name), row in rows.items():
        assert len(row["seconds"]) == 2
        assert row["cosine_distance"] < (1e-3 if name == "ours-bfloat16" else 1e-6)
        assert name == "plain-float32" or row["ratios"]["plain-float32"] > 0
        assert 0 < row["matmul_share"] < 1
    assert [one["contender"] for one in found["missing"]] == ["llm2vec-float32"]
    assert "python -m benchmarks.llm2vec_environment" in found["page"]
    assert found["texts"]["short"]["count"] == 400
    assert found["texts"]["demonstrations"]["mean"] > 200
    assert str(work) not in found["page"] + json.dumps(found)


def test_wrong_vectors_fail_the_command(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = encoders.ThisLibrary.encode
    monkeypatch.setattr(encoders.ThisLibrary, "encode", lambda self, texts: encode(self, texts) + np.float32(0.01))
    options = ["--datasets", "short", "--rounds", "1", "--contenders", "plain-float32", "ours-float32"]
    with pytest.raises(SystemExit, match="ours-float32 on short texts"):
        run(work, tmp_path, *options)
    assert "ours-float32 on short texts" in (tmp_path / "encoding.md").read_text()


@pytest.mark.slow
def test_more_and_more_texts(work: Path, tmp_path: Path) -> None:
    found = run(work, tmp_path, "--growing", "--sizes", "50", "100", "--rounds", "2")
    assert [(row["contender"], row["texts"]) for row in found["results"]] == [
        ("plain-bfloat16", 50),
        ("plain-bfloat16", 100),
        ("ours-bfloat16", 50),
        ("ours-bfloat16", 100),
    ]
    assert all(len(row["seconds"]) == 2 and row["ratio"] > 0 for row in found["results"])
    assert found["results"][1]["vectors_mib"] == 2 * found["results"][0]["vectors_mib"]


@pytest.mark.slow
def test_training_steps_agree(work: Path, tmp_path: Path) -> None:
    folders = ["--work", work, "--data", work / "none", "--output", tmp_path]
    options = ["--shape", "tiny", "--batch", "6", "--rounds", "2", "--threads", "1", "--dtypes", "float32"]
    training_steps.main([*options, *map(str, folders)])
    found = json.loads((tmp_path / "training_steps.json").read_text())
    assert [row["task"] for row in found["results"]] == ["simcse", "supervised", "scored", "mntp"]
    for row in found["results"]:
        plain, ours = row["contenders"]["plain"], row["contenders"]["ours"]
        assert plain["tokens"] == pytest.approx(ours["tokens"], rel=0.5)  # both count the texts' own, SimCSE's twice
        assert row["loss_difference"] < 1e-5
        assert plain["gradient_norm"] > 0
        assert ours["gradient_norm"] == pytest.approx(plain["gradient_norm"], rel=1e-4)
    assert str(tmp_path) not in (tmp_path / "training_steps.md").read_text()


def test_other_losses_get_a_sentence() -> None:
    row: dict[str, Any] = {"task": "mntp", "dtype": "float32", "speed_ratio": 2.0, "gradient_distance": 1e-9}
    row |= {"loss_difference": 2e-5, "contenders": {"plain": {"loss": 9.0}}}
    assert training_steps.problems([row, {"task": "simcse", "dtype": "float32", "failed": {"ours": "no"}}]) == []
    assert "mntp in float32" in training_steps.problems([{**row, "gradient_distance": 1e-2}])[0]
    assert "mntp in float32" in training_steps.problems([{**row, "contenders": {"plain": {"loss": 0.5}}}])[0]
