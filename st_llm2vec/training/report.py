"""The report of a run: data, settings, curve, before and after, time and memory, on one page."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from st_llm2vec.encoding.dtype import processor_name
from st_llm2vec.folder.disk_errors import disk_errors
from st_llm2vec.folder.staging import replacing_file
from st_llm2vec.publishing.stages import stage_settings
from st_llm2vec.training.curve import Log, draw, mean_loss, points, sparkline

REPORT = "training_report.md"
PICTURE = "training_curve.png"
GIB = 2**30
ROWS = 12
PACKAGES = ("torch", "transformers", "sentence-transformers", "peft")


def evaluated(log: Log, metric: str, best_step: int | None) -> dict[str, Any] | None:
    """What evaluating while training found, for the record of a stage.

    Args:
        log: The trainer's.
        metric: The score's name there.
        best_step: The step whose weights were kept; ``None`` if those are the last ones.

    Returns:
        The score ``before`` the first step, if it was taken, and ``after``, at ``step``, with all of the ``curve``; ``None``
        without an evaluation.
    """
    found = points(log, metric)
    if not found:
        return None
    step = best_step if best_step is not None and best_step in found else max(found)
    scores = {"metric": metric.removeprefix("eval_"), "before": found.get(0), "after": found[step], "step": step}
    return {**scores, "curve": [[at, value] for at, value in found.items()]}


def took(log: Log) -> dict[str, Any]:
    """The seconds of training, in all the processes that continued it, and the most memory that one held, in bytes."""
    seconds = [entry["seconds"] for entry in log if "seconds" in entry]
    memory = [entry["memory"] for entry in log if "memory" in entry]
    return {"seconds": max(seconds, default=None), "memory": max(memory, default=None)}


def write_report(
    folder: str | Path, stages: Sequence[Mapping[str, Any]], log: Log, metric: str, files: Mapping[str, Any]
) -> None:
    """Write the report of a run, and its curve as a PNG where matplotlib is installed.

    Args:
        folder: The folder of the trained encoder.
        stages: The records of all its stages, this run's being the last.
        log: The trainer's, from its state, so that a continued run's is whole.
        metric: The score's name in the log.
        files: The size and checksum of the local files that were read, by path.

    Raises:
        OSError: If they cannot be written.
    """
    folder, record = Path(folder), stages[-1]
    target = folder / REPORT
    with disk_errors(target):
        drawn = draw(folder / PICTURE, log, metric, metric.removeprefix("eval_").replace("_", " "))
        parts = [
            [f"# Training: {record['name']}", "", f"From `{record['from']}`."],
            _stages(stages),
            _curve(record, log, drawn),
            _data(record, files),
            ["## Settings", "", *_table(("setting", "value"), stage_settings(record).items())],
            _machine(record, log),
        ]
        with replacing_file(target) as fresh:
            fresh.write_text("\n\n".join("\n".join(part) for part in parts if part) + "\n", encoding="utf-8")


def _stages(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = []
    for stage in stages:
        score, spent = stage.get("evaluation") or {}, stage.get("took") or {}
        scores = (score.get("metric", ""), _number(score.get("before")), _number(score.get("after")))
        cost = (_time(spent.get("seconds")), _memory(spent.get("memory")))
        rows.append((stage.get("name", ""), stage.get("steps", ""), *scores, *cost))
    return _table(("stage", "steps", "score", "before", "after", "time", "memory"), rows)


def _curve(record: Mapping[str, Any], log: Log, drawn: bool) -> list[str]:
    """The losses and scores of the run, a row for each evaluation, or for a dozen of the log's lines."""
    losses, rates, score = points(log, "loss"), points(log, "learning_rate"), record.get("evaluation")
    lines = ["## Curve", ""]
    if drawn:
        lines += [f"![Loss and score by step]({PICTURE})", ""]
    if losses:
        lines += [
            f"Loss: `{sparkline(list(losses.values()))}`, {_number(mean_loss(log))} in the mean of all steps.",
            "",
        ]
    if score is not None:
        spark = sparkline([value for _, value in score["curve"]])
        lines += [f"{score['metric']}: `{spark}`, {score['after']:.4g} after step {score['step']}.", ""]
    elif not losses:
        return [*lines, "No loss was logged (logging_strategy)."]
    scores = dict(score["curve"]) if score is not None else {}
    steps = list(scores or losses)
    shown = list(scores) or sorted({*steps[:: max(1, len(steps) // ROWS)], steps[-1]})
    columns = [losses, rates, *([scores] if scores else [])]
    header = ("step", "loss", "learning rate", *([str(score["metric"])] if score is not None else []))
    return lines + _table(header, [(step, *(_number(one.get(step)) for one in columns)) for step in shown])


def _data(record: Mapping[str, Any], files: Mapping[str, Any]) -> list[str]:
    rows = [(name, f"{count:,} rows") for name, count in record["rows"].items()]
    rows += [(f"`{name}`", f"{one['bytes']:,} bytes, sha256 {one['sha256'][:16]}…") for name, one in files.items()]
    return ["## Data", "", *_table(("data", "size"), rows)]


def _machine(record: Mapping[str, Any], log: Log) -> list[str]:
    rates = sorted(entry["tokens_per_second"] for entry in log if "tokens_per_second" in entry)
    rate = f"{rates[len(rates) // 2]:,} tokens a second in the median; " if rates else ""
    processes = f"{record['processes']} process" + ("es" if record["processes"] > 1 else "")
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return ["## Machine", "", f"{rate}{processes} on {processor_name()}, {platform.system()}; {packages}."]


def _table(header: Sequence[str], rows: Any) -> list[str]:
    lines = [f"| {' | '.join(map(str, line))} |" for line in (header, *rows)]
    return [lines[0], f"|{'---|' * len(header)}", *lines[1:]]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else str(datetime.timedelta(seconds=round(seconds)))


def _memory(size: int | None) -> str:
    return "" if size is None else f"{size / GIB:.1f} GiB"
