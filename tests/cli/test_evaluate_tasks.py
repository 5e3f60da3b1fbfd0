"""``st-llm2vec evaluate tasks`` and ``mteb``."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ..evaluation.test_words import stock
from .test_cli import loud_again, run, succeed  # noqa: F401

PLAN = """
tasks:
- {name: pairs, kind: sts, data: pairs.csv, header: [sentence1, sentence2, score]}
- {name: topics, kind: classification, train: train.jsonl, test: test.jsonl, metric: macro_f1}
"""


@pytest.fixture
def encoder(tiny: Callable[..., str], tmp_path: Path) -> str:
    folder = str(tmp_path / "an encoder")
    stock(tiny("llama")).save(folder)
    return folder


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    (tmp_path / "pairs.csv").write_text("a cat,a cat,5\na cat,the sea,0\nred car,a red car,4\n")
    rows = [{"text": f"{word} number {n}", "label": word} for word in ("cat", "car") for n in range(3)]
    (tmp_path / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    rows = [{"text": "the cat", "label": "cat"}, {"text": "a ship", "label": "ship"}]
    (tmp_path / "test.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return path


def test_tasks_beside_the_baseline_again_from_what_is_kept(encoder: str, plan: Path, tmp_path: Path) -> None:
    call = ["evaluate", "tasks", encoder, "--task", plan, "--cache", tmp_path / "kept"]
    data = json.loads(succeed(*call, "--json").stdout)["models"]
    assert list(data) == ["baseline", encoder] and [one["task"] for one in data[encoder]] == ["pairs", "topics"]
    assert data["baseline"][1]["scores"]["accuracy"] == 50 and data[encoder][1]["unseen"] == {"ship": 1}
    shown = succeed(*call, "--output", tmp_path / "table.md")
    assert "ship (1)" in shown.stderr and "macro_f1" in shown.stdout and "GiB" in shown.stdout
    table = (tmp_path / "table.md").read_text().splitlines()
    assert table[0] == f"| task | score | baseline | {encoder} |" and len(table) == 6
    assert json.loads(succeed(*call, "--json").stdout)["models"][encoder] == data[encoder]
    one = f"mine=sts:{tmp_path / 'named.csv'}"
    (tmp_path / "named.csv").write_text(
        "sentence1,sentence2,score\na cat,a cat,5\na cat,the sea,0\nred car,a red car,4\n"
    )
    call = ["evaluate", "tasks", encoder, "--task", one, "--cache", tmp_path / "kept", "--no-baseline"]
    again = json.loads(succeed(*call, "--json").stdout)["models"]
    assert list(again) == [encoder] and again[encoder][0] == {**data[encoder][0], "task": "mine"}
    assert len(list((tmp_path / "kept").iterdir())) == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--task", "missing.yaml"], "There is no plan missing.yaml."),
        (["--task", "a=sts:missing.csv"], "The task 'a': There is no file missing.csv."),
        (["--task", "a=sts:missing.csv", "--output", "table.html"], "ends in neither .md nor .json"),
        (["--task", "a=sts:missing.csv", "--attention", "none"], "--attention none is not one of"),
    ],
)
def test_bad_options_are_a_sentence(options: list[str], sentence: str) -> None:
    result = run("evaluate", "tasks", "no such model", *options)
    assert result.exit_code == 1 and sentence in " ".join(result.stderr.split()) and "Traceback" not in result.stderr


def test_mteb_is_asked_for_where_it_is_missing() -> None:
    if importlib.util.find_spec("mteb") is not None:
        pytest.skip("MTEB is installed; tests/evaluation/test_mteb_encoder.py tests with it")
    result = run("evaluate", "mteb", "a model", "--tasks", "paper")
    assert result.exit_code == 1 and "pip install 'st-llm2vec[evaluation]'" in result.stderr
