"""What training does to a real decoder: each recipe untrained, each stage of the papers, and distillation, on public tasks.

    python scripts/real_decoders.py                           # brings the models
    python -m benchmarks.learning_real                        # every row that is not there yet, then docs/learning_real.md; days
    python -m benchmarks.learning_real --rows "+ MNTP" --seeds 1
    python -m benchmarks.learning_real --quick                # two steps a stage on the decoder in the box, into --work alone

Rows and budgets are in benchmarks/learning_real.yaml, --plan names another file. Each row runs in a process of its own and is
kept in benchmarks/results/learning_real.jsonl; its stages, each of which resumes, are kept in --work (a finished stage of
SmolLM2 takes 0.6 GB there). An interrupted run goes on. --again measures all rows anew, from the stages that are kept.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from benchmarks import tasks
from benchmarks.kept_rows import ROOT, measure_rows, parse_options
from benchmarks.learning_page import page
from benchmarks.learning_plan import PLAN, WORK, Row, Setup
from benchmarks.real_decoders import machine
from st_llm2vec import convert, load
from st_llm2vec.evaluation.fingerprint import encoder_fingerprint
from st_llm2vec.evaluation.tasks import Task, TaskResult, run_baseline, run_task
from st_llm2vec.publishing.names import without_local_paths

MODULE = "benchmarks.learning_real"
RESULTS = ROOT / "benchmarks" / "results" / "learning_real.jsonl"
TARGET = ROOT / "docs" / "learning_real.md"
FIELDS = ("row", "decoder", "seed")
KEPT_OF_STAGE = ("name", "method", "rows", "settings", "steps", "last_loss", "evaluation", "took")


def measure(setup: Setup, name: str, decoder: str, seed: str) -> dict[str, Any]:
    """Train what a row needs, as far as it is not there, and score it."""
    about: dict[str, Any] = {**dict(zip(FIELDS, (name, decoder, seed), strict=True)), "machine": machine()}
    row = setup.rows.get(name)
    read = [Task.read(spec) for spec in setup.specs(row)]
    if name == tasks.BASELINE:
        return {**about, "stages": [], **_scores([run_baseline(task) for task in read])}
    encoder = encoder_of(setup, row, decoder, seed)
    fingerprint, cache = encoder_fingerprint(encoder), setup.work / "scores"
    return {
        **about,
        "stages": [] if row is None else stages_of(encoder),
        **_scores([run_task(encoder, task, cache, fingerprint) for task in read]),
    }


def encoder_of(setup: Setup, row: Row | None, decoder: str, seed: str) -> Any:
    """A row's encoder, trained as far as it is not kept; without a row the yardstick."""
    if row is None:
        return SentenceTransformer(str(tasks.MODELS / tasks.YARDSTICK))
    if not row.stages:
        return convert(tasks.DECODERS[decoder], row.recipe, dtype=torch.float32, measure=False, **row.changes)
    for stage in setup.stages(row, decoder, int(seed)):
        stage.run()
    return load(stage.output)


def stages_of(encoder: Any) -> list[dict[str, Any]]:
    """What an encoder says of its training, without the machine's folders."""
    stages = encoder.manifest.stages if encoder.manifest is not None else []
    return [{name: stage.get(name) for name in KEPT_OF_STAGE} for stage in without_local_paths(stages)]


def _scores(found: list[TaskResult]) -> dict[str, Any]:
    return {
        "scores": {one.task: one.main for one in found},
        "evaluation_seconds": round(sum(one.seconds for one in found), 1),
        "memory": max(one.memory for one in found),
    }


def wanted(setup: Setup, names: list[str] | None, decoders: list[str], seeds: list[str]) -> list[tuple[str, str, str]]:
    """The rows to measure, in the page's order: yardsticks, and of every decoder what is untrained once and what is
    trained for each seed."""
    found = [(tasks.BASELINE, "", "")] + (
        [] if setup.quick else [(tasks.YARDSTICK, "", ""), ("llm2vec", tasks.BOX, "")]
    )
    for decoder in decoders:
        for row in setup.rows.values():
            found += [(row.name, decoder, seed) for seed in (seeds if row.stages else [""])]
    return list(dict.fromkeys(one for one in found if names is None or one[0] in names))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", help="by name; all of them if not given")
    parser.add_argument("--decoders", nargs="+", choices=list(tasks.DECODERS), help="in place of the plan's")
    parser.add_argument("--seeds", nargs="+", type=int, help="in place of the plan's")
    parser.add_argument("--plan", type=Path, default=PLAN, help="a YAML file of rows")
    parser.add_argument("--work", type=Path, help="folder of data, stages and scores; build/learning-real if not given")
    parser.add_argument("--quick", action="store_true", help="two steps a stage, on the decoder in the box")
    given = parse_options(parser, FIELDS)
    work = given.work or (WORK.with_name("learning-real-quick") if given.quick else WORK)
    setup = Setup(work.resolve(), given.plan.resolve(), given.quick)
    if given.one:
        print(json.dumps(measure(setup, *given.one)))
        return
    if not given.quick and not tasks.DATA.is_dir():
        raise SystemExit(
            f"There is no folder {tasks.DATA}; name the datasets' folder in ST_LLM2VEC_DATA, or try --quick."
        )
    unknown = set(given.rows or []) - {*setup.rows, tasks.BASELINE, tasks.YARDSTICK}
    if unknown:
        raise SystemExit(f"There is no row {sorted(unknown)[0]!r}; there are {', '.join(setup.rows)}.")
    setup.prepare()
    decoders = given.decoders or ([tasks.BOX] if given.quick else setup.plan["decoders"])
    seeds = [str(seed) for seed in given.seeds or ([1] if given.quick else setup.plan["seeds"])]
    results, target = (work / "rows.jsonl", work / "page.md") if given.quick else (RESULTS, TARGET)
    options = ["--work", str(setup.work), "--plan", str(setup.plan_file), *(["--quick"] if given.quick else [])]
    rows, order = (wanted(setup, names, decoders, seeds) for names in (given.rows, None))

    def write(found: list[dict[str, Any]]) -> None:
        target.write_text(page(setup, found), encoding="utf-8")

    measure_rows(MODULE, results, FIELDS, rows, write, given.again, options, order)


if __name__ == "__main__":
    main()
