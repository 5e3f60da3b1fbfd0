"""What hard negatives add: a two-stage mixture trained without them, with MiniLM's, and with the encoder's own.

    python scripts/real_decoders.py                           # brings the models
    python -m benchmarks.hard_negatives                       # every row that is not there yet, then its page; hours
    python -m benchmarks.hard_negatives --decoders box        # the decoder in the box alone; minutes

The mixture is benchmarks/mixture.yaml; how it is mined, trained on and scored is in benchmarks/hard_negatives.yaml. Training goes
on from MNTP as benchmarks.learning_real trains it, in the folder of that benchmark. Each row runs in a process of its own and is
kept in benchmarks/results/hard_negatives.jsonl; mining and training resume, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from benchmarks import tasks
from benchmarks.kept_rows import ROOT, measure_rows, parse, write_lines
from benchmarks.learning import Corpus
from benchmarks.learning_plan import WORK, Setup
from benchmarks.learning_real import encoder_of, stages_of
from benchmarks.real_decoders import machine
from st_llm2vec import load
from st_llm2vec.evaluation.fingerprint import encoder_fingerprint
from st_llm2vec.evaluation.task_plan import read_plan
from st_llm2vec.evaluation.tasks import Task, run_task
from st_llm2vec.training import build_stages

MODULE = "benchmarks.hard_negatives"
PLAN = ROOT / "benchmarks" / "hard_negatives.yaml"
MIXTURE = ROOT / "benchmarks" / "mixture.yaml"
RESULTS = ROOT / "benchmarks" / "results" / "hard_negatives.jsonl"
TARGET = ROOT / "docs" / "benchmarks" / "hard_negatives.md"
FIELDS = ("decoder", "teacher", "seed")
UNTRAINED, WITHOUT, MINILM, ITSELF = "before", "none", "minilm", "itself"
TEACHERS = {
    UNTRAINED: "after MNTP, before the mixture",
    WITHOUT: "without hard negatives",
    MINILM: "mined with all-MiniLM-L6-v2",
    ITSELF: "mined with the encoder itself",
}
FIRST_TEST_QUERY = 151  # of Cranfield's 225
TRAINED_PICTURES = 6000
PAGE = """# What hard negatives add

Written by `python -m benchmarks.hard_negatives` on {machine}; nothing here is typed by hand. `benchmarks/mixture.yaml` is trained on
in two stages of {steps} steps, first {first}, then {second} too, from the encoder that MNTP left (see
[learning_real.md](../learning_real.md)); {batch} rows a batch, LoRA, {length} tokens a text. *Without* has negatives of the batch
alone for the first stage's sources, and a text of another class, drawn at random, for each row of classes. *Mined* has one hard
negative a row (by MiniLM `topk-percpos`, by the encoder itself `topk-shifted`), and for inference what contradicts. Scores are of
held-out parts, times 100: queries {query} and on of Cranfield, pictures {pictures:,} and on, SNLI's and the classes' test files;
samples, the same for all rows. No setting was chosen on them. MNTP has read all captions, one by one.

{table}
"""


def measure(decoder: str, teacher: str, seed: str) -> dict[str, Any]:
    """One row."""
    prepare()
    plan = _plan()
    start = _start(decoder, plan["max_length"])
    folder = start if teacher == UNTRAINED else _train(start, decoder, teacher, int(seed))
    encoder, cache = load(folder), _work() / "scores"
    fingerprint = encoder_fingerprint(encoder)
    read = [Task.read(spec) for spec in read_plan(PLAN)]
    found = {
        "steps": plan["steps"],
        "stages": [] if teacher == UNTRAINED else stages_of(encoder)[-2:],
        "mined": _mining_report(decoder, teacher),
        "results": [asdict(run_task(encoder, task, cache, fingerprint)) for task in read],
    }
    return {**dict(zip(FIELDS, (decoder, teacher, seed), strict=True)), "machine": machine(), **found}


def _work() -> Path:
    return WORK.with_name("hard-negatives")


def _plan() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(PLAN.read_text(encoding="utf-8"))
    return found


def prepare() -> None:
    """Write what the mixture and the tasks read, and say where it is."""
    files = _work() / "files"
    os.environ |= {
        "ST_LLM2VEC_DATA": str(tasks.DATA.resolve()),
        "ST_LLM2VEC_TASK_FILES": str(tasks.REWRITTEN),
        "ST_LLM2VEC_MIXTURE_FILES": str(files),
    }
    tasks.rewrite(tasks.DATA, tasks.REWRITTEN)
    if (files / "captions-test.qrels").is_file():
        return
    files.mkdir(parents=True, exist_ok=True)
    judged = (
        (tasks.DATA / "retrieval" / "cranfield" / "QRelsCorrectedforTRECeval").read_text().splitlines(keepends=True)
    )
    for part, held_out in (("train", False), ("test", True)):
        kept = [line for line in judged if (int(line.split()[0]) >= FIRST_TEST_QUERY) == held_out]
        (files / f"cranfield-{part}.qrels").write_text("".join(kept), encoding="utf-8")
    with (tasks.DATA / "pairs" / "snli_test.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    told = (
        {"sentence1": row["premise"], "sentence2": row["hypothesis"], "label": int(row["label"] == "0")} for row in rows
    )
    write_lines(files / "snli-test.jsonl", told)
    groups = [group[:2] for group in Corpus(tasks.DATA).captions if len(group) > 1]
    pairs = ({"query": first, "positive": second} for first, second in groups[:TRAINED_PICTURES])
    write_lines(files / "captions-train.jsonl", pairs)
    test = list(enumerate(groups[TRAINED_PICTURES:]))
    write_lines(files / "captions-queries.jsonl", ({"id": f"q{at}", "text": group[0]} for at, group in test))
    write_lines(files / "captions-corpus.jsonl", ({"id": f"d{at}", "text": group[1]} for at, group in test))
    (files / "captions-test.qrels").write_text("".join(f"q{at} 0 d{at} 1\n" for at, _ in test), encoding="utf-8")


def _start(decoder: str, max_length: int) -> str:
    """The encoder after MNTP, which reads no longer texts than it will be trained on."""
    folder = _work() / decoder / "start"
    if not folder.exists():
        setup = Setup(WORK)
        setup.prepare()
        encoder = encoder_of(setup, setup.rows["+ MNTP"], decoder, "1")
        encoder.max_seq_length = max_length
        encoder.save(str(folder))
    return str(folder)


def _mined(decoder: str, teacher: str) -> Path:
    return _work() / "mined-minilm" if teacher == MINILM else _work() / decoder / "mined-itself"


def _mine(start: str, decoder: str, teacher: str) -> Path:
    folder = _mined(decoder, teacher)
    if not (folder / "report.json").is_file():
        ranks = str(tasks.MODELS / tasks.YARDSTICK) if teacher == MINILM else start
        options = ["--teacher", ranks, "--output", str(folder), "--dtype", "float32", *_plan()["mining"][teacher]]
        command = [sys.executable, "-m", "st_llm2vec", "data", "mine", str(MIXTURE), *options]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return folder / "mixture.yaml"


def _mining_report(decoder: str, teacher: str) -> dict[str, Any]:
    if teacher not in (MINILM, ITSELF):
        return {}
    sources = json.loads((_mined(decoder, teacher) / "report.json").read_text(encoding="utf-8"))["sources"]
    return {name: {key: value for key, value in one.items() if key != "samples"} for name, one in sources.items()}


def _train(start: str, decoder: str, teacher: str, seed: int) -> str:
    """Train both stages, as far as they are not there."""
    plan = _plan()
    mixture = str(MIXTURE if teacher == WITHOUT else _mine(start, decoder, teacher))
    first = {"mixture": mixture, "sources": plan["first"], "negatives": 0 if teacher == WITHOUT else 1}
    second = {"mixture": mixture, "sources": plan["second"], "negatives": 1}
    shared = {**plan["training"], "model": start, "dtype": "float32", "max_length": plan["max_length"]}
    stages = [
        {"stage": "supervised", "data": [first], "training": {"max_steps": plan["steps"][0], "seed": seed}},
        {"stage": "supervised", "data": [first, second], "training": {"max_steps": plan["steps"][1], "seed": seed}},
    ]
    built = build_stages({**shared, "stages": stages}, _work() / decoder / f"{teacher}-{seed}")
    for stage in built:
        stage.run()
    return built[-1].output


def write_page(rows: list[dict[str, Any]]) -> None:
    """Write docs/benchmarks/hard_negatives.md."""
    plan = _plan()
    names = [f"{one['task']}<br>{one['metric']}" for one in rows[0]["results"]]
    lines = [f"| decoder | training | {' | '.join(names)} | mean |", "|---|---|" + "---:|" * (len(names) + 1)]
    for row in rows:
        scores = [one["scores"][one["metric"]] for one in row["results"]]
        cells = [f"{score:.1f}" for score in [*scores, sum(scores) / len(scores)]]
        lines.append(f"| {row['decoder']} | {TEACHERS[row['teacher']]} | {' | '.join(cells)} |")
    told = {
        "machine": rows[-1]["machine"],
        "steps": " and ".join(map(str, plan["steps"])),
        "first": ", ".join(plan["first"]),
        "second": ", ".join(plan["second"]),
        "batch": plan["training"]["training"]["per_device_train_batch_size"],
        "length": plan["max_length"],
        "query": FIRST_TEST_QUERY,
        "pictures": TRAINED_PICTURES,
    }
    TARGET.write_text(PAGE.format(**told, table="\n".join(lines)), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    decoders = list(tasks.DECODERS)
    parser.add_argument("--decoders", nargs="+", choices=decoders, default=[tasks.BOX, "smollm2"])
    parser.add_argument("--seeds", nargs="+", default=["1"])
    given = parse(parser, measure, FIELDS)
    wanted = [
        (decoder, teacher, seed)
        for decoder in given.decoders
        for teacher in TEACHERS
        for seed in given.seeds[: 1 if teacher == UNTRAINED else None]
    ]
    measure_rows(MODULE, RESULTS, FIELDS, wanted, write_page, given.again)


if __name__ == "__main__":
    main()
