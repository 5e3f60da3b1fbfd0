"""From what a chat model wrote to tasks and examples, whatever it wrote around them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from st_llm2vec.synthetic.journal import Answer
from st_llm2vec.synthetic.plan import TASKS

REFUSED, CUT, UNREADABLE = "refused", "cut off", "unreadable"
CUT_BY = ("length", "max_tokens", "MAX_TOKENS")
FILTERED_BY = ("content_filter", "SAFETY", "refusal")
REFUSALS = re.compile(
    r"^\W*(i['’]?m (very |so )?sorry|sorry,|i (can(no|['’])t|am (not able|unable)|won['’]t|must decline)|as an ai\b|unfortunately, i)",
    re.IGNORECASE,
)
LISTED = re.compile(r"^\s*(?:\d+[.):]|[-*•])\s+(.+?)\s*$", re.MULTILINE)
THINKING = re.compile(r"<think>.*?(</think>|$)", re.DOTALL)
SHORTEST_TASK, LONGEST_TASK = 15, 600


class Unreadable(Exception):
    """An answer that gives nothing; the message is one of the reasons above."""


def read_tasks(answer: Answer) -> list[str]:
    """The tasks in an answer: a list in JSON, whole or broken, or the lines of a list in words.

    Args:
        answer: The answer.

    Returns:
        The tasks, each on one line; without the last one where the answer was cut off.

    Raises:
        Unreadable: If there is none.

    Example:
        >>> read_tasks(Answer('Sure! ["Given a dish, find the recipe.", "Given a song, find the sing'))
        ['Given a dish, find the recipe.', 'Given a song, find the sing']
        >>> read_tasks(Answer("1. Given a dish, find the recipe.\\n2) Given a song, find its singer."))
        ['Given a dish, find the recipe.', 'Given a song, find its singer.']
    """
    text = _text(answer)
    found = _json(text)
    if isinstance(found, dict):
        found = next((value for key, value in found.items() if _plain(key) == TASKS), list(found.values()))
    tasks = [_words(one) for one in found] if isinstance(found, list) else []
    tasks = [task for task in tasks if len(task) >= SHORTEST_TASK] or LISTED.findall(text)
    tasks = [" ".join(task.strip("\"'` ,").split()) for task in tasks]
    if answer.finish in CUT_BY:
        tasks = tasks[:-1]
    tasks = [task for task in tasks if SHORTEST_TASK <= len(task) <= LONGEST_TASK]
    if not tasks:
        raise Unreadable(_reason(answer, text))
    return tasks


def read_example(answer: Answer, keys: Sequence[str]) -> dict[str, str]:
    """The texts in an answer by their keys: an object in JSON, whole or broken.

    Args:
        answer: The answer.
        keys: The keys; their case and what joins their words do not matter.

    Returns:
        A text for each key.

    Raises:
        Unreadable: If one is missing; or the answer was cut off, and with it a text.

    Example:
        >>> read_example(Answer("```json\\n{'S1': 'A cat sat.', 's2': \\"A cat was sitting.\\", }"), ["S1", "S2"])
        {'S1': 'A cat sat.', 'S2': 'A cat was sitting.'}
    """
    text = _text(answer)
    for one in [_whole(text)] if answer.finish in CUT_BY else _objects(text, keys):
        given = {_plain(key): value for key, value in one.items()}
        texts = [given.get(_plain(key)) for key in keys]
        if all(isinstance(value, str | int | float) and str(value).strip() for value in texts):
            return {key: str(value).strip() for key, value in zip(keys, texts, strict=True)}
    raise Unreadable(_reason(answer, text))


def _whole(text: str) -> dict[str, Any]:
    """The first object of a text that comes to its own end, whatever follows it; empty if there is none."""
    try:
        found = json.JSONDecoder().raw_decode(text, text.index("{"))[0]
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _objects(text: str, keys: Sequence[str]) -> list[dict[str, Any]]:
    """The objects of a text, all of them in one, and its lines ``key: text``."""
    found = _json(text)
    objects = [one for one in (found if isinstance(found, list) else [found]) if isinstance(one, dict)]
    merged = {key: value for one in reversed(objects) for key, value in one.items()}
    names = "|".join(re.escape(key) for key in keys)
    lines = re.findall(rf"^\W*({names})\W*[:=]\s*(.+)$", text, re.MULTILINE | re.IGNORECASE)
    return [*objects, merged, {key: value.strip().strip("\"'`,") for key, value in reversed(lines)}]


def _words(one: Any) -> str:
    """A text; of an object, which some models make of each task, its longest one."""
    texts = [value for value in one.values() if isinstance(value, str)] if isinstance(one, dict) else [one]
    return max((text for text in texts if isinstance(text, str)), key=len, default="")


def _text(answer: Answer) -> str:
    if answer.refused or answer.finish in FILTERED_BY:
        raise Unreadable(REFUSED)
    return THINKING.sub("", answer.text).strip()


def _reason(answer: Answer, text: str) -> str:
    if answer.finish in CUT_BY:
        return CUT
    return REFUSED if REFUSALS.match(text) else UNREADABLE


def _json(text: str) -> Any:
    import json_repair

    try:
        return json.loads(text)
    except ValueError:
        return json_repair.loads(text)


def _plain(key: Any) -> str:
    return re.sub(r"[\W_]+", "", str(key)).casefold()
