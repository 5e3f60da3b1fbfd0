"""Matplotlib's figures as SVG that belongs to a page: its colours, its fonts, its width."""

from __future__ import annotations

import html
import importlib.util
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 4.6
"""Inches: at 72 points an inch about what a phone shows, so that a text of 9 points is read there as it is."""
INK, MUTED, GRID = "#010101", "#010102", "#010103"
SERIES = tuple(f"#0101{place:02x}" for place in range(0x10, 0x18))
MARKERS = "os^DvPX*"
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid"} | {one: f"--s{n}" for n, one in enumerate(SERIES)}
"""Colours that stand for the page's own, of which there is a light and a dark set."""
SETTINGS: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": GRID,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def require_plots() -> None:
    """Raise unless Matplotlib is installed.

    Raises:
        ValueError: If it is not.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("A report has plots, and Matplotlib is not installed: pip install 'st-llm2vec[report]'.")


@contextmanager
def drawing() -> Iterator[None]:
    """Draw with the page's settings, whatever the user's are."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        # The page's fonts draw the text; those that measure it here may lack a sign.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def figure(height: float) -> Figure:
    """An empty figure of the page's width."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def colour(place: int) -> str:
    """The colour of a series."""
    return SERIES[place % len(SERIES)]


def marker(place: int) -> str:
    """The marker of a series: beyond eight, a colour comes with another one."""
    return MARKERS[(place + place // len(SERIES)) % len(MARKERS)]


def to_svg(drawn: Figure, label: str) -> str:
    """Write a figure as an SVG element that is as wide as its place and takes the page's colours and fonts.

    Args:
        drawn: The figure.
        label: What it shows, for those who do not see it.

    Returns:
        The element, which names nothing outside the page.
    """
    import matplotlib

    written = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": label}):
        drawn.savefig(written, format="svg", metadata={"Date": None})
    element = written.getvalue()
    element = element[element.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", element, count=1)
    element = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", element, count=1)
    element = re.sub(r"(fill|stroke): (#[0-9a-f]{6})", _variable, element)
    return element.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)


def _variable(found: re.Match[str]) -> str:
    name = VARIABLES.get(found[2])
    return f"{found[1]}: var({name})" if name else found[0]
