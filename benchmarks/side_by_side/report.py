"""The pages that docs/benchmarks/ holds: JSON for programs, Markdown for readers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.side_by_side.contenders import CONTENDERS
from benchmarks.side_by_side.machine import sentence

DOCS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
COLUMNS = (
    "contender",
    "median s",
    "tokens/s",
    "× ST float32",
    "× ST same dtype",
    "× llm2vec float32",
    "× llm2vec same dtype",
    "share of matmul",
    "peak MiB",
    "first pass s",
    "cosine distance",
)


def write_page(name: str, found: Mapping[str, Any], lines: Sequence[str], folder: Path = DOCS) -> None:
    """Write both files, the old ones replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def encoding_page(found: Mapping[str, Any]) -> list[str]:
    """The page of ``benchmarks.encoding``."""
    lines = [
        "# Encoding, side by side",
        "",
        f"Written by `{found['command']}`.",
        "Every contender runs in a process of its own, on the same weights and texts, and takes its",
        f"turns in another order each round; only one works at a time. Medians of {found['rounds']} rounds; a ratio is the",
        "median of the rounds' ratios, and above 1 the row's contender is the faster one. Sentence Transformers and llm2vec",
        "run with their defaults, batches of 32. *share of matmul*: what the texts' own tokens take to compute, of what one",
        "big matrix product of that type reaches in the same rounds. *peak MiB*: above the loaded model. *first pass*: before",
        "the rounds, with whatever is compiled in it. *cosine distance*: the largest from the first row.",
        "",
        sentence(found["machine"]),
        "",
        *(f"**{problem}**\n" for problem in found["disagreements"]),
    ]
    lines += encoding_sections(found)
    return [*lines, "## Loading", "", *_loading(found["loading"])]


def encoding_sections(found: Mapping[str, Any]) -> list[str]:
    """A table for each set of texts and shape."""
    lines = []
    for (shape, dataset), rows in groupby(found["results"], lambda row: (row["shape"], row["dataset"])):
        lines += _section(shape, found["shapes"][shape], dataset, found["texts"][dataset], list(rows))
        lines += [*_absent(found["missing"], shape, dataset), ""]
    return lines


def _absent(missing: Sequence[Mapping[str, Any]], shape: str, dataset: str) -> list[str]:
    here = [one for one in missing if (one["shape"], one["dataset"]) == (shape, dataset)]
    return ["", *(f"- {_label(one['contender'])}: not measured; {one['reason']}" for one in here)] if here else []


def _section(
    shape: str, sizes: Mapping[str, Any], dataset: str, texts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> list[str]:
    lines = [
        f"## Texts `{dataset}`, shape `{shape}`",
        "",
        f"{texts['count']:,} texts, {texts['mean']:.1f} tokens in the mean, {texts['longest']} at most ({texts['source']}"
        f"{'; ' + texts['note'] if texts.get('note') else ''}). Llama with {sizes['parameters'] / 1e6:,.0f}M parameters: "
        f"width {sizes['hidden_size']}, {sizes['num_hidden_layers']} layers, {sizes['num_attention_heads']} heads, "
        f"{sizes['num_key_value_heads']} of keys. Two different texts are {rows[0]['between_texts']:.0e} apart.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---" * len(COLUMNS) + "|",
    ]
    return [*lines, *(_row(row) for row in rows)]


def _row(row: Mapping[str, Any]) -> str:
    baselines = ("plain-float32", f"plain-{row['dtype']}", "llm2vec-float32", f"llm2vec-{row['dtype']}")
    cells = [
        _label(row["contender"]) + (f" ({row['dtype']})" if row["contender"] == "ours-auto" else ""),
        f"{row['median_seconds']:.2f}",
        f"{row['tokens_per_second']:,.0f}",
        *(f"{row['ratios'][name]:.2f}" if name in row["ratios"] else "" for name in baselines),
        f"{row['matmul_share']:.0%}",
        f"{row['peak_mib']:,.0f}" if row["peak_mib"] is not None else "",
        f"{row['first_pass_seconds']:.1f}",
        f"{row['cosine_distance']:.0e}" if row["cosine_distance"] is not None else "",
    ]
    return "| " + " | ".join(cells) + " |"


def _loading(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        "| shape | recipe | contender | load s | first text s |",
        "|---|---|---|---|---|",
        *(
            f"| `{row['shape']}` | `{row['recipe']}` | {_label(row['contender'])} | {row['load_seconds']:.1f} | "
            f"{row['touch_seconds']:.1f} |"
            for row in rows
        ),
    ]


def growing_page(found: Mapping[str, Any]) -> list[str]:
    """The page of ``benchmarks.encoding --growing``."""
    lines = [
        "# Encoding more and more texts",
        "",
        f"Written by `{found['command']}`.",
        "One call of `encode` on so many short texts, in turns. *peak MiB*: above the loaded model, all texts and their",
        "vectors included, whose sizes stand beside it.",
        "",
        sentence(found["machine"]),
        "",
        "| contender | texts | rounds | tokens/s | × Sentence Transformers | peak MiB | texts MiB | vectors MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found["results"]:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:,.0f}"
        lines.append(
            f"| {_label(row['contender'])} | {row['texts']:,} | {len(row['seconds'])} | {row['tokens_per_second']:,.0f} | "
            f"{ratio} | {peak} | {row['texts_mib']:,.0f} | {row['vectors_mib']:,.0f} |"
        )
    return lines


def _label(name: str) -> str:
    return CONTENDERS[name].label
