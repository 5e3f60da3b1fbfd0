"""The plots of a report, each as an SVG element."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from st_llm2vec.reporting.embedding_map import MappedTexts
from st_llm2vec.reporting.measure import Inside, ModelReport, Report
from st_llm2vec.reporting.svg import GRID, INK, MUTED, colour, drawing, figure, marker, to_svg

LONGEST, SHORTER, SHORTEST = 40, 24, 12
BINS = 16


def shortened(text: str, length: int = LONGEST) -> str:
    """A text of at most so many signs, on one line."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def legend_label(text: str, length: int = LONGEST) -> str:
    """A text for a legend; those that begin with an underscore are hidden there, unless something stands before it."""
    return f"\u200b{shortened(text, length)}" if text.startswith("_") else shortened(text, length)


def scores_plot(report: Report, names: Sequence[str]) -> str:
    """Each task's scores on a line of its own, with a marker for each model and one for the baseline."""
    tasks = report.tasks
    step = 0.13
    band = 0.42 + step * len(names)
    with drawing():
        drawn = figure(band * len(tasks) + 0.35 + 0.2 * (len(names) + 1))
        axes: Any = drawn.subplots()
        for row, task in enumerate(tasks):
            top = row * band
            axes.axhline(top, color=GRID, linewidth=0.8)
            axes.text(0, top + 0.05, shortened(task.spec.name), va="top", transform=axes.get_yaxis_transform())
            floor = report.baseline[row].main
            axes.plot([floor, floor], [top + 0.24, top + band - 0.06], color=MUTED, linestyle=":", linewidth=1.5)
            for place, model in enumerate(report.models):
                height = top + 0.3 + step * place
                value = model.results[row].main
                axes.plot([floor, value], [height, height], color=GRID, linewidth=1)
                axes.plot(value, height, marker(place), color=colour(place), markersize=6)
        axes.set_ylim(band * len(tasks), 0)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.03)
        axes.grid(axis="x", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.set_xlabel("score, at most 100")
        handles = [
            axes.plot([], [], marker(place), color=colour(place), label=legend_label(name))[0]
            for place, name in enumerate(names)
        ]
        handles += axes.plot([], [], color=MUTED, linestyle=":", linewidth=1.5, label="baseline, without a model")
        drawn.legend(handles=handles, loc="outside lower left", ncols=1)
        return to_svg(drawn, "Scores of each model on each task")


def heat_map(found: Inside, name: str) -> str:
    """The cosine of each token's causal and bidirectional states, layer by layer."""
    states = np.array(found.states)
    with drawing():
        drawn = figure(3.2)
        axes: Any = drawn.subplots()
        shown = axes.imshow(states, cmap="viridis", vmin=0, vmax=1, aspect="auto", origin="lower", interpolation="none")
        axes.set_xticks(range(len(found.pieces)), [shortened(one, SHORTEST) for one in found.pieces], rotation=90)
        axes.tick_params(length=0)
        axes.set_ylabel("layer")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.set_title(shortened(name))
        for spine in axes.spines.values():
            spine.set_visible(False)
        bar: Any = drawn.colorbar(shown, ax=axes, pad=0.02, aspect=30)
        bar.set_label("cosine")
        bar.outline.set_visible(False)
        return to_svg(drawn, f"Cosine of causal and bidirectional states in each layer of {name}")


def layers_plot(insides: Mapping[str, Inside]) -> str:
    """The mean cosine of causal and bidirectional states over the depth of each model."""
    with drawing():
        drawn = figure(2.8 + 0.2 * len(insides))
        axes: Any = drawn.subplots()
        for place, (name, found) in enumerate(insides.items()):
            depth = np.linspace(0, 1, len(found.similarity))
            style: dict[str, Any] = {"color": colour(place), "marker": marker(place), "markersize": 4}
            axes.plot(depth, found.similarity, label=legend_label(name), linewidth=1.5, **style)
        axes.set_xticks([0, 0.5, 1], ["embeddings", "half way", "last layer"])
        axes.get_xticklabels()[0].set_horizontalalignment("left")
        axes.get_xticklabels()[-1].set_horizontalalignment("right")
        axes.set_ylim(min(0, *map(min, (one.similarity for one in insides.values()))), 1.02)
        axes.set_title("Mean over tokens")
        axes.grid(axis="y", linewidth=0.5)
        axes.set_ylabel("cosine")
        drawn.legend(loc="outside lower left", ncols=1)
        return to_svg(drawn, "Mean cosine of causal and bidirectional states by depth")


def future_plot(future: Mapping[str, Any], name: str) -> str:
    """How the cosines of shared beginnings lie, of sentences that mean the same and of those that do not."""
    low, high = future["interval"]
    with drawing():
        drawn = figure(2.6)
        axes: Any = drawn.subplots()
        both = [future["positive"], future["negative"]]
        edges = np.histogram_bin_edges(np.concatenate(both), BINS)
        for place, (values, label) in enumerate(zip(both, ("the same meaning", "another meaning"), strict=True)):
            axes.hist(values, edges, color=colour(place), alpha=0.35)
            axes.hist(values, edges, color=colour(place), histtype="step", linewidth=1.5, label=label)
        axes.set_xlabel("cosine of the shared beginnings")
        axes.set_ylabel("triples")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.xaxis.get_major_locator().set_params(nbins=5)
        axes.ticklabel_format(axis="x", useOffset=False)
        axes.set_title(f"{shortened(name, SHORTER)}: {future['share']:.0%} right ({low:.0%} to {high:.0%})")
        drawn.legend(loc="outside lower left", ncols=2)
        return to_svg(drawn, f"Future tokens in {name}")


def map_plot(model: ModelReport, name: str, mapped: MappedTexts) -> str:
    """Where a model puts the report's texts."""
    places = np.array(model.places)
    named = list(dict.fromkeys(mapped.labels))
    with drawing():
        drawn = figure(3.4 if mapped.pairs else 3.4 + 0.1 * len(named))
        axes: Any = drawn.subplots()
        for place, label in enumerate(named):
            own = places[[one == label for one in mapped.labels]]
            if mapped.pairs:
                axes.plot(own[:, 0], own[:, 1], "-", color=INK, linewidth=1)
                axes.plot(own[:, 0], own[:, 1], "o", color=colour(0), markersize=5)
            else:
                style: dict[str, Any] = {"color": colour(place), "markersize": 4, "alpha": 0.8}
                axes.plot(own[:, 0], own[:, 1], marker(place), label=legend_label(label, SHORTER), **style)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[["top", "right"]].set_visible(True)
        axes.set_title(shortened(name))
        if not mapped.pairs:
            drawn.legend(loc="outside lower left", ncols=2, markerscale=1.5)
        return to_svg(drawn, f"Map of texts by {name}")
