"""What the page shows: pieces of HTML in which all that was typed is escaped."""

from __future__ import annotations

import re

import numpy as np
import pytest

from st_llm2vec.playground.models import OFFERED, OWN, Models
from st_llm2vec.playground.page import PASSAGES, answer, page, shares

SENT = {"query": "a bird", "passages": "A bird sings.\nIt <b>rains</b>.\nThe dog sleeps.", "instruction": ""}


def ranked(piece: str) -> list[int]:
    return [int(one) for one in re.findall(r'class="number">(\d+)<', piece)]


def test_the_page_offers_what_there_is(models: Models) -> None:
    shown = page(models)
    assert [one for one in OFFERED if f'data-recipe="{one}"' not in shown] == []
    assert 'data-recipe="nv-embed"' not in shown and "nv-embed is not here" in shown
    assert 'data-model="my-encoder"' in shown and "<option>stories</option>" in shown
    assert OWN not in shown
    assert all(one in shown for one in PASSAGES)


def test_an_answer_has_all_pieces(models: Models) -> None:
    found = answer(models, {**SENT, "model": "stories", "recipe": "echo"})
    scores = [float(one) for one in re.findall(r'class="score">([\d.]+)<', found["nearest"])]
    assert scores == sorted(scores, reverse=True) and sorted(ranked(found["nearest"])) == [1, 2, 3]
    assert "<b>" not in "".join((found["nearest"], found["read"]))
    assert "It &lt;b&gt;rains&lt;/b&gt;." in found["nearest"]
    assert 'class="own pooled"' in found["read"] and 'class="template"' in found["read"]
    assert found["similar"].count("<td style=") == 6
    assert found["words"]["model"] == "stories" and "words alone" in found["words"]["similar"]


def test_an_answer_says_what_was_left_out(models: Models) -> None:
    sent = {**SENT, "passages": "It rains. " * 400 + "\nThe sun.", "instruction": "Find it:", "model": "stories"}
    found = answer(models, {**sent, "recipe": "prompteol"})
    assert "takes no instruction: the query is read without it" in found["nearest"]
    assert re.search(r"Cut to \d+ tokens: passage 1\.", found["nearest"])
    assert "more do not fit" in found["read"]
    assert "takes no instruction" not in answer(models, {**SENT, "model": "my-encoder"})["nearest"]


def test_a_refusal_is_shown_in_its_place_and_a_mistake_is_raised(models: Models) -> None:
    found = answer(models, {**SENT, "model": "<i>", "recipe": "echo"})
    assert set(found) == {"nearest"} and "There is no model &#39;&lt;i&gt;&#39;" in found["nearest"]
    with pytest.raises(ValueError, match="The query is empty"):
        answer(models, {**SENT, "query": "", "model": "stories", "recipe": "echo"})


def test_bars_run_from_the_lowest_to_the_highest() -> None:
    assert shares(np.array([[np.nan, 0.2], [0.6, 0.4]])).tolist()[1] == pytest.approx([1, 0.5])
    assert shares(np.array([0.5, 0.5])).tolist() == [1, 1]
