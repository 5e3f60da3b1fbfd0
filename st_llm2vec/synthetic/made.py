"""What has been made of a group, and what became of its requests."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from st_llm2vec.synthetic.groups import TaskGroup
from st_llm2vec.synthetic.unique import Unique

SHOWN = 2


@dataclass
class Made:
    """What has been made of a group in one of the steps.

    Args:
        group: The group.
        wanted: How many tasks or rows are wanted.
        most: How many requests are made at the most.
        unique: What there is, to tell what repeats it.
        positives: The positives that there are, where each is to occur once.
        kept: The tasks or rows.
        requests: How many requests were made.
        unanswered: How many of them the model did not answer.
        unreadable: How many answers gave nothing, by the reason.
        filtered: How many tasks or examples were left out, by the reason.
        tokens: How many were read and written.
        seconds: How long the answers took, one after the other.
        left_out: What was left out first, to look at.
    """

    group: TaskGroup
    wanted: int
    most: int
    unique: Unique
    positives: Unique
    kept: list[Any] = field(default_factory=list)
    requests: int = 0
    unanswered: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    filtered: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    left_out: list[dict[str, str]] = field(default_factory=list)

    def leave_out(self, reason: str, text: str) -> None:
        """Count what is left out by a filter, and keep the first of them to look at."""
        self.filtered[reason] += 1
        self._show(reason, text, self.filtered[reason])

    def cannot_read(self, reason: str, text: str) -> None:
        """Count an answer that gives nothing, and keep the first of them to look at."""
        self.unreadable[reason] += 1
        self._show(reason, text, self.unreadable[reason])

    def _show(self, reason: str, text: str, count: int) -> None:
        if count <= SHOWN:
            self.left_out.append({"reason": reason, "text": text})
