"""Every recipe, untrained, on sequence-level tasks, beside TF-IDF and all-MiniLM-L6-v2.

    python scripts/real_decoders.py                      # brings the decoders
    python -m benchmarks.tasks                           # every row that is not there yet, then docs/tasks.md; two hours
    python -m benchmarks.tasks --full                    # the same on whole files; days
    python -m benchmarks.tasks --models TF-IDF box --recipes llm2vec echo

Each row runs in a process of its own, and is kept in benchmarks/results/tasks.jsonl: an interrupted run goes on. `--again`
measures all rows anew. The tasks are in benchmarks/tasks.yaml.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from benchmarks.kept_rows import ROOT, measure_rows, parse, write_lines
from benchmarks.real_decoders import machine
from st_llm2vec import convert, decoder_path
from st_llm2vec.evaluation.fingerprint import encoder_fingerprint
from st_llm2vec.evaluation.kept import default_cache
from st_llm2vec.evaluation.task_plan import TaskSpec, read_plan
from st_llm2vec.evaluation.tasks import Task, run_baseline, run_task
from st_llm2vec.recipe.config import RECIPES
from tests.real.models import MODELS, NAMES

MODULE = "benchmarks.tasks"
DATA = Path(os.environ.get("ST_LLM2VEC_DATA", ROOT.parent / "shared" / "data"))
REWRITTEN = default_cache("task-files")
PLAN = ROOT / "benchmarks" / "tasks.yaml"
RESULTS = ROOT / "benchmarks" / "results" / "tasks.jsonl"
TARGET = ROOT / "docs" / "tasks.md"
FIELDS = ("model", "recipe", "part")
SAMPLE, FULL = "sample", "full"
BASELINE, YARDSTICK, BOX = "TF-IDF", "minilm", "box"
DECODERS = {BOX: decoder_path(), **{name: str(MODELS / folder) for name, folder in NAMES.items()}}
LEARNED = ("nv-embed",)  # its latents are random until they are trained
GIB = 2**30
PAGE = """# Texts: every recipe, untrained, on sequence-level tasks

Written by `python -m benchmarks.tasks` on {machine}; nothing here is typed by hand. [evaluation.md](evaluation.md) says what
each number means, and how to get it for another model; `benchmarks/tasks.yaml` has the files and the instructions. Models are
in float32 and untrained, but `minilm`, all-MiniLM-L6-v2. Recipes with a place for an instruction are told the task's. `box` is
the decoder in the box. A *sample* has the rows that the file names, drawn once, the same for all models; *texts* are all that
were encoded, to learn from and to test on. TF-IDF on STS-B and retrieval is the cosine of its vectors. Scores are times 100.
`smollm2` is SmolLM2-135M-Instruct, from a 4-bit file ([two real decoders](real_decoders.md)).

{tables}
"""
TITLES = {SAMPLE: "## Samples", FULL: "## Whole files"}


def measure(model: str, recipe: str, part: str) -> dict[str, Any]:
    """One row: the tasks that were scored in an interrupted run are read."""
    about = {**dict(zip(FIELDS, (model, recipe, part), strict=True)), "machine": machine()}
    read = [Task.read(spec) for spec in specs(part)]
    if model == BASELINE:
        return {**about, "results": [asdict(run_baseline(task)) for task in read]}
    encoder, cache = _encoder(model, recipe), default_cache("tasks")
    fingerprint = encoder_fingerprint(encoder)
    return {**about, "results": [asdict(run_task(encoder, task, cache, fingerprint)) for task in read]}


def specs(part: str = FULL) -> list[TaskSpec]:
    """The tasks, whose files are there; whole ones, or their samples."""
    os.environ |= {"ST_LLM2VEC_DATA": str(DATA.resolve()), "ST_LLM2VEC_TASK_FILES": str(REWRITTEN)}
    read = read_plan(PLAN)
    return read if part == SAMPLE else [replace(spec, limit=None, documents=None) for spec in read]


def rewrite(data: Path, target: Path) -> None:
    """Write as JSON lines what was published in forms of its own."""
    target.mkdir(parents=True, exist_ok=True)
    intents = json.loads((data / "classification" / "clinc150" / "data_full.json").read_text(encoding="utf-8"))
    for part in ("train", "test"):
        _write(target / f"clinc150-{part}.jsonl", intents[part])
        questions = data / "classification" / "trec" / f"TREC.{part}.all"
        lines = questions.read_text(encoding="latin-1").splitlines()
        _write(target / f"trec-{part}.jsonl", (line.split(" ", 1)[::-1] for line in lines if line.strip()))
    folder = data / "clustering"
    texts = (folder / "SearchSnippets.txt").read_text(encoding="utf-8-sig").splitlines()
    labels = (folder / "SearchSnippets_gnd.txt").read_text(encoding="utf-8-sig").split()
    _write(target / "search-snippets.jsonl", zip(texts, labels, strict=True))


def _write(path: Path, rows: Iterable[Iterable[str]]) -> None:
    write_lines(path, (dict(zip(("text", "label"), row, strict=True)) for row in rows))


def _encoder(model: str, recipe: str) -> SentenceTransformer:
    if model == YARDSTICK:
        return SentenceTransformer(str(MODELS / YARDSTICK), device="cpu")
    return convert(DECODERS[model], recipe, dtype=torch.float32, device="cpu", measure=False)


def write_page(rows: list[dict[str, Any]]) -> None:
    """Write docs/tasks.md."""
    tables = "\n\n".join(_table(part, [row for row in rows if row["part"] == part]) for part in TITLES)
    TARGET.write_text(PAGE.format(machine=rows[-1]["machine"], tables=tables.rstrip()), encoding="utf-8")


def _table(part: str, rows: list[dict[str, Any]]) -> str:
    """The scores of all models on the tasks of one part, and what they cost."""
    if not rows:
        return ""
    tasks = [f"{one['task']}<br>{one['metric']}, {one['texts']:,} texts" for one in rows[0]["results"]]
    head = f"| model | recipe | {' | '.join(tasks)} | time, s | memory, GiB |"
    return "\n".join([TITLES[part], "", head, "|---|---|" + "---:|" * (len(tasks) + 2), *map(_line, rows)])


def _line(row: dict[str, Any]) -> str:
    results = row["results"]
    scores = (f"{one['scores'][one['metric']]:.1f}" for one in results)
    cost = (f"{sum(one['seconds'] for one in results):.0f}", f"{max(one['memory'] for one in results) / GIB:.1f}")
    return f"| {' | '.join((row['model'], row['recipe'], *scores, *cost))} |"


def main() -> None:
    known = [name for name in RECIPES if name not in LEARNED]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = [BASELINE, YARDSTICK, *DECODERS]
    parser.add_argument("--models", nargs="+", choices=models, default=[BASELINE, YARDSTICK, BOX, "smollm2"])
    parser.add_argument("--recipes", nargs="+", choices=known, default=known)
    parser.add_argument("--full", action="store_true", help="whole files in the place of samples")
    given = parse(parser, measure, FIELDS)
    rewrite(DATA, REWRITTEN)
    part = FULL if given.full else SAMPLE
    wanted = [
        (model, recipe, part) for model in given.models for recipe in (given.recipes if model in DECODERS else [""])
    ]
    measure_rows(MODULE, RESULTS, FIELDS, wanted, write_page, given.again)


if __name__ == "__main__":
    main()
