"""The groups of tasks that synthetic data is made for: what they are asked, and what their answers become."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import yaml

FILE = Path(__file__).with_name("groups.yaml")


@dataclass(frozen=True)
class TaskGroup:
    """A group of tasks.

    Args:
        name: What it is called.
        task: What its rows are, a key of :data:`st_llm2vec.data.task_types.TASKS`.
        instruction: That of its rows as a source of a mixture.
        keys: The keys of an answer, and the column that each becomes.
        lengths: The fewest and the most characters of a column.
        example: The prompt that asks for an example.
        brainstorm: The prompt that asks for tasks; none where the group itself is the task.
        placeholders: The values that are drawn for the placeholders of ``example``.
        symmetric: Whether both sides are instructed, where the task does not imply it.
    """

    name: str
    task: str
    instruction: str
    keys: Mapping[str, str]
    lengths: Mapping[str, tuple[int, int]]
    example: str
    brainstorm: str | None = None
    placeholders: Mapping[str, list[str]] = field(default_factory=dict)
    symmetric: bool | None = None

    @property
    def two_steps(self) -> bool:
        """Whether tasks are brainstormed first."""
        return self.brainstorm is not None

    @property
    def has_negative(self) -> bool:
        """Whether an answer has a hard negative."""
        return "negative" in self.keys.values()


def _read() -> tuple[dict[str, TaskGroup], list[str]]:
    data = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    fields = data.pop("fields")
    return {name: TaskGroup(name, **entry) for name, entry in data.items()}, fields


GROUPS, FIELDS = _read()
"""The groups by name, and the fields that their prompts point to."""


def fill(template: str, values: Mapping[str, Any]) -> str:
    """A prompt with its placeholders filled in.

    Args:
        template: The prompt.
        values: What stands for each ``$name``.

    Raises:
        KeyError: If one is missing.

    Example:
        >>> fill("Write a $unit in $language.", {"unit": "phrase", "language": "Welsh"})
        'Write a phrase in Welsh.'
    """
    return Template(template).substitute(values).strip()


def prompts_digest() -> str:
    """The checksum of all prompts, which tells data of earlier prompts from data of these."""
    return hashlib.sha256(FILE.read_bytes()).hexdigest()[:16]
