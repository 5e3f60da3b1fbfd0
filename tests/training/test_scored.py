"""Pairs with scores: an encoder learns their order."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import spearmanr
from sentence_transformers.util import pairwise_cos_sim

from st_llm2vec import TextEncoder, convert
from st_llm2vec.evaluation.sentence_score import sentence_groups
from st_llm2vec.training import Scored, build_stages
from st_llm2vec.training.pipeline import evaluate_on

TRAINING = {
    "max_steps": 12,
    "per_device_train_batch_size": 16,
    "learning_rate": 2e-3,
    "warmup_steps": 0,
    "use_cpu": True,
}
GROUPS = sentence_groups()
ROWS = [(group["text"], group["same"], "5") for group in GROUPS] + [
    (group["text"], group["far"], "1") for group in GROUPS
]


def write(file: Path, rows: list[tuple[str, str, str]] = ROWS) -> str:
    with file.open("w", newline="") as written:
        csv.writer(written).writerows([("sentence1", "sentence2", "score"), *rows])
    return str(file)


def order(encoder: TextEncoder, told: str | None = None) -> float:
    sides = ([row[side] for row in ROWS] for side in (0, 1))
    vectors = [encoder.encode(texts, prompt=told, convert_to_tensor=True) for texts in sides]
    return float(spearmanr(pairwise_cos_sim(*vectors).cpu(), [float(row[2]) for row in ROWS]).statistic)


def stage(decoder: str, folder: Path, **more: Any) -> Scored:
    return Scored(**{"model": decoder, "output": str(folder / "out"), "training": TRAINING, "dtype": "float32", **more})


def test_pairs_are_put_into_their_order(decoder: str, tmp_path: Path) -> None:
    before = order(convert(decoder, "llm2vec", measure=False))
    encoder = stage(decoder, tmp_path, data=write(tmp_path / "pairs.csv")).run()
    assert order(encoder) > before + 0.2
    record = encoder.manifest.stages[-1]
    assert (record["name"], record["steps"], record["merged"]) == ("scored", 12, True)


def test_both_sentences_are_told_the_instruction(decoder: str, tmp_path: Path) -> None:
    made = stage(decoder, tmp_path, data=write(tmp_path / "pairs.csv"), instruction="Find what says the same:")
    assert made.instructions()["query"] == made.instructions()["document"] == ["Find what says the same:"]
    assert made.read(made.start()).prompts == dict.fromkeys(("sentence1", "sentence2"), "Find what says the same:")


def test_the_score_while_training_is_that_of_sentences_with_the_instruction(decoder: str, tmp_path: Path) -> None:
    told, pairs = "Find what says the same:", write(tmp_path / "pairs.csv")
    encoder = convert(decoder, "llm2vec", measure=False)
    assert abs(order(encoder, told) - order(encoder)) > 0.01
    for instruction in (None, told):
        made = stage(decoder, tmp_path, data=pairs, evaluation=pairs, instruction=instruction)
        evaluator = made.evaluator(encoder, None)
        assert evaluator is not None and made.metric == "eval_sts_spearman_cosine"
        assert evaluator(encoder)["sts_spearman_cosine"] == pytest.approx(order(encoder, instruction), abs=1e-3)
    assert stage(decoder, tmp_path, data=pairs, instruction=told).evaluator(encoder, None) is None


def test_the_best_checkpoint_is_that_of_the_instruction(decoder: str, tmp_path: Path) -> None:
    told, pairs = "Find what says the same:", write(tmp_path / "pairs.csv")
    training = TRAINING | {"max_steps": 4, "eval_steps": 2}
    made = stage(
        decoder,
        tmp_path,
        data=pairs,
        evaluation=pairs,
        instruction=told,
        keep_best=True,
        training=training,
        adapter=None,
    )
    encoder = made.run()
    kept = encoder.manifest.stages[-1]["evaluation"]
    assert kept["after"] == pytest.approx(order(encoder, told), abs=1e-3)


def test_it_runs_for_epochs_and_a_plan_evaluates_it(decoder: str, tmp_path: Path) -> None:
    pairs = write(tmp_path / "pairs.csv")
    plan = {"model": decoder, "stages": [{"stage": "scored", "data": pairs}]}
    [made] = build_stages(evaluate_on(plan, pairs), tmp_path / "out")
    arguments = made.arguments()
    assert (arguments.num_train_epochs, arguments.max_steps, arguments.warmup_steps) == (4, -1, 0.1)
    assert arguments.eval_steps == 0.1 and made.keeps_best


@pytest.mark.parametrize(
    ("rows", "training", "sentence"),
    [
        ([(*row[:2], "3") for row in ROWS], {}, "pairs are told apart by theirs"),
        (ROWS, {"per_device_train_batch_size": 1}, "A batch holds one pair"),
        ([(" ", *row[1:]) for row in ROWS], {}, "sentence1"),
    ],
)
def test_what_teaches_nothing_is_refused(
    rows: list[Any], training: dict[str, int], sentence: str, decoder: str, tmp_path: Path
) -> None:
    made = stage(decoder, tmp_path, data=write(tmp_path / "pairs.csv", rows), training=TRAINING | training)
    with pytest.raises(ValueError, match=sentence):
        made.run()
    assert not (tmp_path / "out" / "model.safetensors").exists()
