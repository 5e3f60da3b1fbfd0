from __future__ import annotations

import numpy as np
import pytest

from st_llm2vec.evaluation.sentence_score import GRADES, score_of, sentence_groups


def test_the_sentences_are_whole_and_differ() -> None:
    groups = sentence_groups()
    texts = [text for group in groups for text in group.values()]
    assert all(set(group) == {"text", *GRADES} for group in groups)
    assert len(set(texts)) == len(texts) == 4 * len(groups)


def test_words_in_common_mislead() -> None:
    """In meaning, the paraphrase is nearest; in words, the sentence of another meaning."""
    for group in sentence_groups():
        first, same, far = (set(group[part].lower().strip(".?").split()) for part in ("text", "same", "far"))
        assert len(first & far) > len(first & same)


def vectors(same: float, near: float, far: float) -> np.ndarray:
    """Groups along axes of their own, with these cosines."""
    groups = np.zeros((8, 4, 16))
    for number in range(8):
        for place, cosine in enumerate((1.0, same, near, far)):
            groups[number, place, 2 * number] = cosine
            groups[number, place, 2 * number + 1] = np.sqrt(1 - cosine**2)
    return groups


def test_scores_rank_encoders() -> None:
    assert score_of(vectors(0.9, 0.5, 0.5)) == pytest.approx(100)
    assert score_of(vectors(0.5, 0.9, 0.9)) < score_of(vectors(0.9, 0.5, 0.8)) < 100
    assert score_of(vectors(1, 1, 1)[:, :, :1] * 0 + 1) == 0
