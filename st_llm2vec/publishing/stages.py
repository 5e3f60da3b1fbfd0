"""What the records of an encoder's stages tell its reader: instructions, data, settings, and what chose the checkpoint."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from st_llm2vec.publishing.names import public_name
from st_llm2vec.recipe.manifest import Manifest

Stages = Sequence[Mapping[str, Any]]
ROLES = ("query", "document")


@dataclass(frozen=True)
class DevSet:
    """What a stage was evaluated on while it was trained.

    Args:
        name: The file's name, without its folder, or the data set's on the Hub.
        stage: The stage.
        chose: Whether its score chose the checkpoint.
        score: The metric before and after; empty where it was not recorded.
    """

    name: str
    stage: str
    chose: bool
    score: str


def stages_of(manifest: Manifest | None) -> list[Mapping[str, Any]]:
    """The records of an encoder's stages, without what is none."""
    return [stage for stage in manifest.stages if isinstance(stage, Mapping)] if manifest is not None else []


def instructions_of(stages: Stages) -> dict[str, list[str]]:
    """The bare instructions that an encoder was trained with, of ``query`` and of ``document``, each once.

    Args:
        stages: The records. Those of earlier versions have them among their data only.
    """
    told = [stage.get("instructions") or _of_data(stage) for stage in stages]
    return {
        role: list(dict.fromkeys(text.strip() for one in told for text in one.get(role, ()) if text and text.strip()))
        for role in ROLES
    }


def _of_data(stage: Mapping[str, Any]) -> dict[str, list[Any]]:
    data = stage.get("data")
    entries = [one for one in (data if isinstance(data, list) else [data]) if isinstance(one, Mapping)]
    queries = [one.get("query_instruction") for one in entries]
    documents = [one.get("query_instruction" if one.get("symmetric") else "document_instruction") for one in entries]
    return {"query": queries, "document": documents}


def untold(
    stages: Stages, prompts: Mapping[str, str | None], config_prompts: Mapping[str, str]
) -> dict[str, list[str]]:
    """The instructions of :func:`instructions_of` that an encoder was trained with and does not keep.

    Args:
        stages: The records.
        prompts: The encoder's prompts.
        config_prompts: The same as its manifest has them, bare.

    Returns:
        Those of a role of which the encoder keeps none; empty for a role of which it keeps one.
    """
    kept = {(text or "").strip() for text in (*prompts.values(), *config_prompts.values())}
    trained = instructions_of(stages)
    return {role: [] if kept & set(texts) else texts for role, texts in trained.items()}


def untaught(stages: Stages, prompts: Mapping[str, str | None]) -> list[str]:
    """The roles whose saved instruction no pair was trained with, though there were pairs.

    Args:
        stages: The records.
        prompts: The encoder's prompts.

    Returns:
        Of ``query`` and ``document`` those.
    """
    if not any(stage.get("method") == "Supervised" for stage in stages):
        return []
    trained = instructions_of(stages)
    return [role for role in ROLES if (prompts.get(role) or "").strip() and not trained[role]]


def trained_length(stages: Stages) -> int | None:
    """The longest input of training, in tokens, where every stage had one of its own; else ``None``.

    Args:
        stages: The records.
    """
    settings = [one.get("settings") for one in stages]
    lengths = [one.get("max_length") if isinstance(one, Mapping) else None for one in settings]
    known = [length for length in lengths if isinstance(length, int)]
    return max(known) if known and len(known) == len(lengths) else None


def dev_set(stage: Mapping[str, Any]) -> DevSet | None:
    """What a stage was evaluated on while it was trained; ``None`` if nothing is recorded.

    Args:
        stage: Its record.
    """
    settings, found = stage.get("settings"), stage.get("evaluation")
    settings = settings if isinstance(settings, Mapping) else {}
    names = [public_name(name) for name in data_names(settings.get("evaluation"))]
    if not names and not isinstance(found, Mapping):
        return None
    called = str(stage.get("name") or "without a name")
    best = settings.get("keep_best")
    chose = settings.get("patience") is not None if best is None else bool(best)
    curve = found.get("curve") if isinstance(found, Mapping) else None
    if curve is not None and len({score for step, score in curve if step}) < 2:
        chose = False  # which scores that are all equal, or one alone, cannot do
    return DevSet(" and ".join(names) or f"dev set of the stage {called}", called, chose, _score(found) or "")


def data_names(data: Any) -> list[str]:
    """What a stage's data call themselves, in whichever form they were recorded."""
    entries = data if isinstance(data, list) else [data]
    keys = ("name", "path", "mixture")
    names = [next(filter(None, map(one.get, keys)), None) if isinstance(one, Mapping) else one for one in entries]
    return [name for name in names if isinstance(name, str)]


def stage_settings(stage: Mapping[str, Any]) -> dict[str, str]:
    """What is told of a stage, each value on one line of a table.

    Args:
        stage: Its record in the manifest.
    """
    found = {name: stage.get(name) for name in ("method", "source", "steps", "merged", "data")}
    found |= {"rows": _rows(stage.get("rows"))}
    found |= {"score": _score(stage.get("evaluation")), "took": _took(stage.get("took"))}
    if isinstance(found["merged"], bool):
        found["merged"] = "yes" if found["merged"] else "no"
    settings = stage.get("settings")
    found |= settings if isinstance(settings, Mapping) else {}
    return {
        str(name): on_one_line(value if isinstance(value, str) else quoted(value))
        for name, value in found.items()
        if value is not None and value != {}
    }


def _rows(found: Any) -> str | None:
    """How many rows of training data, of each source where there are several."""
    if not isinstance(found, Mapping) or not found:
        return None
    if len(found) == 1:
        return f"{next(iter(found.values())):,}"
    return f"{sum(found.values()):,} ({', '.join(f'{name} {count:,}' for name, count in found.items())})"


def _score(found: Any) -> str | None:
    """What evaluating while training found."""
    if not isinstance(found, Mapping) or not {"metric", "after", "step"} <= set(found):
        return None
    before = "" if found.get("before") is None else f"{_rounded(found['before'])} before, "
    return f"{found['metric']}: {before}{_rounded(found['after'])} after step {found['step']}"


def _rounded(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _took(found: Any) -> str | None:
    """How long training took, and how much memory."""
    if not isinstance(found, Mapping) or not all(
        isinstance(found.get(name), int | float) for name in ("seconds", "memory")
    ):
        return None
    return f"{datetime.timedelta(seconds=round(found['seconds']))}, at most {found['memory'] / 2**30:.1f} GiB of memory"


def quoted(value: Any) -> str:
    """A value as JSON, and so as Python reads a text."""
    return json.dumps(value, ensure_ascii=False, default=str)


def on_one_line(text: str) -> str:
    """A text as a cell of a table can hold it."""
    return text.replace("\n", "\\n").replace("|", "\\|")
