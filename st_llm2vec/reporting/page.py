"""A report as a page for a browser, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2
from markupsafe import Markup

from st_llm2vec import __version__
from st_llm2vec.evaluation.mteb_encoder import main_score
from st_llm2vec.folder.disk_errors import disk_errors
from st_llm2vec.folder.staging import replacing
from st_llm2vec.reporting.measure import Inside, ModelReport, Report
from st_llm2vec.reporting.plots import future_plot, heat_map, layers_plot, map_plot, scores_plot

PAGE = "report.html"
TEMPLATES = {PAGE: "page.html.jinja", "report.md": "page.md.jinja"}
DATA = "report.json"
GIB = 2**30


def write_report(report: Report, folder: str | Path) -> Path:
    """Write a report's three files, all or none; other files of the folder stay.

    Args:
        report: The report, with a model at least.
        folder: The folder; it may be missing.

    Returns:
        The page, which needs no other file and no network.

    Raises:
        OSError: If the folder may not be written.
    """
    folder = Path(folder)
    made = {"made": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), "version": __version__}
    shown = {**_tables(report), **made}
    plots = _plots(report)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    markdown = environment.overlay(autoescape=False)
    markdown.filters["cell"] = _cell
    with disk_errors(folder), replacing(folder, lambda name: False) as fresh:
        for name, template in TEMPLATES.items():
            text = Path(__file__).with_name(template).read_text(encoding="utf-8")
            rendered = (environment if name == PAGE else markdown).from_string(text).render(shown, plots=plots)
            (fresh / name).write_text(rendered, encoding="utf-8", errors="replace")
        (fresh / DATA).write_text(json.dumps({**made, **report.to_dict()}, indent=2), encoding="utf-8")
    return folder / PAGE


def short_names(sources: Sequence[str]) -> list[str]:
    """The last part of each path or name, where that is different for each.

    Example:
        >>> short_names(["models/one", "org/two", "a/same", "b/same"])
        ['one', 'two', 'a/same', 'b/same']
    """
    short = [Path(source).name or source for source in sources]
    return [name if short.count(name) == 1 else source for name, source in zip(short, sources, strict=True)]


def _plots(report: Report) -> dict[str, list[Markup]]:
    """Plots as SVG elements, which the page takes as they are."""
    names = short_names([one.source for one in report.models])
    insides = _insides(report)
    layers = {name: one for name, one in insides.items() if one.states}
    every = {
        "scores": [scores_plot(report, names)],
        "layers": [layers_plot(layers), *(heat_map(one, name) for name, one in layers.items())] if layers else [],
        "future": [future_plot(one.future, name) for name, one in insides.items() if one.future],
        "map": [map_plot(model, name, report.mapped) for name, model in zip(names, report.models, strict=True)],
    }
    return {name: [Markup(one) for one in plots] for name, plots in every.items()}


def _insides(report: Report) -> dict[str, Inside]:
    return dict(zip(short_names(list(report.insides)), report.insides.values(), strict=True))


def _tables(report: Report) -> dict[str, Any]:
    """What both templates show, in words and in numbers."""
    names = short_names([one.source for one in report.models])
    insides = _insides(report)
    models = [
        {"name": name, "source": one.source, "facts": _facts(one)}
        for name, one in zip(names, report.models, strict=True)
    ]
    return {
        "tasks": [task.spec for task in report.tasks],
        "baseline": [f"{_rounded(one.main):.1f}" for one in report.baseline],
        "words": any(task.spec.kind == "words" for task in report.tasks),
        "rows": _rows(names, [[_rounded(one.main) for one in model.results] for model in report.models]),
        "mteb": [one["task_name"] for one in report.models[0].mteb],
        "mteb_rows": _rows(names, [[_rounded(main_score(one)) for one in model.mteb] for model in report.models]),
        "insides": [_line(name, one) for name, one in insides.items() if one.analysis],
        "refusals": [(name, one.refusal) for name, one in insides.items() if one.refusal],
        "models": models,
        "mapped": report.mapped,
        "shown_labels": len(set(report.mapped.labels)),
        "unseen": [(task.spec.name, _counted(task.unseen)) for task in report.tasks if task.unseen],
    }


def _rows(names: Sequence[str], scores: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """For each model its scores as text, and whether each is the best of its task."""
    best = [max(column) for column in zip(*scores, strict=True)]
    return [
        {
            "name": name,
            "cells": [(f"{value:.1f}", len(scores) > 1 and value == top) for value, top in zip(row, best, strict=True)],
        }
        for name, row in zip(names, scores, strict=True)
    ]


def _rounded(score: float) -> float:
    """A score as the table has it, so that what looks equal counts as equal."""
    return round(float(score), 1)


def _line(name: str, found: Inside) -> dict[str, str]:
    """A line on the layers of a model."""
    quality, above, future = found.analysis["quality"], found.analysis["above_chance"], found.future
    scores = {attention: f"{one['scores'][-1]:.0f}" for attention, one in quality.items()}
    best = {f"best_{attention}": str(one["best"]) for attention, one in quality.items()}
    low, high = future["interval"] if future else (0.0, 0.0)
    return {
        "name": name,
        **scores,
        **best,
        "same": f"{fmean(found.similarity[1:]):.2f}" if above else "",
        "above": f"{fmean(above[1:]):.2f}" if above else "",
        "future": f"{future['share']:.0%} ({low:.0%} to {high:.0%})" if future else "",
    }


def _facts(model: ModelReport) -> dict[str, str]:
    seconds = sum(one.seconds for one in model.results)
    memory = max(one.memory for one in model.results)
    return {**model.facts, "tasks took": f"{seconds:,.0f} s, at most {memory / GIB:.1f} GiB in the process"}


def _counted(labels: dict[str, int]) -> str:
    return ", ".join(f"{label} ({count})" for label, count in labels.items())


def _cell(text: Any) -> str:
    """A text inside a table of Markdown, where no sign of it is markup."""
    signs = {sign: f"\\{sign}" for sign in "\\|`*_[]<>#~$"}
    return " ".join("".join(signs.get(sign, sign) for sign in str(text)).split())
