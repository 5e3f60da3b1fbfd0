"""The requests, one after the other: each depends on the seed and its own number alone."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from st_llm2vec.synthetic.groups import FIELDS, GROUPS, TaskGroup, fill
from st_llm2vec.synthetic.settings import SyntheticSettings

TASKS = "tasks"


@dataclass(frozen=True)
class ChatRequest:
    """Something that a chat model is asked.

    Args:
        group: The name of the group.
        number: How many requests of the same task, or of the same step of the group, stand before it.
        prompt: What the model reads.
        keys: The keys of the answer.
        drawn: What was drawn for it: task, language and placeholders.
    """

    group: str
    number: int
    prompt: str
    keys: tuple[str, ...]
    drawn: Mapping[str, str] = field(default_factory=dict)

    @property
    def schema(self) -> dict[str, Any]:
        """The answer as a JSON schema, in the form that structured output takes."""
        text = {"type": "string"}
        kinds = {key: {"type": "array", "items": text} if key == TASKS else text for key in self.keys}
        return {
            "title": "answer",
            "description": "What is asked for.",
            "type": "object",
            "properties": kinds,
            "required": list(self.keys),
            "additionalProperties": False,
        }

    def identity(self, model: str, settings: SyntheticSettings) -> str:
        """What the request is known by: its prompt and number, who is asked, and how.

        Args:
            model: The model's name.
            settings: Its sampling.
        """
        asked = [self.group, self.number, self.prompt, model, settings.temperature, settings.top_p, settings.max_tokens]
        data = json.dumps([*asked, settings.seed], ensure_ascii=False)
        return hashlib.sha256(data.encode()).hexdigest()[:32]


def brainstorm_request(group: TaskGroup, number: int, settings: SyntheticSettings) -> ChatRequest:
    """The request for tasks of a group.

    Args:
        group: The group, one of two steps.
        number: How many requests for its tasks stand before it.
        settings: What is generated.
    """
    assert group.brainstorm is not None
    drawn = {"field": _field(group, number, settings), "tasks_per_request": str(settings.tasks_per_request)}
    return ChatRequest(group.name, number, fill(group.brainstorm, drawn), (TASKS,), drawn)


def example_request(group: TaskGroup, number: int, tasks: Sequence[str], settings: SyntheticSettings) -> ChatRequest:
    """The request for an example of a group. Its tasks take turns, and what one is asked for does not depend on the others.

    Args:
        group: The group.
        number: How many requests for its examples stand before it.
        tasks: Its tasks; empty where the group itself is the task.
        settings: What is generated.
    """
    turn, place = divmod(number, len(tasks)) if tasks else (number, 0)
    task = tasks[place] if tasks else ""
    draws = random.Random(f"{settings.seed} example {group.name} {turn} {task}")
    names, shares = list(settings.languages), list(settings.languages.values())
    drawn = {"language": draws.choices(names, shares)[0]}
    if tasks:
        drawn["task"] = task
    else:
        drawn["field"] = _field(group, number, settings)
    if "$other_language" in group.example:
        others = {name: share for name, share in settings.languages.items() if name != drawn["language"]}
        drawn["other_language"] = draws.choices(list(others), list(others.values()))[0]
    drawn |= {name: draws.choice(values) for name, values in group.placeholders.items()}
    return ChatRequest(group.name, turn, fill(group.example, drawn), tuple(group.keys), drawn)


def languages_of(request: ChatRequest) -> dict[str, str]:
    """The language that each column of the answer is asked for in."""
    language = request.drawn["language"]
    other = request.drawn.get("other_language", language)
    columns = GROUPS[request.group].keys.values()
    return {column: language if column == "query" else other for column in columns}


def _field(group: TaskGroup, number: int, settings: SyntheticSettings) -> str:
    """The field of a request: all of them take turns, in an order of each round's own."""
    turn, place = divmod(number, len(FIELDS))
    order = random.Random(f"{settings.seed} field {group.name} {turn}").sample(range(len(FIELDS)), len(FIELDS))
    return FIELDS[order[place]]
