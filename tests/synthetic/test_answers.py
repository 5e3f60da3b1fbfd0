"""Answers as models write them: whole, fenced, broken, listed, refused, cut off."""

from __future__ import annotations

import pytest

from st_llm2vec.synthetic.answers import CUT, REFUSED, UNREADABLE, Unreadable, read_example, read_tasks
from st_llm2vec.synthetic.journal import Answer

FIRST, SECOND = "Given a dish, find its recipe.", "Given a song, find who sang it."
PAIR = {"user_query": "how to bake", "positive_document": "Heat it, then wait."}


@pytest.mark.parametrize(
    "text",
    [
        f'["{FIRST}", "{SECOND}"]',
        f'{{"tasks": ["{FIRST}", "{SECOND}"]}}',
        f'```json\n{{"Tasks": ["{FIRST}", "{SECOND}",]}}\n```',
        f"Here are two:\n['{FIRST}', '{SECOND}'",
        f'{{"tasks": [{{"type": "a", "description": "{FIRST}"}}, {{"description": "{SECOND}"}}]}}',
        f"1. {FIRST}\n2. {SECOND}",
        f"- {FIRST}\n* {SECOND}",
        f'<think>Two tasks: ["a", "b"].</think>["{FIRST}", "{SECOND}"]',
    ],
)
def test_tasks_are_found(text: str) -> None:
    assert read_tasks(Answer(text)) == [FIRST, SECOND]


def test_the_task_at_which_an_answer_was_cut_off_is_left_out() -> None:
    assert read_tasks(Answer(f'["{FIRST}", "Given a long sto', finish="length")) == [FIRST]


@pytest.mark.parametrize(
    "text",
    [
        '{"user_query": "how to bake", "positive_document": "Heat it, then wait."}',
        'Sure!\n```\n{"User Query": "how to bake", "Positive-Document": "Heat it, then wait."}\n```\nAnything else?',
        "{'user_query': 'how to bake', 'positive_document': 'Heat it, then wait.'",
        '{user_query: "how to bake", positive_document: "Heat it, then wait."}',
        '[{"user_query": "how to bake", "positive_document": "Heat it, then wait.", "more": 1}]',
        '{"user_query": "how to bake"}\n\n{"positive_document": "Heat it, then wait."}',
        '**user_query**: "how to bake"\n**positive_document**: "Heat it, then wait."',
    ],
)
def test_an_example_is_found(text: str) -> None:
    assert read_example(Answer(text), list(PAIR)) == PAIR


def test_an_object_that_came_to_its_end_before_the_answer_was_cut_off_is_whole() -> None:
    text = '```json\n{"user_query": "how to bake", "positive_document": "Heat it, then wait."}\n```\nThis exam'
    assert read_example(Answer(text, finish="length"), list(PAIR)) == PAIR


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer("I'm sorry, but I can't help with that."), REFUSED),
        (Answer("I cannot write this."), REFUSED),
        (Answer("", refused=True), REFUSED),
        (Answer("", finish="content_filter"), REFUSED),
        (Answer('{"user_query": "how to bake", "positive_document": "Heat it, th', finish="length"), CUT),
        (Answer('{"user_query": "how to bake", "positive_doc', finish="length"), CUT),
        (Answer('{"user_query": "how to bake"}'), UNREADABLE),
        (Answer('{"user_query": "how to bake", "positive_document": " "}'), UNREADABLE),
        (Answer('{"user_query": "how to bake", "positive_document": {"text": "a"}}'), UNREADABLE),
        (Answer("The cat sat."), UNREADABLE),
        (Answer(""), UNREADABLE),
    ],
)
def test_what_gives_nothing_says_why(answer: Answer, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read_example(answer, list(PAIR))
