"""The page that docs/benchmarks/gpu.md is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import training_steps
from benchmarks.side_by_side.machine import sentence
from benchmarks.side_by_side.report import encoding_sections

Found = Mapping[str, Any]


def lines(found: Found) -> list[str]:
    """All sections that were measured, with the sentences about what failed."""
    rates = ", ".join(f"{name} {rate / 1e12:,.1f} TFLOP/s" for name, rate in found["matmul"].items())
    made = [
        "# On a GPU",
        "",
        f"Written by `{found['command']}`.",
        "",
        sentence(found["machine"]),
        "",
        f"One big matrix product: {rates}; a copy within its memory: {found['copy'] / 1e9:,.0f} GB/s.",
        "",
    ]
    for name, section in found["sections"].items():
        made += [f"## {TITLES[name]}", ""]
        made += [f"- **{problem}**" for problem in section["problems"]]
        made += [""] if section["problems"] else []
        if "skipped" in section:
            made += [f"Not run: {section['skipped']}.", ""]
        elif len(section) > 1:
            made += WRITERS[name](section)
        made += [f"{found['seconds'][name]:.0f} s.", ""]
    return made[:-1]


def _families(section: Found) -> list[str]:
    columns = [name for name in section["rows"][0] if name not in ("family", "recipe", "dtype")]
    rows = [
        f"| {row['family']} | `{row['recipe']}` | {row['dtype']} | "
        + " | ".join(f"{row[name]:.0e}" for name in columns)
        + " |"
        for row in section["rows"]
    ]
    return [
        "Small decoders with random weights, heads of 64, 96 texts of one word to about 200 tokens. The largest cosine",
        "distance between a text's vectors: *rows* are read without padding, *padded* by plain Sentence Transformers on this",
        "GPU, *exact* by it in float32 on the CPU, *alone* one text a call. `prompteol` is causal and shares a prefix.",
        "",
        "| family | recipe | dtype | " + " | ".join(columns) + " |",
        "|---" * (3 + len(columns)) + "|",
        *rows,
        "",
    ]


def _encoding(section: Found) -> list[str]:
    return [
        "Random weights. All contenders take turns in one process, on the same weights and texts; medians, and ratios of the",
        "same rounds. *share of matmul*: what the texts' own tokens take to compute, of what one big product reaches in the",
        "same rounds. *peak MiB*: above the loaded models. *cosine distance*: the largest from the first row.",
        "",
        *(line.replace("## Texts", "### Texts") for line in encoding_sections(section)),
    ]


def _training(section: Found) -> list[str]:
    return [
        f"Shape `{section['shape']}`, LoRA of rank 16 on all linear layers, dropout 0.05, AdamW. *plain*: stock losses on a",
        "plain `SentenceTransformer`, and for MNTP this library's loss on one, padded. Losses and gradients are compared",
        "without dropout. Medians of interleaved steps; tokens are the texts' own; *peak MiB* is above the loaded models.",
        "",
        *training_steps.table(section["results"]),
        "",
    ]


def _learning(section: Found) -> list[str]:
    tasks = section.get("tasks", ())
    if not tasks:
        return []
    rates = ", ".join(f"{name} {rate:g}" for name, rate in section["rates"].items())
    rows = [
        f"| {name} | "
        + " | ".join(f"{row[task]:.1f}" for task in tasks)
        + (f" | {row['seconds']:.0f} |" if "seconds" in row else " | |")
        for name, row in section["rows"].items()
    ]
    counts = section["counts"]
    return [
        f"`llm2vec` from {section['decoder']}, {section['steps']:,} steps a stage, {section['learns']}, bfloat16 autocast, linear",
        f"decay; learning rates: {rates}. MNTP: blocks of 128, batch 128; SimCSE: batch 128, attention dropout 0.3;",
        f"supervised: batch 128. {counts['sentences']:,} sentences, {counts['triplets']:,} triplets, {counts['paraphrases']:,}",
        "pairs of captions, as in [learning.md](../learning.md). One seed.",
        "",
        "| encoder | " + " | ".join(tasks) + " | s |",
        "|---" * (2 + len(tasks)) + "|",
        *rows,
        "",
    ]


TITLES = {
    "families": "Rows without padding and padded batches",
    "training": "Training steps",
    "encoding": "Encoding at the size of Sheared-LLaMA-1.3B",
    "encoding-7b": "Encoding at the size of Llama-2-7B",
    "learning": "Learning",
}
WRITERS: dict[str, Callable[[Found], list[str]]] = {
    "families": _families,
    "training": _training,
    "encoding": _encoding,
    "encoding-7b": _encoding,
    "learning": _learning,
}
