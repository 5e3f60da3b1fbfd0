"""The search: all candidates on a few rows of a dev set, the better ones on more, the best on all of it."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil
from pathlib import Path
from typing import Any, cast

from st_llm2vec.demonstrations.dev_sets import DevSet
from st_llm2vec.demonstrations.trial import Candidate, Demonstrations, show
from st_llm2vec.evaluation.fingerprint import encoder_fingerprint
from st_llm2vec.evaluation.kept import keep, read_kept
from st_llm2vec.folder.encoder import TextEncoder

FIRST_ROWS = 32
AT_ONCE = 256
SHARE = 3
"""The best third of a stage goes to the next one, on three times as many rows: each stage costs about the same."""


@dataclass
class Measured:
    """What a candidate's rows gave, as it is kept on the disk.

    Args:
        numbers: The number of each row, by the row.
        seconds: How long that took.
    """

    numbers: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Tried:
    """A candidate and how far it came.

    Args:
        candidate: The candidate.
        rows: On how many rows of the dev set it was scored.
        score: Its score there, 100 being the best.
        seconds: How long these rows took, when they were computed.
    """

    candidate: Candidate
    rows: int
    score: float
    seconds: float


@dataclass(frozen=True)
class Search:
    """What a search found.

    Args:
        found: The best candidate on the whole dev set.
        against: What it was held against, on the whole dev set.
        tried: All candidates, those that came furthest first, the better ones of a stage first.
        stages: The numbers of rows and of candidates of each stage.
        seed: Of the rows' order.
    """

    found: Tried
    against: list[Tried]
    tried: list[Tried]
    stages: list[tuple[int, int]]
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def search(
    trial: TextEncoder,
    candidates: Sequence[Candidate],
    dev: DevSet,
    *,
    against: Sequence[Candidate] = (),
    first_rows: int = FIRST_ROWS,
    seed: int = 0,
    cache: str | Path | None = None,
    advance: Callable[[int], object] = lambda rows: None,
) -> Search:
    """Choose among candidates by successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943), in thirds.

    The rows of a stage are those of the one before and others, so that a candidate never meets a row twice. The outcome is
    the same for the same seed, interrupted or not.

    Args:
        trial: What :func:`~st_llm2vec.demonstrations.trial.open_trial` returned.
        candidates: The candidates.
        dev: What they are scored on.
        against: What the best is held against, scored on the whole dev set whatever it scores on the way: the
            demonstration of a named recipe, or none. They may be chosen too.
        first_rows: How many rows all candidates meet.
        seed: Of the order of the rows.
        cache: The folder where numbers are kept, for a run that is interrupted; in memory only without one.
        advance: Called with the numbers of rows as they are done.

    Returns:
        The best candidate, and what all the others scored.

    Raises:
        ValueError: If there are no candidates, or a kept result cannot be read.
        OSError: If a result cannot be written.
    """
    candidates = list({one.demonstrations: one for one in (*against, *candidates)}.values())
    if len(candidates) < 2:
        raise ValueError(f"There are {len(candidates)} different candidates; a search needs at least two.")
    kept = KeptNumbers(trial, dev, cache)
    order = list(range(len(dev)))
    random.Random(seed).shuffle(order)
    always = {one.demonstrations for one in against}
    tried: dict[Any, Tried] = {}
    left, stages = candidates, plan(len(candidates), len(dev), first_rows)
    for rows, count in stages:
        ranked = sorted((tried[one.demonstrations] for one in left), key=lambda one: -one.score) if tried else []
        chosen = (
            {one.candidate.demonstrations for one in ranked[:count]} if ranked else {one.demonstrations for one in left}
        )
        left = [one for one in left if one.demonstrations in chosen | always]
        for one in left:
            tried[one.demonstrations] = kept.measure(one, order[:rows], advance)
    furthest = sorted(tried.values(), key=lambda one: (-one.rows, -one.score))
    return Search(furthest[0], [tried[one.demonstrations] for one in against], furthest, stages, seed)


def plan(candidates: int, rows: int, first_rows: int = FIRST_ROWS) -> list[tuple[int, int]]:
    """The numbers of rows and of candidates of each stage; the last one has all rows, a fourth more than those before it at least.

    Args:
        candidates: How many candidates there are.
        rows: How many rows the dev set has.
        first_rows: How many rows the first stage has.

    Example:
        >>> plan(108, 500, 16), plan(108, 500)
        ([(16, 108), (48, 36), (144, 12), (500, 4)], [(32, 108), (96, 36), (288, 12), (500, 4)])
    """
    stages = [(min(first_rows, rows), candidates)]
    while stages[-1][0] < rows:
        before, left = stages[-1]
        wanted = before * SHARE
        stages.append((wanted if 5 * wanted <= 4 * rows else rows, ceil(left / SHARE)))
    return stages


class KeptNumbers:
    """Numbers of a dev set's rows, each computed once, or read from where an earlier run kept them.

    Args:
        trial: What :func:`~st_llm2vec.demonstrations.trial.open_trial` returned.
        dev: The rows.
        folder: Where numbers are kept, a file for each candidate; in memory only without one.
    """

    def __init__(self, trial: TextEncoder, dev: DevSet, folder: str | Path | None = None) -> None:
        self.trial, self.dev = trial, dev
        self.folder = None if folder is None else Path(folder)
        self.known: dict[Demonstrations, Measured] = {}
        self.about = [encoder_fingerprint(show(trial, ())), dev.fingerprint()] if folder is not None else []

    def measure(
        self,
        candidate: Candidate,
        rows: Sequence[int] | None = None,
        advance: Callable[[int], object] = lambda rows: None,
    ) -> Tried:
        """Score a candidate on rows, and compute those that are not kept.

        Args:
            candidate: The candidate.
            rows: The rows, by number; all of them if not given.
            advance: Called with the numbers of rows as they are done.

        Returns:
            Its score.

        Raises:
            ValueError: If a kept result cannot be read.
            OSError: If a result cannot be written.
        """
        rows = range(len(self.dev)) if rows is None else rows
        file = self._file(candidate)
        if candidate.demonstrations not in self.known:
            is_kept = file is not None and file.is_file()
            self.known[candidate.demonstrations] = read_kept(cast("Path", file), Measured) if is_kept else Measured()
        found = self.known[candidate.demonstrations]
        missing = [row for row in rows if str(row) not in found.numbers]
        advance(len(rows) - len(missing))
        for start in range(0, len(missing), AT_ONCE):
            some = missing[start : start + AT_ONCE]
            begun = time.perf_counter()
            numbers = self.dev.measure(show(self.trial, candidate.demonstrations), some)
            found.seconds += time.perf_counter() - begun
            found.numbers |= dict(zip(map(str, some), numbers, strict=True))
            if file is not None:
                keep(file, asdict(found))
            advance(len(some))
        score = self.dev.score([found.numbers[str(row)] for row in rows], rows)
        return Tried(candidate, len(rows), score, found.seconds * len(rows) / len(found.numbers))

    def _file(self, candidate: Candidate) -> Path | None:
        if self.folder is None:
            return None
        written = json.dumps([*self.about, [asdict(one) for one in candidate.demonstrations]])
        return self.folder / f"{hashlib.sha256(written.encode()).hexdigest()[:40]}.json"
