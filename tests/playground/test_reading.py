"""Tokens are those that the model reads: the text's, the template's, and the pooled ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from st_llm2vec import TextEncoder
from st_llm2vec.playground.comparison import Question
from st_llm2vec.playground.models import Models
from st_llm2vec.playground.reading import SHOWN_FIRST, SHOWN_LAST, Reading, readings

FIND = "Find the story:"
TEXT = "Once there was a little girl."
QUESTION = Question("a red bird", (TEXT, "It rains."), FIND)
Made = Callable[[str], TextEncoder]


def written(reading: Reading, own: bool) -> str:
    return "".join(token.text for token in reading.tokens if token.own is own)


@pytest.mark.parametrize("recipe", ["llm2vec", "prompteol-icl", "echo", "e5-mistral", "sgpt", "mean"])
def test_the_texts_tokens_are_told_from_the_templates(made: Made, recipe: str) -> None:
    query, passage, _ = readings(made(recipe), QUESTION)
    assert (query.name, passage.name) == ("Query", "Passage 1")
    copies = 2 if recipe == "echo" else 1
    assert written(query, own=True).split() == ["a", "red", "bird"] * copies
    # A token may have characters of both: PromptEOL's quotation mark joins the full stop before it.
    assert written(passage, own=True).replace(TEXT, "").strip(' "') == "" and TEXT in written(passage, own=True)
    if recipe == "prompteol-icl":
        assert "Equestrian" in written(query, own=False) and FIND not in written(query, own=False)
        assert [token.pooled for token in query.tokens][-1] and query.pooled == 1 and not query.tokens[-1].own
    else:
        assert FIND[:-1] in written(query, own=False)
        assert FIND[:-1] not in written(passage, own=False)
    if recipe in ("llm2vec", "echo"):
        pooled = "".join(token.text for token in query.tokens if token.pooled)
        assert pooled.strip() == "a red bird"
        assert all(token.own for token in query.tokens if token.pooled)


def test_ids_are_those_of_the_input(made: Made) -> None:
    encoder = made("echo")
    _, passage, _ = readings(encoder, QUESTION)
    assert [token.id for token in passage.tokens] == encoder.preprocess([TEXT])["input_ids"][0].tolist()


def test_a_saved_encoders_prompt_is_shown(models: Models) -> None:
    with models.opened("my-encoder") as encoder:
        query, passage, _ = readings(encoder, Question("a red bird", QUESTION.passages))
    assert FIND[:-1] in written(query, own=False) and written(query, own=True).strip() == "a red bird"
    assert FIND[:-1] not in written(passage, own=False)


def test_of_an_unknown_recipe_special_tokens_alone_are_not_the_texts(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = made("llm2vec")
    monkeypatch.setattr(encoder, "manifest", None)
    _, passage, _ = readings(encoder, QUESTION)
    assert [token.text for token in passage.tokens if not token.own] == [encoder.tokenizer.bos_token]


def test_a_long_text_is_cut_and_shortened(made: Made) -> None:
    _, long, short = readings(made("llm2vec"), Question("a", (f"{TEXT} " * 120, TEXT)))
    limit = made("llm2vec").max_seq_length
    assert long.count == limit and long.cut > 0 and short.cut == 0
    assert long.hidden == limit - SHOWN_FIRST - SHOWN_LAST and len(long.tokens) == SHOWN_FIRST + SHOWN_LAST
    assert long.pooled == limit - 1 and short.hidden == 0


def test_of_two_readings_the_first_is_shown(made: Made) -> None:
    query, *_ = readings(made("reverse-eol"), QUESTION)
    assert written(query, own=True).strip() == "a red bird" and query.cut == 0
