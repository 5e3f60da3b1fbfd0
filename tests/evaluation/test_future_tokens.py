from __future__ import annotations

import json
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from st_llm2vec import TextEncoder, convert
from st_llm2vec.evaluation import future_tokens as module
from st_llm2vec.evaluation.future_tokens import (
    FIELDS,
    Triple,
    built_in_triples,
    future_tokens,
    read_triples,
    wilson_interval,
)
from st_llm2vec.evaluation.layers import attending


@pytest.fixture(scope="module")
def encoder(decoder: str) -> TextEncoder:
    return convert(decoder, "llm2vec", device="cpu", dtype=torch.float32)


def test_the_built_in_triples_are_whole_and_words_do_not_give_them_away() -> None:
    triples = built_in_triples()
    assert len(triples) >= 40 and len({one.shared_prefix for one in triples}) == len(triples)
    overlaps: dict[str, list[float]] = {"positive": [], "negative": []}
    for one in triples:
        rests = {name: getattr(one, name)[len(one.shared_prefix) :] for name in FIELDS}
        assert len(set(rests.values())) == 3 and all(
            rest.startswith(" ") and rest.endswith(".") for rest in rests.values()
        )
        words = {name: set(rest.lower().strip(".").split()) for name, rest in rests.items()}
        for name, found in overlaps.items():
            found.append(len(words["query"] & words[name]) / len(words["query"] | words[name]))
    assert abs(statistics.mean(overlaps["positive"]) - statistics.mean(overlaps["negative"])) < 0.05


def test_causal_states_of_the_beginning_cannot_tell(encoder: TextEncoder) -> None:
    with attending(encoder[0].model, "causal"):
        found = future_tokens(encoder)
    assert (found.right, found.wrong, found.share) == (0, 0, 0.5)
    assert found.tied == len(built_in_triples())


def test_bidirectional_states_are_ranked_by_their_cosines_over_the_beginning_alone(encoder: TextEncoder) -> None:
    triples = built_in_triples()[:3]
    found, expected = future_tokens(encoder, triples), []
    for triple in triples:
        pooled = []
        for name in FIELDS:
            encoded = encoder.tokenizer(getattr(triple, name), return_offsets_mapping=True)
            inside = [
                place
                for place, (left, right) in enumerate(encoded["offset_mapping"])
                if left < right <= len(triple.shared_prefix)
            ]
            with torch.no_grad():
                states = encoder[0].model(torch.tensor([encoded["input_ids"]])).last_hidden_state[0]
            pooled.append(states[inside].mean(dim=0))
        expected.append([float(torch.cosine_similarity(pooled[0], other, dim=0)) for other in pooled[1:]])
    assert np.allclose([*zip(found.positive, found.negative, strict=True)], expected, atol=1e-5)
    assert found.right == sum(positive > negative for positive, negative in expected)
    assert found.right + found.wrong + found.tied == 3


def test_a_positive_equal_to_the_query_is_ranked_right_and_the_reverse_wrong(encoder: TextEncoder) -> None:
    one = built_in_triples()[0]
    right = Triple(one.query, one.query, one.negative, one.shared_prefix)
    wrong = Triple(one.query, one.negative, one.query, one.shared_prefix)
    found = future_tokens(encoder, [right, right, wrong])
    assert (found.right, found.wrong, found.share) == (2, 1, pytest.approx(2 / 3))


@pytest.mark.parametrize(("right", "count"), [(0, 48), (35, 48), (48, 48), (1, 3)])
def test_wilsons_interval_is_scipys(right: int, count: int) -> None:
    expected = binomtest(right, count).proportion_ci(method="wilson")
    assert wilson_interval(right / count, count) == pytest.approx((expected.low, expected.high), abs=1e-7)


def test_published_triples(shared_data: Path) -> None:
    assert len(read_triples(shared_data / "analysis" / "echo_triples.jsonl")) == 11


def test_bad_triples(encoder: TextEncoder, tmp_path: Path) -> None:
    file = tmp_path / "triples.jsonl"
    file.write_text('{"query": "a b", "positive": "a c", "negative": "a d", "shared_prefix": "a"}\n{"query": "a"}\n')
    with pytest.raises(ValueError, match="Line 2 of .*triples.jsonl is no object with query, positive and negative"):
        read_triples(file)
    file.write_text(json.dumps({"query": "a b", "positive": "b c", "negative": "a d", "shared_prefix": "a"}) + "\n")
    with pytest.raises(ValueError, match="has no triple whose three sentences begin with its shared_prefix"):
        read_triples(file)
    file.write_bytes('{"query": "a café"}\n'.encode("latin-1"))
    with pytest.raises(ValueError, match="Line 1 of .*triples.jsonl is not UTF-8: byte 0xe9"):
        read_triples(file)
    with pytest.raises(ValueError, match="There is no file"):
        read_triples(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="no triples to rank"):
        future_tokens(encoder, [])
    assert module.TRIPLES.is_file()
