"""What is left out, and why; and what is not."""

from __future__ import annotations

import pytest

from st_llm2vec.data.overlap import near_pairs, repeated
from st_llm2vec.synthetic import filters
from st_llm2vec.synthetic.filters import COPIED, ECHO, LANGUAGE, LONG, SAME, SHORT, why_not
from st_llm2vec.synthetic.groups import GROUPS
from st_llm2vec.synthetic.plan import example_request, languages_of
from st_llm2vec.synthetic.settings import SyntheticSettings
from st_llm2vec.synthetic.unique import NEAR, REPEATED, Unique

from .writers import drawn_from, sentence

TASK = "Given the worry of a gardener, find the page of a handbook that helps."
REQUEST = example_request(GROUPS["short-long"], 0, [TASK], SyntheticSettings())
GOOD = {
    "query": "holes in cabbage leaves",
    "positive": "Caterpillars of the white butterfly eat through the greens in summer. Nets keep them away.",
    "negative": "Cabbage is sown in spring and wants rich soil, much water and a place in the sun.",
}
GERMAN = "Die Raupen des Weißlings fressen sich im Sommer durch das Gemüse, und Netze halten sie davon ab."


def reason(language: str = "English", **changes: str) -> str | None:
    return why_not(GROUPS["short-long"], {**GOOD, **changes}, REQUEST.prompt, dict.fromkeys(GOOD, language))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"query": "a"}, SHORT),
        ({"positive": "Nets."}, SHORT),
        ({"query": "why " * 200}, LONG),
        ({"negative": GOOD["positive"].upper()}, SAME),
        ({"negative": GOOD["positive"][:-1] + " soon."}, COPIED),
        ({"query": GOOD["positive"][:66]}, COPIED),
        ({"query": "holes in cabbage"}, None),
        ({"query": TASK}, ECHO),
        ({"query": "what a person would type for this task"}, ECHO),
        ({"query": "Cabbage"}, None),
    ],
)
def test_reasons(changes: dict[str, str], why: str | None) -> None:
    assert reason(**changes) == why


def test_languages() -> None:
    pytest.importorskip("py3langid")
    assert reason(positive=GERMAN) == LANGUAGE and reason("German") == LANGUAGE
    assert reason(query="Löcher im Kohl") is None, "too short to tell"
    german = {
        "query": "Löcher im Kohl",
        "positive": GERMAN,
        "negative": GERMAN.replace("Raupen", "Schnecken") + " Oder Draht.",
    }
    assert why_not(GROUPS["short-long"], german, REQUEST.prompt, dict.fromkeys(german, "German")) in (None, COPIED)
    assert not filters.is_other_language(GERMAN, "Yiddish"), "no library tells it"


def test_each_side_of_a_translation_has_its_language() -> None:
    settings = SyntheticSettings.of("small", groups=["bitext"], languages=["en", "de"])
    for number in range(5):
        asked = languages_of(example_request(GROUPS["bitext"], number, [], settings))
        assert {asked["query"], asked["positive"]} == {"English", "German"} and asked["positive"] == asked["negative"]


def test_without_the_library_no_language_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "_identifier", lambda: None)
    assert reason(positive=GERMAN) is None and not filters.can_tell_languages()


def test_what_is_unique_is_what_the_preview_calls_so() -> None:
    draws = drawn_from("texts")
    texts = [sentence(draws) for _ in range(60)]
    texts += [text.replace("the ", "The ", 1) + "!" for text in texts[:5]] + [
        text.replace("day", "the day") for text in texts[5:15]
    ]
    unique, why = Unique(0.8), []
    for text in texts:
        why.append(unique.why_not(text))
        if why[-1] is None:
            unique.add(text)
    assert why[:60] == [None] * 60 and why[60:65] == [REPEATED] * 5 and why[65:] == [NEAR] * 10
    kept = [text for text, one in zip(texts, why, strict=True) if one is None]
    assert repeated(kept) == [] and list(near_pairs(kept)) == []
    letters = Unique(1.0)
    letters.add(texts[5])
    assert letters.why_not(texts[65]) is None and letters.why_not(texts[5].upper()) == REPEATED
