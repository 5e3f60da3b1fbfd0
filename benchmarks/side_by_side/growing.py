"""Throughput and memory of one call, by the number of texts."""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from benchmarks.side_by_side.contenders import Field
from benchmarks.side_by_side.texts import Texts

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)
CONTENDERS = ("plain-bfloat16", "ours-bfloat16")
ENOUGH = 10_000  # texts from which one round is enough


def grow(given: argparse.Namespace, texts: Texts) -> dict[str, Any]:
    """Encode more and more short texts, in turns.

    Args:
        given: The command line of ``benchmarks.encoding``.
        texts: Where they come from.

    Returns:
        ``results``, a row for each contender and size, and who is ``missing``.
    """
    written = texts.write_texts("growing", texts.captions(max(given.sizes), longest=40), given.work / "texts")
    field = Field(given.shapes[0], "llm2vec", CONTENDERS, given.work, given.llm2vec, given.threads)
    job = {"texts": written["file"]}
    field.turns.once(do="run", job={**job, "first": 1000})
    results = []
    for size in given.sizes:
        rounds = given.rounds if size < ENOUGH else 1
        answers = [field.turns.once(do="run", job={**job, "first": size}, memory=True) for _ in range(rounds)]
        for name in field.turns.workers:
            seconds = [answer[name]["seconds"] for answer in answers]
            plain = [answer.get(CONTENDERS[0], {}).get("seconds") for answer in answers]
            results.append(
                {
                    "contender": name,
                    "texts": size,
                    "seconds": seconds,
                    "tokens_per_second": sum(written["lengths"][:size]) / statistics.median(seconds),
                    "ratio": statistics.median(b / a for a, b in zip(seconds, plain, strict=True))
                    if all(plain)
                    else None,
                    "peak_mib": max((answer[name]["peak_mib"] or 0) for answer in answers),
                    "texts_mib": answers[0][name]["texts_mib"],
                    "vectors_mib": answers[0][name]["vectors_mib"],
                }
            )
            print(f"{size:,} texts: {name} {statistics.median(seconds):.1f} s", flush=True)
    field.close()
    results.sort(key=lambda row: CONTENDERS.index(row["contender"]))
    return {"shape": given.shapes[0], "results": results, "missing": field.absent()}
