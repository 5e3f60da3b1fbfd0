"""What a check found."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Args:
        check: What was checked, in a few words.
        passed: Whether it holds; ``None`` where the check does not apply.
        found: What was found, in a sentence; or why the check does not apply.
        figure: What was measured: a cosine distance, or how many texts were wrong. ``None`` where nothing was.
        tolerance: The largest figure that passes.
    """

    check: str
    passed: bool | None
    found: str
    figure: float | None = None
    tolerance: float | None = None

    @classmethod
    def measured(cls, check: str, found: str, figure: float, tolerance: float) -> Finding:
        """One that passes if the figure is within the tolerance; where it is not finite, a vector is no number."""
        return cls(check, math.isfinite(figure) and bool(figure <= tolerance), found, float(figure), tolerance)

    @property
    def result(self) -> str:
        """``"pass"``, ``"fail"`` or ``"not applicable"``."""
        return {True: "pass", False: "fail", None: "not applicable"}[self.passed]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, which has no infinity: a figure that is not finite is left out."""
        figure = self.figure if self.figure is not None and math.isfinite(self.figure) else None
        return {**asdict(self), "figure": figure, "result": self.result}


def failures(findings: Iterable[Finding]) -> list[Finding]:
    """Those that failed.

    Args:
        findings: What checks found.

    Example:
        >>> failures([Finding("attention", True, "causal"), Finding("threads", None, "it was not asked for")])
        []
    """
    return [one for one in findings if one.passed is False]
