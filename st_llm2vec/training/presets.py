"""The stages by name: classes, and presets of them (``presets.yaml``)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from st_llm2vec.training.distillation import Distillation
from st_llm2vec.training.mntp import MNTP
from st_llm2vec.training.scored import Scored
from st_llm2vec.training.settings import check_names, put_on_top
from st_llm2vec.training.simcse import SimCSE
from st_llm2vec.training.stage import Stage
from st_llm2vec.training.supervised import Supervised

PRESETS: dict[str, dict[str, Any]] = yaml.safe_load(
    Path(__file__).with_name("presets.yaml").read_text(encoding="utf-8")
)
"""Settings of a stage that are not its own defaults, by the preset's name."""

STAGES: dict[str, type[Stage]] = {stage.name: stage for stage in (MNTP, SimCSE, Supervised, Scored, Distillation)}
STAGES |= {name: STAGES[preset["stage"]] for name, preset in PRESETS.items()}


def build_stage(name: str, **settings: Any) -> Stage:
    """Make a stage with its paper's settings.

    Args:
        name: A key of :data:`STAGES`.
        **settings: Its fields; of ``adapter`` and ``training`` those that differ.

    Returns:
        The stage.

    Raises:
        ValueError: If there is no such stage or field, or a value does not fit.

    Example:
        >>> stage = build_stage("blended", model="m", output="o", data="pairs.jsonl", training={"max_steps": 100})
        >>> stage.arguments().max_steps, stage.arguments().warmup_steps, stage.adapter.dropout, stage.blended
        (100, 50, 0.1, True)
    """
    check_names([name], STAGES, "The stage cannot be built")
    known = [one.name for one in dataclasses.fields(STAGES[name]) if one.name != "preset"]
    check_names(settings, known, f"The stage {name} does not have these settings")
    preset = {field: value for field, value in PRESETS.get(name, {}).items() if field != "stage"}
    fields = {"data": None, **preset, **settings, "preset": name if preset else None}
    for field in ("adapter", "training"):
        if field in preset and isinstance(settings.get(field), dict):
            fields[field] = put_on_top(preset[field], settings[field])
    return STAGES[name](**fields)


def paper_arguments(name: str) -> dict[str, Any]:
    """The training arguments of a stage's paper.

    Args:
        name: A key of :data:`STAGES`.
    """
    return {**STAGES[name].arguments_of_paper, **PRESETS.get(name, {}).get("training", {})}
