"""The plan of requests: what the literature generated, by the seed alone, and the same where more is asked for."""

from __future__ import annotations

from collections import Counter

import pytest

from st_llm2vec.synthetic import SyntheticSettings
from st_llm2vec.synthetic.groups import FIELDS, GROUPS
from st_llm2vec.synthetic.plan import brainstorm_request, example_request, languages_of
from st_llm2vec.synthetic.settings import LANGUAGES

E5 = SyntheticSettings.of("e5")
TASKS = [f"Given the story of day {number}, find who told it." for number in range(6)]


def test_presets_are_what_was_published() -> None:
    assert (E5.tasks, E5.examples, len(E5.languages), E5.temperature, E5.top_p) == (150_000, 500_000, 93, 1.0, 1.0)
    nv_embed = SyntheticSettings.of("nv-embed")
    assert (nv_embed.tasks, nv_embed.examples) == (60_000, 120_000)
    for settings in (E5, nv_embed):
        assert list(settings.rows_of()) != [] and set(settings.rows_of()) == set(GROUPS)
        assert abs(sum(settings.rows_of().values()) - settings.examples) < 6
        assert set(settings.tasks_of()) == {"short-long", "long-short", "long-long", "short-short"}


@pytest.mark.parametrize("name", GROUPS)
def test_prompts_have_every_key_and_placeholder(name: str) -> None:
    group = GROUPS[name]
    requests = [example_request(group, number, TASKS if group.two_steps else [], E5) for number in range(200)]
    for request in requests:
        assert "$" not in request.prompt and all(f'"{key}"' in request.prompt for key in group.keys)
        assert all(str(value) in request.prompt for value in request.drawn.values())
        assert set(request.schema["properties"]) == set(request.keys)
    for placeholder, values in group.placeholders.items():
        assert {request.drawn[placeholder] for request in requests} == set(values)
    languages = Counter(request.drawn["language"] for request in requests)
    assert languages.most_common(1)[0][0] == "English" and len(languages) > 20
    if name == "bitext":
        assert all(languages_of(one)["query"] != languages_of(one)["positive"] for one in requests)


def test_tasks_are_asked_for_in_all_fields() -> None:
    requests = [brainstorm_request(GROUPS["short-long"], number, E5) for number in range(2 * len(FIELDS))]
    assert [
        Counter(one.drawn["field"] for one in half) for half in (requests[: len(FIELDS)], requests[len(FIELDS) :])
    ] == [Counter(FIELDS)] * 2
    assert len({one.identity("a model", E5) for one in requests}) == len(requests)


def test_a_request_depends_on_seed_task_and_turn_alone() -> None:
    group = GROUPS["short-long"]
    few = {example_request(group, number, TASKS[:3], E5).identity("m", E5) for number in range(6)}
    many = {example_request(group, number, TASKS, E5).identity("m", E5) for number in range(12)}
    assert len(few) == 6 and len(many) == 12 and few < many, "more tasks leave those that were asked for as they are"
    other = SyntheticSettings.of("e5", seed=43)
    assert not many & {example_request(group, number, TASKS, other).identity("m", other) for number in range(12)}
    assert not many & {example_request(group, number, TASKS, E5).identity("another", E5) for number in range(12)}


def test_what_cannot_be_generated_is_refused() -> None:
    for changes, words in (
        ({"groups": ["bitext"]}, "there is English only"),
        ({"groups": ["short-lon"]}, "did you mean 'short-long'"),
        ({"languages": ["Elvish"]}, "There is no language 'Elvish'"),
        ({"examples": 0}, "at least 1 of each is expected"),
        ({"top_p": 0.0}, "shares above 0"),
    ):
        with pytest.raises(ValueError, match=words):
            SyntheticSettings.of("small", **changes)
    with pytest.raises(ValueError, match="did you mean 'nv-embed'"):
        SyntheticSettings.of("nv-embd")
    assert len(LANGUAGES) == 93 and LANGUAGES["no"] == "Norwegian"
