"""The curves of a run, from the trainer's log: as a line of text and as a picture."""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from st_llm2vec.folder.staging import replacing_file

logger = logging.getLogger(__name__)
BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-=+*#@"
Log = Sequence[Mapping[str, Any]]


def points(log: Log, name: str) -> dict[int, float]:
    """A value of the log, where it is finite, by the step of it; the last one, where a continued run measured it again."""
    found = {int(entry["step"]): float(entry[name]) for entry in log if name in entry}
    return {step: value for step, value in found.items() if math.isfinite(value)}


def mean_loss(log: Log) -> float | None:
    """The mean of the losses of all steps, those of a run that was continued too; ``None`` if none was logged.

    Example:
        >>> mean_loss([{"step": 10, "loss": 3.0}, {"step": 12, "loss": 0.0}])
        2.5
    """
    total, before = 0.0, 0
    for step, value in sorted(points(log, "loss").items()):
        total, before = total + value * (step - before), step  # a line has the mean since the line before
    return total / before if before else None


def sparkline(values: Sequence[float], encoding: str | None = "utf-8") -> str:
    """Values as a line of blocks, from the lowest to the highest of them.

    Args:
        values: Finite numbers.
        encoding: That of the terminal; one without blocks gets ASCII characters that grow.

    Example:
        >>> sparkline([0.1, 0.2, 0.4, 0.35])
        '▁▃█▇'
    """
    marks = BLOCKS
    try:
        marks.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        marks = ASCII
    low, high = min(values, default=0.0), max(values, default=0.0)
    share = (len(marks) - 1) / (high - low) if high > low else 0.0
    return "".join(marks[round((value - low) * share)] for value in values)


def draw(path: Path, log: Log, metric: str, label: str) -> bool:
    """Draw the loss and, where the run was evaluated, its score as a PNG.

    Args:
        path: The file.
        log: The trainer's.
        metric: The score's name there.
        label: What the score is called.

    Returns:
        Whether it was drawn: not without matplotlib, which the log says then, nor without a value to draw.
    """
    curves = [(label, points(log, metric), "C1"), ("loss", points(log, "loss"), "C0")]
    found = [curve for curve in curves if curve[1]]
    if not found:
        return False
    if importlib.util.find_spec("matplotlib") is None:
        logger.warning('%s is not drawn, for which matplotlib is needed: pip install "st-llm2vec[report]".', path.name)
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.6 * len(found)), layout="constrained")
    panels = figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
    for panel, (name, values, colour) in zip(panels, found, strict=True):
        panel.plot(list(values), list(values.values()), marker="o", markersize=3, color=colour)
        panel.set_ylabel(name)
        panel.grid(alpha=0.3)
    panels[-1].set_xlabel("step")
    with replacing_file(path) as fresh:
        figure.savefig(fresh, format="png", dpi=120)
    return True
