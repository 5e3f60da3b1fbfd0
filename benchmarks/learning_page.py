"""The page that docs/learning_real.md is."""

from __future__ import annotations

import datetime
import json
import statistics
from collections.abc import Sequence
from typing import Any

import yaml

from benchmarks.learning_plan import Setup

GIB = 2**30
Found = Sequence[dict[str, Any]]
INTRODUCTION = """# What training does to a real decoder

Written by `python -m benchmarks.learning_real` on {machine}; nothing here is typed by hand. Rows and budgets are those of
`benchmarks/learning_real.yaml`. LoRA adapters are trained and merged, as the papers do, for minutes on a CPU where they train
for hours on GPUs. With several seeds, a score is their mean, ± the standard deviation. `minilm` is all-MiniLM-L6-v2, `box` the
decoder in the box, `smollm2` SmolLM2-135M-Instruct and `gemma3` Gemma 3 270M, from 4-bit files
([two real decoders](real_decoders.md)); recipes by their names are untrained, and so is *causal mean*; they are told no instruction,
without which e5-mistral and both of bge-en-icl read alike ([tasks.md](tasks.md) has them with one). What training does to words'
vectors, parts of speech and chunks, is in [words.md](words.md).
"""
DATA = """## Data

{sentences:,} short sentences (Wikipedia, captions, both sides of SNLI's validation pairs), {triplets:,} triplets of SNLI
(premise, entailed, contradicting), {paraphrases:,} pairs of captions of one image, {intents:,} pairs of requests of one intent
(CLINC150), {related:,} pairs to distil from (half of them STS-B train without its scores, SNLI, captions), {scored:,} pairs of
STS-B train with the scores that people gave. Sentences of STS-B dev and test were removed from all of them before, {removed}
different ones, whatever their case, blanks and punctuation; that leaves fewer pairs of STS-B train than others train on, who keep
these. Stages were chosen, and the best checkpoints kept, on STS-B dev; no setting was chosen on another column.
"""


def page(setup: Setup, found: Found) -> str:
    """The page of some rows, in their order."""
    parts = [
        INTRODUCTION.format(machine=" and on ".join(dict.fromkeys(row["machine"] for row in found))),
        _scores(found),
    ]
    counts = json.loads((setup.work / "data" / "counts.json").read_text(encoding="utf-8"))
    parts += [_orders(setup.plan.get("orders", []), found), _costs(found)]
    parts += [DATA.format(**counts)] if "removed" in counts else []
    settings = yaml.safe_dump(_settings(found), sort_keys=False, width=125)
    parts += [f"## Settings\n\nOf each stage, where it differs from the default.\n\n```yaml\n{settings}```\n"]
    return "\n".join(part for part in parts if part)


def means(found: Found) -> dict[tuple[str, str], dict[str, list[float]]]:
    """The scores of every seed, by row and decoder, and by task."""
    grouped: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in found:
        kept = grouped.setdefault((row["row"], row["decoder"]), {})
        for task, score in row["scores"].items():
            kept.setdefault(task, []).append(score)
    return grouped


def _scores(found: Found) -> str:
    tasks = list(dict.fromkeys(task for row in found for task in row["scores"]))
    lines = [("encoder", "decoder", *tasks, "seeds")]
    for (name, decoder), scores in means(found).items():
        seeds = max(map(len, scores.values()))
        lines.append((name, decoder, *(_mean(scores.get(task, [])) for task in tasks), str(seeds)))
    return _table(lines, 2) + (
        "\nSTS-B and built-in sentences: Spearman; the latter were written for this package, and no setting of training was chosen\n"
        "on them. Classification: accuracy of a logistic regression. SearchSnippets: v-measure. Retrieval: nDCG@10. STS-B test is\n"
        "whole, the others are samples (`benchmarks/tasks.yaml`). All times 100; [evaluation.md](evaluation.md) says how each is\n"
        "computed.\n"
    )


def _orders(orders: Found, found: Found) -> str:
    """The orders of the papers, each with what was measured."""
    scores, lines = means(found), [("expected", "decoder", "task", "measured", "holds")]
    for order in orders:
        for decoder in dict.fromkeys(row["decoder"] for row in found):
            pair = [scores.get((order[side], decoder), {}).get(order["task"]) for side in ("above", "below")]
            if all(pair):
                above, below = (statistics.fmean(one) for one in pair if one)
                named = f"{order['above']} above {order['below']}"
                lines.append(
                    (named, decoder, order["task"], f"{above:.1f}, {below:.1f}", "yes" if above > below else "**no**")
                )
    return f"## The papers' orders\n\n{_table(lines, 3)}" if len(lines) > 1 else ""


def _costs(found: Found) -> str:
    """What each row's last stage took, the ones before it having been trained for other rows."""
    lines = [("encoder", "decoder", "seed", "last stage", "steps", "last loss", "time", "memory, GiB", "on")]
    for row in found:
        if row["stages"]:
            last = row["stages"][-1]
            loss = "" if last["last_loss"] is None else f"{last['last_loss']:.3g}"
            spent = (
                str(datetime.timedelta(seconds=round(last["took"]["seconds"]))),
                f"{last['took']['memory'] / GIB:.1f}",
            )
            about = (row["row"], row["decoder"], row["seed"], last["name"], str(last["steps"]), loss)
            lines.append((*about, *spent, row["machine"].partition(",")[0]))
    return f"## Cost\n\n{_table(lines, 4)}" if len(lines) > 1 else ""


def _settings(found: Found) -> dict[str, Any]:
    """The settings of every stage by the row that ends with it."""
    return {
        row["row"]: {
            name: value for name, value in row["stages"][-1]["settings"].items() if value not in (None, {}, [])
        }
        for row in found
        if row["stages"]
    }


def _mean(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def _table(lines: Sequence[Sequence[str]], left: int) -> str:
    header, *rows = (f"| {' | '.join(line)} |" for line in lines)
    rule = f"|{'---|' * left}{'---:|' * (len(lines[0]) - left)}"
    return "\n".join([header, rule, *rows]) + "\n"
