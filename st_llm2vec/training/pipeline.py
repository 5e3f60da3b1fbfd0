"""Plans: stages in a row, each of which starts from the folder that the one before left."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from accelerate import PartialState

from st_llm2vec.folder.gguf_file import is_gguf, unpack_gguf
from st_llm2vec.recipe.config import closest, get_recipe
from st_llm2vec.training.mntp import MNTP
from st_llm2vec.training.named_data import TEXTS_OF, name_data
from st_llm2vec.training.presets import STAGES, build_stage, paper_arguments
from st_llm2vec.training.settings import NAMES_ELSEWHERE, check_names, put_on_top
from st_llm2vec.training.stage import Stage
from st_llm2vec.training.supervised import Supervised

SHARED_FIELDS = ("recipe", "changes", "dtype", "attn_implementation", "adapter", "training")
PLAN_FIELDS = ("model", *SHARED_FIELDS, "stages", "notes")

# What the authors trained on: train_configs/mntp and train_configs/simcse.
WIKITEXT = "Salesforce/wikitext:wikitext-103-raw-v1"
# 1000 steps of a learning rate that is planned for three epochs, as the authors' scripts train.
HORIZON = {"stop_after": 1000, "training": {"num_train_epochs": 3, "max_steps": -1}}
WIKI1M = "hf://datasets/princeton-nlp/datasets-for-simcse/wiki1m_for_simcse.txt"


def default_plan(recipe: str, texts: str | None = None, pairs: str | None = None) -> dict[str, Any]:
    """The stages that a recipe's paper trains, with its settings.

    Args:
        recipe: A recipe's name, or a YAML file.
        texts: What MNTP and SimCSE read, in place of the paper's Wikipedia.
        pairs: Queries, positives and negatives: the supervised stage's data, whose texts MNTP reads where there are no others.

    Returns:
        A plan for :func:`build_stages`.

    Raises:
        ValueError: If the recipe's stages need pairs and there are none, or need none.
    """
    config = get_recipe(recipe)
    if config.attention == "bidirectional" and config.pooling != "latent_attention":
        stages: list[dict[str, Any]] = [
            {"stage": "mntp", "data": texts or WIKITEXT},
            {"stage": "simcse", "data": texts or WIKI1M},
        ]
        if pairs is not None:
            supervised = {"stage": "supervised", "data": name_data(pairs), "max_length": 512}
            stages = [{"stage": "mntp", "data": texts}, supervised]
        return {"recipe": recipe, "stages": [{**stage, **HORIZON} for stage in stages]}
    if pairs is None:
        raise ValueError(
            f"The recipe {recipe} is trained on pairs; name a file with the columns query, positive and, if there are "
            "any, negatives: --pairs pairs.jsonl."
        )
    if texts is not None:
        raise ValueError(f"The recipe {recipe} is trained on pairs only; leave --texts out.")
    names = ["supervised"]
    if config.pooling == "latent_attention":
        names = ["retrieval", "blended"]
    elif config.name.startswith("prompteol"):
        names = ["prompteol_cse"]
    return {"recipe": recipe, "stages": [{"stage": name, "data": name_data(pairs)} for name in names]}


def build_stages(plan: Mapping[str, Any], output: str | Path, model: str | None = None) -> list[Stage]:
    """Make the stages of a plan and check their settings.

    Args:
        plan: As a YAML file has it: ``model``, ``stages`` (a list of mappings, each with ``stage``, the stage's name,
            and its fields) and, for all stages, ``recipe``, ``changes``, ``dtype``, ``attn_implementation``,
            ``adapter`` and ``training``. What is under ``notes``, such as published scores, is for readers. MNTP without data
            reads the texts of the pairs that the next stage of pairs has.
        output: The last stage's folder; the ones before it go under ``<output>-stages``.
        model: Where to start, in place of the plan's. A GGUF file is unpacked under ``<output>-stages``.

    Returns:
        The stages, in order.

    Raises:
        ValueError: If a stage or field does not exist, or a value does not fit.
    """
    entries = _entries(plan)
    of_a_stage = {field.name for stage in STAGES.values() for field in dataclasses.fields(stage)}
    places = {name: f"it is a setting of a stage, stages: [{{stage: ..., {name}: ...}}]" for name in of_a_stage}
    complaint = "The plan does not have these settings (what is for readers alone goes under notes)"
    check_names(map(str, plan), PLAN_FIELDS, complaint, places)
    source = model or plan.get("model")
    if not source:
        inside = any("model_name_or_path" in entry for entry in entries)
        told = "; model_name_or_path of a stage is the plan's model here" if inside else "; give one"
        raise ValueError(f"The plan names no model to start from{told}.")
    if is_gguf(source):
        with PartialState().main_process_first():
            source = unpack_gguf(source, Path(f"{output}-stages") / "decoder")
    shared = {name: plan[name] for name in SHARED_FIELDS if name in plan}
    stages: list[Stage] = []
    for number, entry in enumerate(entries, start=1):
        last = number == len(entries)
        target = Path(output) if last else Path(f"{output}-stages") / f"{number}-{entry['stage']}"
        fields = {**shared, **entry, "model": str(source), "output": str(target)}
        fields["training"] = put_on_top(shared.get("training", {}), entry.get("training", {}))
        adapters = [given for given in (shared.get("adapter"), entry.get("adapter")) if isinstance(given, Mapping)]
        if len(adapters) == 2:
            fields["adapter"] = {**adapters[0], **adapters[1]}
        if issubclass(STAGES[entry["stage"]], MNTP) and entry.get("data") is None:
            later = (one.get("data") for one in entries[number:] if issubclass(STAGES[one["stage"]], Supervised))
            pairs = next(filter(None, later), None)
            fields |= {"data": {TEXTS_OF: pairs}} if pairs else {}
        if number > 1:
            fields.pop("changes", None)  # which are of the decoder's recipe, and this one starts from an encoder
        stages.append(build_stage(fields.pop("stage"), **fields))
        source = target
    return stages


def read_plan(path: str | Path) -> dict[str, Any]:
    """Read a plan from a YAML file.

    Raises:
        ValueError: If there is no such file, or it holds no mapping.
    """
    try:
        plan = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"The plan {path} cannot be read: {error}") from error
    if not isinstance(plan, dict):
        raise ValueError(f"The plan {path} is a {type(plan).__name__}; a mapping with model and stages is expected.")
    return _numbers(plan)


def change(settings: Mapping[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """A copy of nested settings with one of them changed: ``change(plan, "training.max_steps", 10)``.

    Raises:
        ValueError: If the settings have no such one.
    """
    changed = _copied(settings)
    *path, last = dotted.split(".")
    inner: Any = changed
    try:
        for name in path:
            inner = inner[int(name)] if isinstance(inner, list) else inner.setdefault(name, {})
        inner[last] = value
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"There is no {dotted} in the plan to change ({error}).") from error
    return changed


def override(plan: Mapping[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """A copy of a plan with a setting changed for good: in every stage, if it is one of all stages.

    A stage's own settings go before those of the plan, so a setting of all stages is put into both. Where the number of
    steps changes, nothing stops short of it any more.

    Args:
        plan: As for :func:`build_stages`.
        dotted: The setting, e.g. ``"training.max_steps"`` or ``"stages.0.scale"``.
        value: Its value.

    Returns:
        The plan.

    Raises:
        ValueError: If there is no such setting.
    """
    first, *rest = dotted.split(".")
    check_names([first], ("model", *SHARED_FIELDS, "stages"), f"{dotted} cannot be changed")
    changed = change(plan, dotted, value)
    stages = changed.get("stages") or []
    if rest[1:] == ["training", "max_steps"]:
        return change(changed, f"stages.{rest[0]}.stop_after", None)
    for number, stage in enumerate(stages if first in SHARED_FIELDS else []):
        if first in stage:
            changed = change(changed, f"stages.{number}.{dotted}", value)
        if dotted == "training.max_steps":
            changed = change(changed, f"stages.{number}.stop_after", None)
    return changed


def evaluate_on(plan: Mapping[str, Any], pairs: str) -> dict[str, Any]:
    """A copy of a plan whose stages are evaluated on pairs with scores: before, ten times in between, and at the end.

    Each stage keeps its best checkpoint, unless the plan says ``keep_best: false``, and saves where it evaluates.

    Args:
        plan: As for :func:`build_stages`.
        pairs: A file or dataset of them, or ``"stsb"``. MNTP, which evaluates on texts, goes without.

    Returns:
        The plan.

    Raises:
        ValueError: If no stage makes vectors, or one is not what a plan's stage is.
    """
    changed = _copied(plan)
    stages = [stage for stage in _entries(changed) if stage["stage"] != MNTP.name]
    if not stages:
        raise ValueError(f"No stage of the plan makes vectors to evaluate on {pairs}; leave it out.")
    for stage in stages:
        training = put_on_top(changed.get("training", {}), stage.get("training", {}))
        steps = stage.get("stop_after") or put_on_top(paper_arguments(stage["stage"]), training)["max_steps"]
        every = max(1, steps // 10) if isinstance(steps, int) and steps > 0 else 0.1
        stage["evaluation"] = pairs
        stage["training"] = {"eval_steps": every, **training}
        if stage.setdefault("keep_best", True):
            stage["training"]["save_steps"] = stage["training"]["eval_steps"]
    return changed


def read_value(text: str) -> Any:
    """Read a value as YAML, and ``1e-4``, which YAML takes for text, as a number.

    Raises:
        ValueError: If it is not YAML.
    """
    try:
        return _numbers(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ValueError(f"The value {text} is not YAML ({' '.join(str(error).split())}).") from error


def _copied(value: Any) -> Any:
    """A copy in which no two settings are one object, as those of a YAML file's anchors are and a deep copy's stay."""
    if isinstance(value, Mapping):
        return {key: _copied(one) for key, one in value.items()}
    return [_copied(one) for one in value] if isinstance(value, list) else value


def _numbers(value: Any) -> Any:
    """What YAML read, with numbers such as 1e-4, which it takes for text, as numbers."""
    if isinstance(value, dict):
        return {key: _numbers(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_numbers(one) for one in value]
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    return value


def _entries(plan: Mapping[str, Any]) -> list[Any]:
    """The plan's stages, each a mapping with the name of one and with training arguments, if any, by name."""
    entries = plan.get("stages")
    elsewhere = [str(name) for name in plan if name in NAMES_ELSEWHERE]
    if entries is None and elsewhere:
        raise ValueError(
            f"The plan has no stages, but {', '.join(elsewhere[:3])}, as the configuration of an experiment of llm2vec. Such "
            "a one is a stage here: {model: org/decoder, stages: [{stage: mntp, data: texts.txt}]} (or simcse, or supervised). The page Coming from llm2vec "
            "(docs/coming_from/llm2vec.md) says what each of its keys is, and training_scripts has the plans of published models."
        )
    if not isinstance(entries, list) or not entries:
        raise ValueError(
            "The plan has no stages; it needs a list of them, each with its name: stages: [{stage: mntp}]."
        )
    for entry in entries:
        if not isinstance(entry, Mapping) or entry.get("stage") not in tuple(STAGES):
            name = entry.get("stage") if isinstance(entry, Mapping) else None
            found = f"is {name!r}{closest(str(name), list(STAGES))}" if name else f"is {entry!r}."
            raise ValueError(f"A stage of the plan {found} Its stage must be one of {', '.join(STAGES)}.")
    if not all(isinstance(one.get("training", {}), Mapping) for one in (plan, *entries)):
        raise ValueError("The plan's training must be a mapping of training arguments, such as {max_steps: 100}.")
    return entries
