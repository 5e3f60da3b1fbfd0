from __future__ import annotations

from collections.abc import Callable

import pytest

from st_llm2vec import TextEncoder
from st_llm2vec.demonstrations.dev_sets import ScoredPairs
from st_llm2vec.demonstrations.trial import open_trial
from st_llm2vec.evaluation.sentence_score import GRADES, sentence_groups


@pytest.fixture(scope="session")
def trial(decoder: str) -> TextEncoder:
    """The decoder in the box, ready to be shown demonstrations."""
    return open_trial(decoder, "prompteol", device="cpu")


@pytest.fixture
def pairs() -> Callable[[int], ScoredPairs]:
    """Pairs of the built-in sentences with their grades."""

    def first(groups: int) -> ScoredPairs:
        rows = [
            (group["text"], group[part], grade)
            for group in sentence_groups()[:groups]
            for part, grade in GRADES.items()
        ]
        first, second, grades = zip(*rows, strict=True)
        return ScoredPairs(list(first), list(second), [float(grade) for grade in grades])

    return first
