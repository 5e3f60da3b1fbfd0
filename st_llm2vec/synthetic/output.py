"""What is written: rows of each group, the mixture that trains on them, how they were made, and what became of each request."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from st_llm2vec.folder.staging import replacing_file
from st_llm2vec.synthetic.chat_models import ChatModel
from st_llm2vec.synthetic.filters import can_tell_languages
from st_llm2vec.synthetic.groups import FILE, prompts_digest
from st_llm2vec.synthetic.made import Made
from st_llm2vec.synthetic.settings import SyntheticSettings

MIXTURE, REPORT, PROMPTS = "mixture.yaml", "report.json", "prompts.yaml"
SAMPLES = 3


@dataclass(frozen=True)
class Prices:
    """What a million tokens cost.

    Args:
        read: Those that the model reads.
        written: Those that it writes.
    """

    read: float = 0.0
    written: float = 0.0

    def cost(self, tokens: Mapping[str, int]) -> float:
        """What tokens cost."""
        return (tokens.get("input", 0) * self.read + tokens.get("output", 0) * self.written) / 1e6


def report_of(
    model: ChatModel,
    settings: SyntheticSettings,
    tasks: Mapping[str, Made],
    examples: Mapping[str, Made],
    prices: Prices | None,
) -> dict[str, Any]:
    """What was asked, what came of it, and how it was made.

    Args:
        model: The chat model.
        settings: What was generated.
        tasks: What came of brainstorming, by group.
        examples: What came of the examples, by group.
        prices: What tokens cost.
    """
    tokens: Counter[str] = Counter()
    for made in [*tasks.values(), *examples.values()]:
        tokens.update(made.tokens)
    wanted = settings.rows_of()
    rows = {name: len(examples[name].kept) if name in examples else 0 for name in wanted}
    unanswered = sum(made.unanswered for made in [*tasks.values(), *examples.values()])
    return {
        "complete": rows == wanted,
        "rows": sum(rows.values()),
        "wanted": sum(wanted.values()),
        "requests": sum(made.requests for made in [*tasks.values(), *examples.values()]),
        "unanswered": unanswered,
        "tokens": dict(tokens),
        "cost": round(prices.cost(tokens), 4) if prices is not None else None,
        "seconds of answers": round(sum(made.seconds for made in [*tasks.values(), *examples.values()]), 1),
        "tasks": {name: _counted(made) for name, made in tasks.items()},
        "examples": {name: _counted(made) for name, made in examples.items()},
        "made with": {
            "model": model.name,
            "reached": model.kind,
            **model.about,
            "settings": asdict(settings),
            "prompts": prompts_digest(),
            "languages told by": "py3langid" if can_tell_languages() else None,
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        },
    }


def write_data(
    folder: Path,
    model: ChatModel,
    examples: Mapping[str, Made],
    report: dict[str, Any],
    settings: SyntheticSettings,
    licence: str | None,
) -> None:
    """Write rows, mixture, prompts and report; each file is there whole or as it was.

    Raises:
        ValueError: If there is no row; the report is written.
        OSError: If the disk is full.
    """
    sources = []
    for name, made in examples.items():
        file = folder / f"{name}.jsonl"
        if made.kept:
            _write(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made.kept))
            sources.append(_source(made, file, model.name, licence))
        else:
            file.unlink(missing_ok=True)
    _write(folder / REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    _write(folder / PROMPTS, FILE.read_text(encoding="utf-8"))
    if not sources:
        (folder / MIXTURE).unlink(missing_ok=True)
        raise ValueError(
            f"No row is left of {report['requests']:,} requests; {folder / REPORT} says what became of them, and has answers "
            "to look at. The answers are kept."
        )
    mixture = {"description": f"Synthetic data by {model.name}, {report['rows']:,} rows.", "sources": sources}
    _write(folder / MIXTURE, yaml.safe_dump(mixture, sort_keys=False, allow_unicode=True, width=120))


def _source(made: Made, file: Path, model: str, licence: str | None) -> dict[str, Any]:
    group = made.group
    source: dict[str, Any] = {"name": f"synthetic-{group.name}", "task": group.task, "path": file.name}
    source["query_instruction"] = group.instruction
    source |= {"symmetric": group.symmetric} if group.symmetric is not None else {}
    source |= {"licence": licence} if licence is not None else {}
    return {**source, "note": f"Written by {model}; {REPORT} says how, {PROMPTS} has what it was asked."}


def _counted(made: Made) -> dict[str, Any]:
    counted: dict[str, Any] = {
        "wanted": made.wanted,
        "kept": len(made.kept),
        "requests": made.requests,
        "unanswered": made.unanswered,
        "unreadable": dict(made.unreadable),
        "left out": dict(made.filtered),
    }
    step = max(1, len(made.kept) // SAMPLES)
    return {**counted, "samples": made.kept[::step][:SAMPLES], "left out, samples": made.left_out}


def _write(file: Path, text: str) -> None:
    with replacing_file(file) as fresh:
        fresh.write_text(text, encoding="utf-8", errors="backslashreplace")
