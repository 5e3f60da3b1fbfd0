"""The numbered examples, one after the other, as a reader runs them."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from st_llm2vec import load

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(FOLDER.glob("[0-9]_*.py"))


def run(example: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [example.name, *arguments])
    runpy.run_path(str(example), run_name="__main__")


@pytest.mark.slow
def test_they_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for example in EXAMPLES:
        run(example, monkeypatch, "--steps", "2", "--batch-size", "4")
    for folder in ("mntp", "simcse", "supervised"):
        assert SentenceTransformer(f"runs/{folder}").encode(["a cat"]).shape == (1, 192)
    assert load("runs/supervised").prompts["query"].strip() == "Find the text with this title:"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one.stem)
def test_the_help_shows_the_header(
    example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        run(example, monkeypatch, "--help")
    shown = capsys.readouterr().out
    assert f"python examples/{example.name}" in shown and "--output" in shown
