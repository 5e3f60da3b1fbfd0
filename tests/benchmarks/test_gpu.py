"""What only a GPU can show, at a tiny size on a CPU: every branch of the command and its page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import benchmarks.gpu.__main__ as gpu
from benchmarks.gpu import families, page
from benchmarks.side_by_side import flops


@pytest.mark.slow
def test_every_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flops, "matmul_rate", lambda dtype, device: 1e14)
    gpu.main(["--tiny", "--minutes", "60", "--output", str(tmp_path), "--data", str(tmp_path / "none")])
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert list(found["sections"]) == list(gpu.SECTIONS)
    assert [one["problems"] for one in found["sections"].values()] == [[]] * len(gpu.SECTIONS)
    assert "skipped" in found["sections"]["learning"]
    text = (tmp_path / "gpu.md").read_text()
    assert all(f"## {title}" in text for title in page.TITLES.values())
    assert str(tmp_path) not in text


def test_what_fails_is_on_the_page_and_the_rest_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(given: object) -> dict:
        raise RuntimeError("no kernel")

    row = {"family": "llama", "recipe": "llm2vec", "dtype": "float32"}
    row |= dict.fromkeys(("rows against padded", "padded against exact", "rows against exact"), 1e-12)
    monkeypatch.setitem(gpu.SECTIONS, "training", fail)
    monkeypatch.setitem(gpu.SECTIONS, "families", lambda given: {"rows": [row], "problems": families.problems(row)})
    with pytest.raises(SystemExit, match="training: RuntimeError: no kernel"):
        gpu.main(["--tiny", "--sections", "training", "families", "--output", str(tmp_path)])
    text = (tmp_path / "gpu.md").read_text()
    assert "**training: RuntimeError: no kernel**" in text
    assert "| llama | `llm2vec` | float32 | 1e-12 |" in text


def test_distant_vectors_get_a_sentence() -> None:
    row = {"family": "llama", "recipe": "llm2vec", "dtype": "float32", "padded against exact": 1e-12}
    assert families.problems({**row, "rows against padded": 1e-7, "rows against exact": 1e-7}) == []
    assert "llama" in families.problems({**row, "rows against padded": 1e-3, "rows against exact": 1e-3})[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_is_asked_for() -> None:
    with pytest.raises(SystemExit, match="sees no GPU"):
        gpu.main([])
