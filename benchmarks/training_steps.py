"""Training steps: this library beside padded batches and stock losses, interleaved, on the same weights and texts.

    python -m benchmarks.training_steps               # docs/benchmarks/training_steps.{json,md}
    python -m benchmarks.training_steps --tasks mntp --dtypes float32
    python -m benchmarks.training_steps --tasks simcse supervised --short tailed --output docs/benchmarks/tailed
    python -m benchmarks.training_steps --shape smollm2 --dtypes float32 --batch 32 --output docs/benchmarks/smollm2

A step tokenises a batch, runs the loss forward and backward, and lets AdamW change a LoRA adapter. Every contender has a
process of its own. Losses and gradients are compared first, without dropout, and the command fails where they differ.
Leave the machine alone while it runs.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.encoding import DATA, FOLDERS, ROOT
from benchmarks.side_by_side.machine import command, describe_machine, sentence
from benchmarks.side_by_side.process import Asked, Process, Turns, interpreter
from benchmarks.side_by_side.report import DOCS, write_page
from benchmarks.side_by_side.shapes import SHAPES, build, build_real, tokenizer
from benchmarks.side_by_side.texts import Source, Texts, save
from st_llm2vec.proof.tolerances import STEPS
from tests.real.models import NAMES

TASKS = {
    "simcse": "SimCSE, short texts",
    "supervised": "supervised, pairs of short texts",
    "scored": "scores, pairs of short texts",
    "mntp": "MNTP, long-tailed texts",
    "mntp-long": "MNTP, texts of 400 to 512 tokens",
}
BATCH = {"simcse": 128, "supervised": 128, "scored": 128, "mntp": 32, "mntp-long": 32}
ON_A_CPU = ["simcse", "supervised", "scored", "mntp"]
BATCHES = 8
SHORT = {
    "sentences": "Short texts are whole sentences of SNLI, pairs are premises and what they entail",
    "tailed": "Short texts are cut from running text to lengths that are log-normal: 15 tokens in the mean, 64 at most",
}
SUBJECT = "benchmarks.side_by_side.trainers:Trainer"
LIMITS = {"float32": STEPS.full, "bfloat16": STEPS.half}
"""Largest difference of a loss, in parts of it where it is above one, and cosine distance of its gradients, from those of
the padded step."""


def write_rows(task: str, short: str, texts: Texts, batch: int, folder: Path) -> str:
    """The rows of a task, enough for all batches; a row is a list of its columns."""
    count, whole = batch * BATCHES, short == "sentences"
    rows: list[tuple[str, ...]]
    if task in ("supervised", "scored"):
        rows = texts.pairs(count) if whole else texts.tailed_pairs(count)
    elif task == "simcse":
        rows = [(text,) for text in (texts.sentences(count) if whole else texts.short_tailed(count))]
    else:
        rows = [(text,) for text in (texts.long_tailed(count) if task == "mntp" else texts.long(count))]
    return save(f"train-{task}", rows, folder)


def measure(workers: dict[str, Asked], settings: dict[str, Any], rows: str, batch: int, rounds: int) -> dict[str, Any]:
    """Let ``plain`` and ``ours`` take turns, a step on the same batch each.

    Args:
        workers: By name.
        settings: What each loads.
        rows: The file with the texts.
        batch: Rows in a step.
        rounds: Steps that count, after one that does not.

    Returns:
        A row for each of them, and what failed.
    """
    turns = Turns(workers)
    job = {"rows": rows, "number": 0, "batch": batch}
    loaded = turns.once(do="load", subject=SUBJECT, settings=settings.__getitem__)
    checks = turns.once(do="run", job={**job, "check": True})
    turns.once(do="run", job=job)
    answers = [turns.once(do="run", job={**job, "number": number % BATCHES}) for number in range(1, rounds + 1)]
    peaks = turns.once(do="run", job=job, memory=True)
    turns.close()
    found = {}
    for name in sorted(peaks):
        steps = [answer[name] for answer in answers]
        found[name] = {
            "dtype": loaded[name]["about"]["dtype"],
            "seconds": [step["seconds"] for step in steps],
            "tokens": statistics.median(step["tokens"] for step in steps),
            "tokens_per_second": statistics.median(step["tokens"] / step["seconds"] for step in steps),
            "peak_mib": peaks[name]["peak_mib"],
            "loss": checks[name]["loss"],
            "gradient_norm": checks[name]["gradient_norm"],
        }
    result: dict[str, Any] = {"contenders": found, "failed": turns.failed}
    if len(found) == 2:
        result |= compare(found["plain"], found["ours"])
        result["gradient_distance"] = cosine_distance(checks["plain"]["gradient"], checks["ours"]["gradient"])
    return result


def compare(plain: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Median of the steps' ratios of speed, ratio of memory, and difference of the losses."""
    pairs = zip(plain["seconds"], ours["seconds"], strict=True)
    both = plain["peak_mib"] is not None and ours["peak_mib"] is not None
    return {
        "speed_ratio": statistics.median(theirs / own for theirs, own in pairs),
        "memory_ratio": ours["peak_mib"] / plain["peak_mib"] if both else None,
        "loss_difference": abs(ours["loss"] - plain["loss"]),
    }


def cosine_distance(first: list[float], second: list[float]) -> float:
    one, other = np.array(first), np.array(second)
    return float(1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def problems(results: list[dict[str, Any]]) -> list[str]:
    """A sentence for each pair whose losses or gradients differ."""
    return [
        f"{row['task']} in {row['dtype']}: the losses differ by {row['loss_difference']:.1e} and the gradients by a cosine "
        f"distance of {row['gradient_distance']:.1e}; {LIMITS[row['dtype']]:.0e} is allowed."
        for row in results
        if "speed_ratio" in row and not max(_relative(row), row["gradient_distance"]) <= LIMITS[row["dtype"]]
    ]


def _relative(row: dict[str, Any]) -> float:
    return float(row["loss_difference"] / max(1.0, row["contenders"]["plain"]["loss"]))


def page(found: dict[str, Any]) -> list[str]:
    """The page that docs/benchmarks/training_steps.md is."""
    batches = ", ".join(f"{size} for {task}" for task, size in found["batch"].items())
    return [
        "# Training steps, side by side",
        "",
        f"Written by `{found['command']}`.",
        "A step tokenises, runs forward and backward, and lets AdamW change a LoRA adapter (rank 16, all linear layers, dropout",
        f"0.05); shape `{found['shape']}`; rows in a batch: {batches}. *plain*: stock losses on a plain",
        "`SentenceTransformer`, `MultipleNegativesRankingLoss` and for scores `CoSENTLoss`, and for MNTP this library's loss, padded. *ours*: this library's encoder and losses.",
        f"Medians of {found['rounds']} interleaved steps, each in a process of its own; tokens are the texts' own, without",
        "padding; *peak MiB* is above the loaded model. Losses and gradients are compared without dropout.",
        f"{SHORT[found['short']] if found['real'] else 'Texts are generated'}.",
        "",
        sentence(found["machine"]),
        "",
        *(f"**{problem}**\n" for problem in found["problems"]),
        *table(found["results"]),
    ]


def table(results: list[dict[str, Any]]) -> list[str]:
    """The table of the page."""
    lines = [
        "| step | dtype | tokens/s plain | ours | ratio | peak MiB plain | ours | ratio | loss plain | difference | gradients |",
        "|---" * 11 + "|",
    ]
    for row in results:
        if "speed_ratio" not in row:
            reasons = "; ".join(f"{name}: {why}" for name, why in row["failed"].items())
            lines.append(f"| {TASKS[row['task']]} | {row['dtype']} | not measured: {reasons} |" + " |" * 8)
            continue
        plain, ours = row["contenders"]["plain"], row["contenders"]["ours"]
        memory = ("", "", "")
        if row["memory_ratio"] is not None:
            memory = (f"{plain['peak_mib']:,.0f}", f"{ours['peak_mib']:,.0f}", f"{row['memory_ratio']:.2f}")
        cells = [
            TASKS[row["task"]],
            row["dtype"],
            *(f"{one['tokens_per_second']:,.0f}" for one in (plain, ours)),
            f"{row['speed_ratio']:.2f}",
            *memory,
            f"{plain['loss']:.4f}",
            f"{row['loss_difference']:.0e}",
            f"{row['gradient_distance']:.0e}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=[*SHAPES, *NAMES], default="base", help="random weights, or a real decoder")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=ON_A_CPU)
    parser.add_argument(
        "--dtypes", nargs="+", choices=LIMITS, default=["bfloat16"], help="padded steps in float32 need more than 24 GB"
    )
    parser.add_argument("--short", choices=SHORT, default="sentences", help="what the short texts are")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, help="rows in a step, for a look; 128, and 32 for MNTP, if not given")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmarks")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--output", type=Path, default=DOCS)
    given = parser.parse_args(arguments)
    given.work = given.work.resolve()
    return given


def main(arguments: list[str] | None = None) -> None:
    given = parse(arguments)
    texts = Texts(Source(given.data), tokenizer())
    made = build if given.shape in SHAPES else build_real
    folder = str(made(given.shape, "llm2vec", given.work))
    found: dict[str, Any] = {
        "command": command("benchmarks.training_steps", FOLDERS, arguments),
        "machine": describe_machine(given.threads),
        "rounds": given.rounds,
        "shape": given.shape,
        "short": given.short,
        "real": texts.source.real,
        "batch": {task: given.batch or BATCH[task] for task in given.tasks},
        "results": [],
    }
    for task, batch in found["batch"].items():
        rows = write_rows(task, given.short, texts, batch, given.work / "texts")
        for dtype in given.dtypes:
            workers: dict[str, Asked] = {
                name: Process(interpreter(None), given.threads, given.work / "logs" / f"{task}-{dtype}-{name}.log")
                for name in ("plain", "ours")
            }
            shared = {"folder": folder, "task": task, "dtype": dtype}
            settings = {name: {**shared, "ours": name == "ours"} for name in workers}
            result = {"task": task, "dtype": dtype, **measure(workers, settings, rows, batch, given.rounds)}
            found["results"].append(result)
            print(f"{task}, {dtype}: {result.get('speed_ratio', result['failed'])}", flush=True)
    found["problems"] = problems(found["results"])
    write_page("training_steps", found, page(found), given.output)
    if found["problems"]:
        raise SystemExit("\n".join(found["problems"]))


if __name__ == "__main__":
    main()
