"""The page of words, of rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import words


def test_a_page_says_what_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "TARGET", tmp_path / "words.md")
    about = {"model": "box", "task": "CoNLL-2000 POS", "train": "300", "test": "200", "machine": "two cores"}
    stages = [{"steps": steps, "last_loss": 1.234, "took": {"seconds": 90}} for steps in (50, 20)]
    found = {"accuracy": [80.0, 81.0], "f1": []}
    rows = [
        {**about, **found, "attention": "causal"},
        {**about, **found, "attention": "+ MNTP + SimCSE", "stages": stages},
        {**about, **found, "attention": "causal", "train": "2000"},
    ]
    words.write_page(rows, "300", "200")
    lines = (tmp_path / "words.md").read_text().splitlines()
    assert lines.count("| CoNLL-2000 POS | box | causal | 80.5 ± 0.7 |  |") == 1
    assert "| CoNLL-2000 POS | box | + MNTP + SimCSE | 80.5 ± 0.7 |  |" in lines
    assert "| box | + MNTP + SimCSE | 50, 20 | 1.23, 1.23 | 3 |" in lines
