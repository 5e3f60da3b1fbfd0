from __future__ import annotations

from collections.abc import Callable

import pytest

from st_llm2vec.inspection import inspect_model
from st_llm2vec.inspection.advice import recommend_stages

from .test_readiness import readiness


@pytest.mark.parametrize(
    ("causal", "bidirectional", "stages", "reason"),
    [
        (
            59,
            27,
            ("mntp", "simcse"),
            "breaks it: the mean of its states scores 59 of 100 under causal attention and 27",
        ),
        (64, 54, ("simcse",), "copes with bidirectional attention as it is"),
        (30, 25, ("mntp", "simcse"), "tells little either way"),
    ],
)
def test_stages_are_by_what_was_measured(
    causal: float, bidirectional: float, stages: tuple[str, ...], reason: str
) -> None:
    found, why = recommend_stages("llm2vec", readiness(causal, bidirectional))
    assert found == stages and reason in why


def test_nothing_is_said_of_what_was_not_measured(decoder: str) -> None:
    found = inspect_model(decoder, measure=False)
    assert found.readiness is None and found.stages == ("mntp", "simcse")
    assert "was not measured; --measure does that" in found.stages_advice
    assert found.to_dict()["readiness"] is None


def test_causal_recipes_need_no_mntp(tiny: Callable[..., str]) -> None:
    found = inspect_model(tiny("mamba"), measure=False)
    assert found.readiness is None and found.stages == ("simcse",)
    assert "does without" in found.stages_advice
