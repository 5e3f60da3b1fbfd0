"""What a model reads is shown as it reads it, and repetitions and leaks are counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from st_llm2vec import TextEncoder, convert
from st_llm2vec.data.overlap import near_pairs, repeated
from st_llm2vec.data.preview import describe_leaks, describe_repetitions, describe_rows, lengths, read_text, texts_of

FIND = "Find the story:"
TEXT = "Once upon a time there was a little girl."


@pytest.fixture(scope="module")
def encoder(decoder: str) -> TextEncoder:
    return convert(decoder, "llm2vec", measure=False, max_length=24)


def joined(encoder: TextEncoder, text: str, instruction: str | None, pooled: bool) -> str:
    read = read_text(encoder, text, instruction)
    return "".join(token for token, one in zip(read.tokens, read.pooled, strict=True) if one is pooled).strip()


def test_the_pooled_span_is_the_text(encoder: TextEncoder) -> None:
    assert joined(encoder, TEXT, None, True) == TEXT
    assert joined(encoder, TEXT, FIND, True) == TEXT
    assert joined(encoder, TEXT, FIND, False).endswith(FIND)


@pytest.mark.parametrize(
    ("recipe", "last"), [("e5-mistral", "</s>"), ("prompteol", '"'), ("echo", "."), ("nv-embed", "</s>")]
)
def test_other_recipes_mark_what_they_pool(decoder: str, recipe: str, last: str) -> None:
    made: dict[str, Any] = {"latent_attention": {"num_latents": 4, "num_heads": 2, "head_dimension": 8}}
    encoder = convert(decoder, recipe, measure=False, **(made if recipe == "nv-embed" else {}))
    read = read_text(encoder, TEXT)
    places = [at for at, one in enumerate(read.pooled) if one]
    assert read.pooled[-1] and (len(places) == 1) == (recipe in ("e5-mistral", "prompteol"))
    end = encoder.tokenizer.eos_token if last == "</s>" else last
    assert read.tokens[-1].endswith(end)
    assert TEXT in "".join(read.tokens)


def test_what_is_pooled_makes_the_vector(encoder: TextEncoder) -> None:
    read = read_text(encoder, TEXT, FIND)
    states = encoder.encode([TEXT], prompt=FIND, output_value="token_embeddings", convert_to_numpy=False)[0]
    vector = states.float()[np.asarray(read.pooled)[: len(states)]].mean(dim=0).numpy()
    wanted = encoder.encode([TEXT], prompt=FIND)[0]
    assert float(vector @ wanted / np.linalg.norm(vector) / np.linalg.norm(wanted)) > 1 - 1e-6


def test_lengths_are_those_of_texts_that_are_not_cut(encoder: TextEncoder) -> None:
    texts = [TEXT, "Hello", TEXT * 6]
    found = lengths(encoder, texts, FIND)
    assert found[0] == len(read_text(encoder, TEXT, FIND).tokens) and found[2] > 24
    cut = read_text(encoder, TEXT * 6, FIND)
    assert len(cut.tokens) == 24 and cut.cut == found[2] - 24
    rows = Dataset.from_dict({"query": texts, "positive": ["Hello"] * 3})
    found_rows = describe_rows(encoder, rows, {"query": FIND}, shown=1)
    assert found_rows["columns"]["query"]["cut"] == pytest.approx(1 / 3)
    assert found_rows["columns"]["query"]["longest"] == found[2] and found_rows["columns"]["positive"]["cut"] == 0
    assert [one.text for one in found_rows["rows"][0].values()] == [TEXT, "Hello"]


def test_repetitions_are_counted_to_the_letter_and_nearly() -> None:
    queries = ["Rain fell.", "rain  fell", "The old mill stood by the river.", "An old mill stood by the river.", "Sun"]
    rows = Dataset.from_dict({"query": queries, "positive": ["a", "A", "b", "c", "d"]})
    found = describe_repetitions(rows, 0.7)
    assert (found["queries"], found["pairs"], found["near"]) == (1, 1, 1)
    assert found["samples"][0][:2] == tuple(queries[2:4])


def test_leaks_are_counted_to_the_letter_and_nearly() -> None:
    rows = Dataset.from_dict({"query": ["The cat sat on the mat", "x"], "positive": ["A long walk in the rain", "y"]})
    held_out = ["the cat sat on the mat!", "A long walk in the rains", "Nothing of the kind", "Nothing of the kind"]
    found = describe_leaks(rows, held_out, 0.8)
    assert (found["texts"], found["exact"], found["near"]) == (3, 1, 1)
    assert found["samples"][1][:2] == ("A long walk in the rains", "A long walk in the rain")


def test_nothing_is_near_nothing() -> None:
    assert (
        list(near_pairs([], ["the old mill"])) == list(near_pairs(["the old mill"], [])) == list(near_pairs([])) == []
    )


def test_near_pairs_are_those_of_the_jaccard_index() -> None:
    texts = [
        "the mill stood by the river",
        "the mill stood by a river",
        "rain",
        "rai",
        "",
        "the mill stood by the rivers",
    ]

    def grams(text: str) -> set[str]:
        text = text.ljust(5)
        return {text[at : at + 5] for at in range(len(text) - 4)}

    wanted = {
        (one, other): len(grams(texts[one]) & grams(texts[other])) / len(grams(texts[one]) | grams(texts[other]))
        for one in range(len(texts))
        for other in range(one + 1, len(texts))
    }
    found = {(one, other): share for one, other, share in near_pairs(texts, threshold=0.3)}
    assert found == pytest.approx({pair: share for pair, share in wanted.items() if share >= 0.3})
    assert repeated(["A b.", "a  B", "c"]) == [[0, 1]]


def test_texts_of_an_evaluation_set_are_not_its_labels() -> None:
    rows = {"text": ["a", " "], "label": ["x", "y"], "negative_1": [["b", "c"], None]}
    assert texts_of(Dataset.from_dict(rows)) == ["a", "b", "c"]
    assert texts_of(Dataset.from_dict({"frage": ["a"], "score": [1.0]})) == ["a"]
