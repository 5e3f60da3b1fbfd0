"""Rankings are those of the library's own calls, and words alone know no order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from st_llm2vec import TextEncoder
from st_llm2vec.playground.comparison import LONGEST, MOST_PASSAGES, Question, by_encoder, by_words_alone
from st_llm2vec.playground.models import Models

FIND = "Find the story:"
QUESTION = Question("a little bird", ("The bird sang.", "a dog bit a man", "a man bit a dog"), FIND)
Made = Callable[[str], TextEncoder]


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return one @ other.T / np.linalg.norm(one, axis=1)[:, None] / np.linalg.norm(other, axis=1)


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        ({"query": "  ", "passages": "a\nb"}, "The query is empty"),
        ({"query": "a", "passages": "\n \n"}, "There are no passages. Type two at least"),
        ({"query": "a", "passages": "one"}, "There is one passage. Type two at least"),
        ({"query": "a", "passages": "b\n" * (MOST_PASSAGES + 1)}, f"the page has room for {MOST_PASSAGES}"),
        ({"query": "a" * (LONGEST + 1), "passages": "a\nb"}, "A text has 20,001 characters"),
        ({"query": ["a"], "passages": "a\nb"}, "The field query holds no text"),
        ({"query": "a", "passages": "a\nb\ud800"}, "The field passages holds .* half of a surrogate pair"),
    ],
)
def test_what_cannot_be_compared_is_said(sent: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Question.read(sent)


def test_the_ranking_is_the_librarys(made: Made) -> None:
    encoder = made("llm2vec")
    found = by_encoder(encoder, QUESTION)
    passages = encoder.encode_document(list(QUESTION.passages))
    wanted = cosines(encoder.encode_query([QUESTION.query], prompt=FIND), passages)[0]
    assert np.allclose(found.to_query, wanted, atol=1e-5)
    assert found.order == sorted(range(3), key=lambda at: -wanted[at])
    assert np.allclose(found.passages, cosines(passages, passages), atol=1e-5)
    bare = by_encoder(encoder, Question(QUESTION.query, QUESTION.passages))
    assert not np.allclose(bare.to_query, found.to_query, atol=1e-4)


def test_a_recipe_without_instructions_reads_the_query_without(made: Made) -> None:
    bare = Question(QUESTION.query, QUESTION.passages)
    assert np.allclose(
        by_encoder(made("prompteol"), QUESTION).to_query, by_encoder(made("prompteol"), bare).to_query, atol=1e-6
    )


def test_a_saved_encoder_has_its_own_prompt(models: Models, made: Made) -> None:
    bare = Question(QUESTION.query, QUESTION.passages)
    with models.opened("my-encoder") as encoder:
        found = by_encoder(encoder, bare)
    assert np.allclose(found.to_query, by_encoder(made("llm2vec"), QUESTION).to_query, atol=1e-5)


def test_words_alone_are_the_mean_of_input_embeddings(made: Made) -> None:
    encoder = made("llm2vec")
    found = by_words_alone(encoder, QUESTION)
    table = encoder.transformer.model.get_input_embeddings().weight.detach().float().numpy()
    texts = (QUESTION.query, *QUESTION.passages)
    ids = [encoder.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    means = np.stack([table[one].mean(axis=0) for one in ids])
    assert np.allclose(found.to_query, cosines(means[:1], means[1:])[0], atol=1e-5)
    assert np.allclose(found.passages, cosines(means[1:], means[1:]), atol=1e-5)
    other = by_words_alone(made("prompteol"), Question(QUESTION.query, QUESTION.passages))
    assert np.allclose(found.passages, other.passages, atol=1e-6)


def test_words_alone_know_no_order_and_layers_do(made: Made) -> None:
    question = Question("x", ("man dog bit", "man bit dog"))
    table = made("llm2vec").tokenizer(list(question.passages), add_special_tokens=False)["input_ids"]
    assert sorted(table[0]) == sorted(table[1])
    assert by_words_alone(made("llm2vec"), question).passages[0, 1] == pytest.approx(1, abs=1e-6)
    assert by_encoder(made("llm2vec"), question).passages[0, 1] < 1 - 1e-4
