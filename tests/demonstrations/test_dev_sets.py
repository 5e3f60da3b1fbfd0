from __future__ import annotations

import numpy as np
import pytest
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

from st_llm2vec import TextEncoder
from st_llm2vec.demonstrations.dev_sets import Retrieval, ScoredPairs
from st_llm2vec.demonstrations.trial import open_trial, show


def test_pairs_are_scored_as_the_host_does(trial: TextEncoder, pairs) -> None:  # type: ignore[no-untyped-def]
    dev = pairs(8)
    show(trial, ())
    theirs = EmbeddingSimilarityEvaluator(dev.first, dev.second, dev.scores, similarity_fn_names=["cosine"])(trial)
    rows = range(len(dev))
    assert dev.score(dev.measure(trial, rows), rows) == pytest.approx(100 * theirs["spearman_cosine"], abs=1e-6)


def test_rows_can_be_measured_apart(trial: TextEncoder, pairs) -> None:  # type: ignore[no-untyped-def]
    dev = pairs(4)
    show(trial, ())
    whole = dev.measure(trial, range(len(dev)))
    apart = [number for row in range(len(dev)) for number in dev.measure(trial, [row])]
    assert whole == pytest.approx(apart, abs=1e-6)


def test_a_few_rows_that_are_alike_score_nothing() -> None:
    dev = ScoredPairs(["a", "b", "c"], ["a", "b", "d"], [1.0, 1.0, 2.0])
    assert dev.score([0.3, 0.4], [0, 1]) == 0


def test_reciprocal_ranks(decoder: str) -> None:
    documents = ["The bell rang at noon.", "A ship left the harbour.", "Bread is baked in an oven."]
    dev = Retrieval(documents[:2] + ["A ship sailed."], documents, "Find:")
    encoder = open_trial(decoder, "bge-en-icl")
    found = dev.measure(encoder, [0, 2])
    queries = encoder.encode_query([dev.queries[0], dev.queries[2]], prompt="Find:", normalize_embeddings=True)
    cosines = queries @ encoder.encode_document(documents, normalize_embeddings=True).T
    ranks = [list(np.argsort(-row)).index(own) + 1 for row, own in zip(cosines, (0, 2), strict=True)]
    assert found == pytest.approx([1 / rank for rank in ranks])
    assert dev.score([1.0, 0.5], [0, 1]) == 75


def test_nothing_to_rank_is_refused() -> None:
    with pytest.raises(ValueError, match="fewer than two different scores"):
        ScoredPairs(["a", "b"], ["c", "d"], [1.0, 1.0])
    with pytest.raises(ValueError, match="fewer than two different positives"):
        Retrieval(["a", "b"], ["c", "c"], "Find:")
