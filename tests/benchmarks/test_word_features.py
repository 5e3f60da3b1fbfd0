"""The benchmark of words' vectors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import word_features


def test_the_loop_gives_the_same_vectors_and_kept_ones_cost_no_pass(shared_data: Path) -> None:
    row = word_features.measure(word_features.BOX, "3")
    assert row["passes"] == {"features": 1.0, "kept": 0.0}
    assert row["distance"] < 1e-6 and json.dumps(row)


def test_a_page_is_written_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_features, "TARGET", tmp_path / "page.md")
    seconds = {"loop": 12.0, "features": 4.0, "kept": 0.02}
    row = {"model": "box", "sentences": "100", "machine": "two cores", "seconds": seconds, "distance": 3e-9}
    word_features.write_page([{**row, "passes": {"features": 1.0, "kept": 0.0}}])
    line = (tmp_path / "page.md").read_text().splitlines()[-1]
    assert line == "| box | 100 | 12.00 | 4.00 | 0.02 | 3.0 | 200 | 1.00 | 0.00 | 3e-09 |"
