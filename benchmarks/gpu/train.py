"""Training steps with LoRA at 1.3B: this library beside padded batches and stock losses."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks import training_steps
from benchmarks.side_by_side.process import Asked, InProcess
from benchmarks.side_by_side.shapes import build, tokenizer
from benchmarks.side_by_side.texts import Source, Texts

TINY_BATCH = 6
TASKS = ("simcse", "supervised", "mntp", "mntp-long")


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """A row for each task, in bfloat16."""
    shape = "tiny" if given.tiny else "1.3b"
    texts, folder = Texts(Source(given.data), tokenizer()), str(build(shape, "llm2vec", given.work))
    results = []
    for task in TASKS[:3] if given.tiny else TASKS:
        batch = TINY_BATCH if given.tiny else training_steps.BATCH[task]
        rows = training_steps.write_rows(task, "sentences", texts, batch, given.work / "texts")
        workers: dict[str, Asked] = {name: InProcess() for name in ("plain", "ours")}
        shared = {"folder": folder, "task": task, "dtype": "bfloat16", "device": given.device}
        settings = {name: {**shared, "ours": name == "ours"} for name in workers}
        found = training_steps.measure(workers, settings, rows, batch, given.rounds)
        results.append({"task": task, "dtype": "bfloat16", "batch": batch, **found})
        print(f"{task}: {found.get('speed_ratio', found['failed'])}", flush=True)
    failed = [f"{row['task']}, {name}: {why}" for row in results for name, why in row["failed"].items()]
    return {"shape": shape, "results": results, "problems": [*training_steps.problems(results), *failed]}
