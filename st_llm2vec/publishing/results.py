"""Evaluation results, from wherever they come, as the Hub's metadata has them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.publishing.stages import dev_set, stages_of

Results = Sequence[Mapping[str, Any]] | Mapping[str, Any]


def read_results(path: str | Path) -> list[EvalResult]:
    """Read results from a JSON file, see :func:`to_results`.

    Raises:
        ValueError: If it is not JSON, or none of the forms.
    """
    try:
        return to_results(json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(f"The results {path} cannot be read: {error}.") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"The results {path} are not valid JSON: {error}.") from error


def to_results(data: Results) -> list[EvalResult]:
    """Results in one of three forms, or a list of them.

    Args:
        data: ``{"task": ..., "dataset": ..., "metric": ..., "value": ...}``; a result of MTEB (``task_name`` and
            ``scores``); or the metrics of a Sentence Transformers evaluator, name to number.

    Returns:
        The results.

    Raises:
        ValueError: If it is none of them.
    """
    entries = [data] if isinstance(data, Mapping) else list(data)
    found: list[EvalResult] = []
    for entry in entries:
        if not isinstance(entry, Mapping):
            raise ValueError(f"A result must be a mapping, not {entry!r}.")
        if "task_name" in entry and "scores" in entry:
            found += _from_mteb(entry)
        elif {"dataset", "metric", "value"} <= set(entry):
            task = str(entry.get("task") or "sentence-similarity")
            found.append(_result(str(entry["dataset"]), str(entry["metric"]), entry["value"], task=task))
        elif entry and all(isinstance(value, int | float) for value in entry.values()):
            found += [_result("evaluator", name, value) for name, value in entry.items()]
        else:
            raise ValueError(
                f"The result {dict(entry)!r} is none of: task, dataset, metric and value; MTEB's task_name and scores; "
                "metrics by name."
            )
    return found


def results_of(encoder: TextEncoder) -> list[EvalResult]:
    """What evaluators found while the encoder was trained in this process, and what its stages recorded."""
    found: list[EvalResult] = []
    evaluated = getattr(encoder.model_card_data, "eval_results_dict", None) or {}
    for evaluator, metrics in evaluated.items():
        name = str(getattr(evaluator, "name", "") or type(evaluator).__name__)
        primary = getattr(evaluator, "primary_metric", None)
        chosen = {primary: metrics[primary]} if primary in metrics else metrics
        found += [_result(name, str(key).removeprefix(f"{name}_"), value) for key, value in chosen.items()]
    for stage in stages_of(encoder.manifest):
        metrics, evaluated_on = stage.get("evaluation"), dev_set(stage)
        if isinstance(metrics, Mapping) and evaluated_on is not None:
            if {"metric", "after"} <= set(metrics):  # what evaluating while training recorded
                metrics = {str(metrics["metric"]): metrics["after"]}
            found += [_result(evaluated_on.name, *one) for one in metrics.items() if isinstance(one[1], int | float)]
    return found


def _from_mteb(entry: Mapping[str, Any]) -> list[EvalResult]:
    found = []
    for split, rows in entry["scores"].items():
        for row in rows:
            subset = row.get("hf_subset", "default")
            name = f"MTEB {entry['task_name']}" + (f" ({subset})" if subset != "default" else "")
            found.append(_result(name, "main_score", row["main_score"], split))
    return found


def _result(
    dataset: str, metric: str, value: Any, split: str | None = None, task: str = "sentence-similarity"
) -> EvalResult:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"The result {metric} on {dataset} is {value!r}, not a number.")
    return EvalResult(
        task_type=task,
        dataset_type=dataset.lower().replace(" ", "-"),
        dataset_name=dataset,
        dataset_split=split,
        metric_type=metric,
        metric_value=float(value),
    )
