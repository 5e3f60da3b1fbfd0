"""A run's curve, as text and as a picture."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest

from st_llm2vec.training import curve

LOG = [
    {"step": 0, "score": 0.1},
    {"step": 2, "loss": 3.0},
    {"step": 2, "score": 0.3},
    {"step": 4, "loss": 2.0},
    {"step": 4, "score": math.nan},
    {"step": 2, "score": 0.2},
]


def test_points_are_the_last_finite_values_of_each_step() -> None:
    assert curve.points(LOG, "score") == {0: 0.1, 2: 0.2}
    assert curve.points(LOG, "loss") == {2: 3.0, 4: 2.0}
    assert curve.points(LOG, "lost") == {}


@pytest.mark.parametrize(
    ("values", "encoding", "expected"),
    [
        ([1, 2, 3], "utf-8", "▁▅█"),
        ([3, 2, 1], "ascii", "@+_"),
        ([3, 1], None, "@_"),
        ([3, 1], "no such encoding", "@_"),
        ([2, 2], "utf-8", "▁▁"),
        ([], "utf-8", ""),
    ],
)
def test_a_line_of_blocks(values: list[float], encoding: str | None, expected: str) -> None:
    assert curve.sparkline(values, encoding) == expected


def test_a_picture_is_drawn_of_what_there_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert curve.draw(tmp_path / "a.png", LOG, "score", "the score")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert not curve.draw(tmp_path / "b.png", LOG[:0], "score", "the score")
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_without_matplotlib_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not curve.draw(tmp_path / "a.png", LOG, "score", "the score")
    assert 'a.png is not drawn, for which matplotlib is needed: pip install "st-llm2vec[report]".' in caplog.text
    assert not list(tmp_path.iterdir())
