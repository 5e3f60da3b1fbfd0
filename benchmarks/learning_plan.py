"""What `benchmarks.learning_real` trains and scores: its plan, and the folders that go with it."""

from __future__ import annotations

import csv
import json
import random
import shutil
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from benchmarks import tasks
from benchmarks.kept_rows import write_lines
from benchmarks.learning import write_data
from st_llm2vec import convert, decoder_path
from st_llm2vec.evaluation.sentence_score import sentence_groups
from st_llm2vec.evaluation.task_plan import TaskSpec
from st_llm2vec.folder.staging import replacing, replacing_file
from st_llm2vec.recipe.config import RECIPES
from st_llm2vec.reporting.measure import built_in_task
from st_llm2vec.training import Stage, build_stages

PLAN = Path(__file__).with_name("learning_real.yaml")
WORK = (Path(__file__).parents[1] / "build" / "learning-real").resolve()
TIMED_STEPS, WARM_STEPS = 8, 3
QUICK_TRAINING = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
    "eval_steps": 1,
    "save_steps": 1,
    "use_cpu": True,
}
STS_COLUMNS = ["sentence1", "sentence2", "score"]
OWN_TASK, OWN_FILE, DEV_FILE = "Built-in sentences", "built-in-sentences.csv", "sts-dev.csv"


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        name: What it is called.
        recipe: What the decoder becomes.
        changes: Fields of the recipe that differ.
        stages: What is trained, in order, by name.
        instructed: Whether texts have the task's instruction.
    """

    name: str
    recipe: str
    changes: dict[str, Any] = field(default_factory=dict)
    stages: Sequence[str] = ()
    instructed: bool = False


@dataclass(frozen=True)
class Setup:
    """A plan and its folders.

    Args:
        work: Where data, stages and scores are kept.
        plan_file: The plan.
        quick: Two steps a stage, on the decoder in the box and on what the package carries.
    """

    work: Path
    plan_file: Path = PLAN
    quick: bool = False

    @cached_property
    def plan(self) -> dict[str, Any]:
        """The plan, its folders filled in."""
        sts = self.work / "data" / (OWN_FILE if self.quick else DEV_FILE)
        teacher = self.work / "teacher" if self.quick else tasks.MODELS / tasks.YARDSTICK
        places = {"TRAINING": str(self.work / "data"), "STS_DEV": str(sts), "TEACHER": str(teacher)}
        found: dict[str, Any] = yaml.safe_load(
            string.Template(self.plan_file.read_text(encoding="utf-8")).substitute(places)
        )
        return found

    @property
    def rows(self) -> dict[str, Row]:
        """All rows by name: every recipe as it is, then those of the plan."""
        untrained = [Row(name, name) for name in RECIPES if name not in tasks.LEARNED]
        return {row.name: row for row in [*untrained, *(Row(**one) for one in self.plan["rows"])]}

    def prepare(self) -> None:
        """Write the training data, and what the tasks read, if they are not there."""
        if not self.quick:
            tasks.rewrite(tasks.DATA, tasks.REWRITTEN)
        if (self.work / "data").exists():
            return
        if self.quick:
            convert(decoder_path(), "sgpt", measure=False).save(str(self.work / "teacher"))
        with replacing(self.work / "data", lambda name: True) as fresh:
            counts = _quick_data(fresh) if self.quick else write_data(tasks.DATA, fresh)
            _write_own_task(fresh / OWN_FILE)
            if not self.quick:
                _write_shuffled(tasks.DATA / "sts" / "stsb-en-dev.csv", fresh / DEV_FILE)
            (fresh / "counts.json").write_text(json.dumps(counts), encoding="utf-8")

    def specs(self, row: Row | None = None) -> list[TaskSpec]:
        """The tasks that a row, or a yardstick, is scored on."""
        named = [_own_task(self.work)]
        if not self.quick:
            samples, whole = ({spec.name: spec for spec in tasks.specs(part)} for part in (tasks.SAMPLE, tasks.FULL))
            named += [(whole if name in self.plan["whole"] else samples)[name] for name in self.plan["tasks"]]
        return named if row is not None and row.instructed else [replace(spec, instruction=None) for spec in named]

    def stages(self, row: Row, decoder: str, seed: int) -> Iterator[Stage]:
        """The stages of a row; rows that begin alike share them. Run each before the next: its steps are timed from there."""
        before: dict[str, Any] = {"model": tasks.DECODERS[decoder], "changes": row.changes}
        place = self.work / "stages" / decoder / f"seed-{seed}" / row.recipe
        for number, name in enumerate(row.stages, start=1):
            shared = {**self.plan.get("shared", {}), "recipe": row.recipe, **before}
            stage = self._stage(name, shared, place / "+".join(row.stages[:number]), seed, decoder)
            yield stage
            before = {"model": stage.output}

    def _stage(self, name: str, shared: dict[str, Any], output: Path, seed: int, decoder: str) -> Stage:
        entry = dict(self.plan["stages"][name])
        minutes = entry.pop("minutes", None)
        minutes = minutes[decoder] if isinstance(minutes, dict) else minutes
        own = {"seed": seed, **(QUICK_TRAINING if self.quick else {})}
        entry["training"] = {**entry.get("training", {}), **own}
        if self.quick:
            small = {"block_size": 16} if entry["stage"] == "mntp" else {"max_length": 64}
            entry |= {**small, "adapter": {"r": 2, "alpha": 4}}

        def build(folder: Path, **training: Any) -> Stage:
            stage = {**entry, "training": entry["training"] | training}
            (found,) = build_stages({**shared, "stages": [stage]}, folder)
            return found

        if minutes is None or self.quick:
            return build(output)
        kept = self.work / "steps" / decoder / shared["recipe"] / f"{output.name}.json"
        return build(output, max_steps=_Budget(kept, output, minutes, build).steps())


@dataclass(frozen=True)
class _Budget:
    """How many steps fit into some minutes: a few are timed once, and the answer is kept, for all seeds."""

    kept: Path
    output: Path
    minutes: float
    build: Any

    def steps(self) -> int:
        if self.kept.is_file():
            return int(json.loads(self.kept.read_text(encoding="utf-8"))["steps"])
        trial = self.output.with_name(f"{self.output.name}.timed")
        shutil.rmtree(trial, ignore_errors=True)
        timed = {"max_steps": TIMED_STEPS, "save_steps": TIMED_STEPS, "eval_steps": TIMED_STEPS, "logging_steps": 1}
        self.build(trial, **timed).run()
        state = trial / "checkpoints" / f"checkpoint-{TIMED_STEPS}" / "trainer_state.json"
        seconds = pace(json.loads(state.read_text(encoding="utf-8"))["log_history"])
        steps = max(TIMED_STEPS, round(60 * self.minutes / seconds))
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(self.kept) as fresh:
            fresh.write_text(json.dumps({"steps": steps, "seconds_per_step": seconds}), encoding="utf-8")
        shutil.rmtree(trial)
        return steps


def pace(log: Sequence[dict[str, Any]]) -> float:
    """The seconds of a step, the first ones left out, by the log of a run that logged each."""
    at = {entry["step"]: entry["seconds"] for entry in log if "loss" in entry}
    steps = [step for step in at if step >= WARM_STEPS]
    return max((at[max(steps)] - at[min(steps)]) / (max(steps) - min(steps)), 1e-3)


def _quick_data(folder: Path) -> dict[str, int]:
    """Training files of the built-in sentences, under the names of the real ones, and their grades as an STS file."""
    groups = sentence_groups()
    rows = {
        "sentences": [{"text": text} for group in groups for text in group.values()],
        "triplets": [{"query": one["text"], "positive": one["same"], "negative": one["far"]} for one in groups],
        "paraphrases": [{"query": one["text"], "positive": one["same"]} for one in groups],
        "related": [{"query": one["text"], "positive": one["near"]} for one in groups],
        "scored": [dict(zip(STS_COLUMNS, row, strict=True)) for row in _own_pairs()],
        "intents": [{"query": one["text"], "positive": one["near"], "negative": one["far"]} for one in groups],
    }
    for name, found in rows.items():
        write_lines(folder / f"{name}.jsonl", found)
    return {name: len(found) for name, found in rows.items()}


def _write_shuffled(file: Path, target: Path) -> None:
    """The rows in another order, always the same: in the file, kinds of sentences follow each other."""
    rows = file.read_text(encoding="utf-8").splitlines(keepends=True)
    random.Random(0).shuffle(rows)
    target.write_text("".join(rows), encoding="utf-8")


def _write_own_task(file: Path) -> None:
    """The sentences that the package carries, which no setting was chosen on: pairs with their grades, as an STS file."""
    with file.open("w", encoding="utf-8", newline="") as written:
        csv.writer(written).writerows(_own_pairs())


def _own_pairs() -> Iterator[tuple[str, str, float]]:
    pairs: Any = built_in_task().data
    return zip(pairs.first, pairs.second, pairs.targets, strict=True)


def _own_task(work: Path) -> TaskSpec:
    return TaskSpec(OWN_TASK, "sts", {"data": str(work / "data" / OWN_FILE)}, header=STS_COLUMNS)
