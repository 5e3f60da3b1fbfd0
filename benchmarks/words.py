"""What words' vectors tell, and what two real decoders make of bidirectional attention, before any training.

    python scripts/real_decoders.py            # brings the decoders
    python -m benchmarks.words                 # every row that is not there yet, then docs/words.md
    python -m benchmarks.words --train 2000 --test 1000

Each row runs in a process of its own, and is kept in benchmarks/results/words.jsonl: an interrupted run goes on. Words'
vectors are kept in the cache of `st-llm2vec evaluate words`. `--again` measures all rows anew.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.kept_rows import ROOT, measure_rows
from benchmarks.real_decoders import machine
from st_llm2vec import convert, decoder_path
from st_llm2vec.evaluation.analyses import analyse
from st_llm2vec.evaluation.word_features import default_cache
from st_llm2vec.evaluation.word_files import LabelledWords, read_labelled_words
from st_llm2vec.evaluation.word_probe import WordScores, mean_and_spread, most_frequent_label, probe_words
from tests.real.conftest import MODELS, NAMES

MODULE = "benchmarks.words"
DATA = Path(os.environ.get("ST_LLM2VEC_DATA", ROOT.parent / "shared" / "data"))
RESULTS = ROOT / "benchmarks" / "results" / "words.jsonl"
TARGET = ROOT / "docs" / "words.md"
FIELDS = ("model", "attention", "task", "train", "test")
TASKS = {
    "CoNLL-2000 chunks": ("conll2000-{part}.txt", "chunk"),
    "CoNLL-2000 POS": ("conll2000-{part}.txt", "pos"),
    "UD English UPOS": ("en_ewt-ud-{part}.conllu", "upos"),
}
BASELINE = "most frequent label"
BOX = "decoder in the box"
ANALYSIS = "analysis"
INTRODUCTION = """# Words, and what untrained decoders make of bidirectional attention

Written by `python -m benchmarks.words --train {train} --test {test}` on {machine}; nothing here is typed by hand but this
page's sentences. [evaluation.md](evaluation.md) says what each number means, and how to get it for another model.

## Linear probes on frozen vectors of words

LLM2Vec's probe (dropout and a linear layer, 1,500 steps) on the first {train} sentences of the training file, tested on the
first {test} of the test file; mean and standard deviation over three seeds. F1 is that of whole chunks. The baseline gives
each word its most frequent label. Decoders are untrained, in float32.
"""


def measure(model: str, attention: str, task: str, train: str, test: str) -> dict[str, Any]:
    """One row."""
    about = dict(zip(FIELDS, (model, attention, task, train, test), strict=True))
    if task == ANALYSIS:
        return {**about, "machine": machine(), **analyse(_encoder(model, "causal")).to_dict()}
    file, column = TASKS[task]
    parts = [
        read_labelled_words(DATA / "words" / file.format(part=part), column, int(limit))
        for part, limit in (("train", train), ("test", test))
    ]
    return {**about, "machine": machine(), **asdict(_scores(model, attention, parts[0], parts[1]))}


def _scores(model: str, attention: str, train: LabelledWords, test: LabelledWords) -> WordScores:
    if model == BASELINE:
        return most_frequent_label(train, test)
    return probe_words(_encoder(model, attention), train, test, cache=default_cache())


def _encoder(model: str, attention: str) -> Any:
    folder = decoder_path() if model == BOX else str(MODELS / NAMES[model])
    options: dict[str, Any] = {"dtype": torch.float32, "device": "cpu", "measure": False}
    return convert(folder, "llm2vec", attention=attention, **options)


def write_page(rows: list[dict[str, Any]], train: str, test: str) -> None:
    """Write docs/words.md, of the rows of these sizes."""
    rows = [row for row in rows if row["task"] == ANALYSIS or (row["train"], row["test"]) == (train, test)]
    lines = [INTRODUCTION.format(machine=rows[-1]["machine"], train=train, test=test)]
    lines += ["| task | model | attention | accuracy | F1 |", "|---|---|---|---|---|"]
    for row in rows:
        if row["task"] != ANALYSIS:
            lines.append(
                f"| {row['task']} | {row['model']} | {row['attention']} | {_cell(row['accuracy'])} | {_cell(row['f1'])} |"
            )
    lines += [*_analysis_lines([row for row in rows if row["task"] == ANALYSIS])]
    TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(values: list[float]) -> str:
    mean, spread = mean_and_spread(values)
    return f"{mean:.1f} ± {spread:.1f}" if len(values) > 1 else f"{mean:.1f}" if values else ""


def _analysis_lines(rows: list[dict[str, Any]]) -> list[str]:
    """The analyses, a column a model."""
    if not rows:
        return []

    def by_attention(row: dict[str, Any], value: Callable[[dict[str, Any]], str]) -> str:
        return " / ".join(value(row["quality"][attention]) for attention in ("causal", "bidirectional"))

    measures: dict[str, Callable[[dict[str, Any]], str]] = {
        "triples ranked right by their shared beginning, bidirectional": _ranked,
        "causal and bidirectional states, mean cosine over layers": lambda row: (
            f"{statistics.fmean(row['similarity'][1:]):.2f}"
        ),
        "the same, above what unrelated tokens have": lambda row: f"{statistics.fmean(row['above_chance'][1:]):.2f}",
        "the same cosine in the last layer": lambda row: f"{row['similarity'][-1]:.2f}",
        "anisotropy, mean over layers, causal / bidirectional": lambda row: by_attention(
            row, lambda one: f"{statistics.fmean(one['anisotropy'][1:]):.2f}"
        ),
        "built-in sentences, last layer, causal / bidirectional": lambda row: by_attention(
            row, lambda one: f"{one['scores'][-1]:.0f}"
        ),
        "best layer and its score, causal / bidirectional": lambda row: by_attention(
            row, lambda one: f"{one['best']}: {one['scores'][one['best']]:.0f}"
        ),
    }
    names = [row["model"] for row in rows]
    lines = [
        "",
        "## Causal and bidirectional attention, untrained",
        "",
        f"| | {' | '.join(names)} |",
        "|---" * (1 + len(rows)) + "|",
    ]
    lines += [f"| {name} | {' | '.join(measure_of(row) for row in rows)} |" for name, measure_of in measures.items()]
    lines += [
        "",
        "Mean cosine of each token's causal and bidirectional states, layer by layer from the embeddings:",
        "",
    ]
    lines += [f"- {row['model']}: {', '.join(f'{one:.2f}' for one in row['similarity'])}" for row in rows]
    return lines


def _ranked(row: dict[str, Any]) -> str:
    found = row["future"]["bidirectional"]
    low, high = found["interval"]
    return f"{found['share']:.0%} ({low:.0%} to {high:.0%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", default="300", help="sentences to learn from")
    parser.add_argument("--test", default="200", help="sentences to test on")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--again", action="store_true", help="measure all rows anew")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(*given.one)))
        return
    models = [BOX, *(name for name in NAMES if (Path(MODELS) / NAMES[name]).is_dir())]
    wanted: list[tuple[str, ...]] = [(model, "both", ANALYSIS, "", "") for model in models]
    for task in given.tasks:
        wanted.append((BASELINE, "", task, given.train, given.test))
        wanted += [
            (model, attention, task, given.train, given.test)
            for model in models
            for attention in ("causal", "bidirectional")
        ]
    measure_rows(MODULE, RESULTS, FIELDS, wanted, lambda rows: write_page(rows, given.train, given.test), given.again)


if __name__ == "__main__":
    main()
