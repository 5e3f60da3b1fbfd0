from __future__ import annotations

import importlib.util

import pytest

from st_llm2vec.reporting.svg import MARKERS, SERIES, colour, marker, require_plots


def test_every_model_has_a_colour_and_a_marker_of_its_own() -> None:
    assert len({(colour(place), marker(place)) for place in range(8 * len(SERIES))}) == len(SERIES) * len(MARKERS)


def test_matplotlib_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"Matplotlib is not installed: pip install 'st-llm2vec\[report\]'"):
        require_plots()
