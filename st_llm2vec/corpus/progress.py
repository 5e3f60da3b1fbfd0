"""How far a job is, how fast, and how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Args:
        rows: Rows that are done, those of earlier runs included.
        total: All rows, where their number is known.
        tokens: Tokens that were read in this run.
        texts_per_second: In this run.
        tokens_per_second: In this run.
        seconds_left: Time that is left, where the number of rows is known.
    """

    rows: int
    total: int | None
    tokens: int
    texts_per_second: float
    tokens_per_second: float
    seconds_left: float | None


class Meter:
    """Counts rows and tokens and tells a listener.

    Args:
        total: All rows, where their number is known.
        done: Rows that earlier runs did; they do not count towards the speed.
        listener: Called with the progress.
        clock: The time, in seconds.
    """

    def __init__(
        self,
        total: int | None,
        done: int,
        listener: Callable[[Progress], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self.before = done
        self.listener = listener
        self.clock = clock
        self.started = clock()
        self.rows = 0
        self.tokens = 0
        self.advance(0, 0)

    def advance(self, rows: int, tokens: int) -> None:
        """Add rows and tokens that are done."""
        self.rows += rows
        self.tokens += tokens
        if self.listener is not None:
            self.listener(self.progress())

    def progress(self) -> Progress:
        """How far the job is."""
        seconds = max(self.clock() - self.started, 1e-9)
        speed = self.rows / seconds
        done = self.before + self.rows
        left = (self.total - done) / speed if self.total is not None and speed else None
        return Progress(done, self.total, self.tokens, speed, self.tokens / seconds, left)
