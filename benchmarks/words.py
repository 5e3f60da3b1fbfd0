"""What words' vectors tell, and what two real decoders make of bidirectional attention, before and after training.

    python scripts/real_decoders.py            # brings the decoders
    python -m benchmarks.words                 # every row that is not there yet, then docs/words.md
    python -m benchmarks.words --train 2000 --test 1000
    python -m benchmarks.words --trained       # also after MNTP and SimCSE, trained as benchmarks.learning_real does; hours

Each row runs in a process of its own, and is kept in benchmarks/results/words.jsonl: an interrupted run goes on. Words'
vectors are kept in the cache of `st-llm2vec evaluate words`. `--again` measures all rows anew.
"""

from __future__ import annotations

import argparse
import os
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks import tasks
from benchmarks.kept_rows import ROOT, measure_rows, parse
from benchmarks.learning_plan import WORK, Setup
from benchmarks.learning_real import encoder_of, stages_of
from benchmarks.real_decoders import machine
from st_llm2vec import convert, decoder_path
from st_llm2vec.evaluation.analyses import ATTENTIONS, analyse, attention_similarity
from st_llm2vec.evaluation.future_tokens import built_in_triples
from st_llm2vec.evaluation.kept import default_cache
from st_llm2vec.evaluation.word_files import read_labelled_words
from st_llm2vec.evaluation.word_probe import mean_and_spread, most_frequent_label, probe_words
from tests.real.models import MODELS, NAMES

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
SEED = "1"
TRAINED = ("+ MNTP", "+ MNTP + SimCSE")
BASELINE, BOX = "most frequent label", "decoder in the box"
ANALYSIS, LONGER = "analysis", "longer texts"
WORDS = """# Words, and what untrained decoders make of bidirectional attention

Written by `python -m benchmarks.words --train {train} --test {test}{trained}` on {machine}; nothing here is typed by hand.
[evaluation.md](evaluation.md) says what each number means, and how to get it for another model.

## Linear probes on frozen vectors of words

LLM2Vec's probe (dropout and a linear layer, 1,500 steps) on the first {train} sentences of the training file, tested on the
first {test} of the test file; mean and standard deviation over three seeds. F1 is that of whole chunks. The baseline gives
each word its most frequent label. Decoders are in float32; rows with a + are bidirectional, trained as the table below says.

| task | model | attention | accuracy | F1 |
|---|---|---|---|---|"""
TRAINING = """
## Training

LoRA, one seed, with the budgets and settings of `benchmarks/learning_real.yaml`.

| model | stages | steps | last loss | minutes |
|---|---|---|---|---|"""
ATTENTION = """
## Causal and bidirectional attention, untrained

*Ranked right*: triples ranked by their shared beginning under bidirectional attention, with an interval of 95 %. *Anisotropy*:
mean cosine of tokens of different texts, over layers. *Score*: on the built-in sentences, from the last layer, and from the
best one. Two values are for causal and bidirectional attention.

| model | ranked right | anisotropy | score | best layer: score |
|---|---|---|---|---|"""
SIMILARITY = """
Each token's state under causal and under bidirectional attention: their mean cosine, and the same *above chance*, on a scale
where 0 is what tokens of different texts have and 1 is equality. Built-in sentences have about 9 tokens, those of two clauses
18, paragraphs 140.

| texts | model | all layers | above chance | last layer | above chance |
|---|---|---|---|---|---|"""


def measure(model: str, attention: str, task: str, train: str, test: str) -> dict[str, Any]:
    """One row."""
    about = {**dict(zip(FIELDS, (model, attention, task, train, test), strict=True)), "machine": machine()}
    if task == ANALYSIS:
        return {**about, **analyse(_encoder(model, "causal")).to_dict()}
    if task == LONGER:
        encoder, kinds = _encoder(model, "causal"), {"two clauses": clauses(), "paragraphs": paragraphs()}
        return {**about, "similarity": {name: attention_similarity(encoder, texts) for name, texts in kinds.items()}}
    file, column = TASKS[task]
    parts = [
        read_labelled_words(DATA / "words" / file.format(part=part), column, int(limit))
        for part, limit in (("train", train), ("test", test))
    ]
    if model == BASELINE:
        return {**about, **asdict(most_frequent_label(*parts))}
    encoder = _trained(model, attention) if attention in TRAINED else _encoder(model, attention)
    stages = {"stages": stages_of(encoder)} if attention in TRAINED else {}
    return {**about, **stages, **asdict(probe_words(encoder, *parts, cache=default_cache("words")))}


def clauses() -> list[str]:
    """Sentences of two clauses."""
    return [triple.query for triple in built_in_triples()[:24]]


def paragraphs() -> list[str]:
    """The first 120 words of six paragraphs of Wikipedia; the paper has one."""
    file = DATA / "text" / "wikitext2_valid_test_paragraphs.txt"
    long = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if len(line.split()) > 100]
    return [" ".join(words[:120]) for words in long[:6]]


def _trained(model: str, row: str) -> Any:
    setup = Setup(WORK)
    setup.prepare()
    return encoder_of(setup, setup.rows[row], tasks.BOX if model == BOX else model, SEED)


def _encoder(model: str, attention: str) -> Any:
    folder = decoder_path() if model == BOX else str(MODELS / NAMES[model])
    options: dict[str, Any] = {"dtype": torch.float32, "device": "cpu", "measure": False}
    return convert(folder, "llm2vec", attention=attention, **options)


def write_page(rows: list[dict[str, Any]], train: str, test: str) -> None:
    """Write docs/words.md, of the rows of these sizes."""
    trained = {(row["model"], row["attention"]): row for row in rows if row.get("stages")}
    option = " --trained" if trained else ""
    lines = [WORDS.format(machine=rows[-1]["machine"], train=train, test=test, trained=option)]
    lines += [_words_line(row) for row in rows if (row["train"], row["test"]) == (train, test)]
    lines += [TRAINING, *map(_training_line, trained.values())] if trained else []
    analyses, longer = ([row for row in rows if row["task"] == task] for task in (ANALYSIS, LONGER))
    lines += [ATTENTION, *map(_analysis_line, analyses), SIMILARITY]
    lines += [_similarity_line("built-in", row["model"], row["similarity"], row["above_chance"]) for row in analyses]
    for row in longer:
        lines += [_similarity_line(name, row["model"], *found) for name, found in row["similarity"].items()]
    TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _words_line(row: dict[str, Any]) -> str:
    cells = (row["task"], row["model"], row["attention"], _cell(row["accuracy"]), _cell(row["f1"]))
    return f"| {' | '.join(cells)} |"


def _training_line(row: dict[str, Any]) -> str:
    stages = row["stages"]
    steps, losses = ([str(one["steps"]) for one in stages], [f"{one['last_loss']:.2f}" for one in stages])
    minutes = sum(one["took"]["seconds"] for one in stages) / 60
    return f"| {row['model']} | {row['attention']} | {', '.join(steps)} | {', '.join(losses)} | {minutes:.0f} |"


def _cell(values: list[float]) -> str:
    mean, spread = mean_and_spread(values)
    return f"{mean:.1f} ± {spread:.1f}" if len(values) > 1 else f"{mean:.1f}" if values else ""


def _analysis_line(row: dict[str, Any]) -> str:
    found, layers = row["future"]["bidirectional"], [row["quality"][attention] for attention in ATTENTIONS]
    low, high = found["interval"]
    cells = (
        row["model"],
        f"{found['share']:.0%} ({low:.0%} to {high:.0%})",
        " / ".join(f"{statistics.fmean(one['anisotropy'][1:]):.2f}" for one in layers),
        " / ".join(f"{one['scores'][-1]:.0f}" for one in layers),
        " / ".join(f"{one['best']}: {one['scores'][one['best']]:.0f}" for one in layers),
    )
    return f"| {' | '.join(cells)} |"


def _similarity_line(texts: str, model: str, alike: list[float], above: list[float]) -> str:
    cells = (statistics.fmean(alike[1:]), statistics.fmean(above[1:]), alike[-1], above[-1])
    return f"| {texts} | {model} | {' | '.join(f'{one:.2f}' for one in cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", default="300", help="sentences to learn from")
    parser.add_argument("--test", default="200", help="sentences to test on")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--trained", action="store_true", help="also after MNTP and SimCSE, which are trained first")
    given = parse(parser, measure, FIELDS)
    models = [BOX, *(name for name in NAMES if (MODELS / NAMES[name]).is_dir())]
    wanted: list[tuple[str, ...]] = [(model, "both", task, "", "") for task in (ANALYSIS, LONGER) for model in models]
    states = (*ATTENTIONS, *(TRAINED if given.trained else ()))
    for task in given.tasks:
        sizes = (task, given.train, given.test)
        wanted.append((BASELINE, "", *sizes))
        wanted += [(model, attention, *sizes) for model in models for attention in states]
    measure_rows(MODULE, RESULTS, FIELDS, wanted, lambda rows: write_page(rows, given.train, given.test), given.again)


if __name__ == "__main__":
    main()
