"""``st-llm2vec train``."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from sentence_transformers import SentenceTransformerTrainer
from typer.testing import CliRunner

from st_llm2vec import convert, load
from st_llm2vec.cli import app
from st_llm2vec.folder import merge as merging
from st_llm2vec.training.pipeline import WIKI1M, WIKITEXT, change, default_plan

SMALL = ["--set", "training.per_device_train_batch_size=2", "--set", "training.use_cpu=true"]
SMALL += ["--set", "training.disable_tqdm=true", "--steps", "2"]


@pytest.fixture
def texts(tmp_path: Path) -> str:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(f"The {word} stood by the river for many years." for word in "mill inn oak hut".split()))
    return str(path)


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    path = tmp_path / "pairs.jsonl"
    rows = [("cat", "Cats purr when they are calm."), ("sea", "Waves roll at night."), ("rain", "It fell all day.")]
    lines = [{"query": query, "positive": text, "negative": "Dust."} for query, text in rows]
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


def test_convert_mntp_simcse(decoder: str, tmp_path: Path, texts: str) -> None:
    command = ["train", "--model", decoder, "--output", str(tmp_path / "out"), "--texts", texts, "--json", *SMALL]
    command += ["--set", "stages.0.block_size=16"]
    first = CliRunner().invoke(app, [*command, "--until", "mntp"])
    assert json.loads(first.stdout[first.stdout.index("{") :])["output"] == str(tmp_path / "out-stages" / "1-mntp")
    refused = CliRunner().invoke(app, [*command, "--until", "mnpt"])
    assert "there is no 'mnpt'; did you mean 'mntp'?" in " ".join(refused.stderr.split())
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 0, found.output
    report = json.loads(found.stdout[found.stdout.index("{") :])
    assert [record["name"] for record in report["stages"]] == ["mntp", "simcse"]
    assert load(tmp_path / "out").manifest.stages == report["stages"]


def test_an_imported_encoder_is_trained_on(decoder: str, tmp_path: Path, texts: str) -> None:
    encoder = convert(decoder, "llm2vec")
    encoder.manifest.stages = [
        {"name": "imported", "method": "LLM2Vec adapter", "source": "org/adapter", "merged": True}
    ]
    encoder.save(str(tmp_path / "from"))
    plan = tmp_path / "plan.yaml"
    plan.write_text(json.dumps({"model": str(tmp_path / "from"), "stages": [{"stage": "simcse", "data": texts}]}))
    for _ in range(2):  # again, when it is over
        found = CliRunner().invoke(app, ["train", "--plan", str(plan), "--output", str(tmp_path / "out"), *SMALL])
        assert found.exit_code == 0, found.output
        assert "imported: as it was imported" in found.stdout and "simcse: 2 steps" in found.stdout


def test_options_and_lines(decoder: str, tmp_path: Path, texts: str) -> None:
    scores = tmp_path / "scores.csv"
    scores.write_text("A mill stood.,The mill stood.,4.5\nRain fell.,The sea was calm.,0.4\nA cat.,A dog.,2\n")
    command = ["train", "-m", decoder, "-o", str(tmp_path / "out"), "--texts", texts, "--lr", "1e-3"]
    command += ["--batch-size", "3", "--dtype", "float32", "--eval", str(scores), "--set", "training.max_steps=2"]
    command += [
        "--set",
        "stages.0.block_size=16",
        "--set",
        "training.use_cpu=true",
        "--set",
        "training.logging_steps=1",
    ]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 0, found.output
    lines = [line for line in found.stderr.splitlines() if "loss" in line and "lr" in line]
    assert len(lines) == 4, found.stderr
    for line, step, rate in zip(lines, (1, 2, 1, 2), ("0.001", "0.0005") * 2, strict=True):
        pattern = rf"step {step}/2  loss \S+  lr {rate}  [\d,]+ tokens/s  0:00:\d\d left  peak \S+ GiB"
        assert re.search(pattern, line), line
    evaluated = [line for line in found.stderr.splitlines() if line.startswith("step") and "eval_sts" in line]
    assert [line.split("  ")[0] for line in evaluated] == ["step 0/2", "step 1/2", "step 2/2"]
    assert re.search(r"  best \S+ at step [12]$", evaluated[-1])
    assert re.search(
        r"simcse: 2 steps, last loss \S+, sts_spearman_cosine \S+ before and \S+ after step [12]", found.output
    )
    for record in load(tmp_path / "out").manifest.stages:
        assert record["steps"] == 2 and record["settings"]["dtype"] == "float32"
        assert record["settings"]["training"]["per_device_train_batch_size"] == 3


def test_a_recipe_on_pairs(decoder: str, tmp_path: Path, pairs: str) -> None:
    command = ["train", "-m", decoder, "-o", str(tmp_path / "out"), "--recipe", "prompteol", "--pairs", pairs, *SMALL]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 0, found.output
    assert "prompteol_cse: 2 steps" in found.output and "The encoder is in" in found.output
    assert load(tmp_path / "out").manifest.config.name == "prompteol"


def test_pairs_alone_train_both_stages_and_say_so_first(decoder: str, tmp_path: Path, pairs: str) -> None:
    mixture = tmp_path / "mixture.yaml"
    mixture.write_text(f"sources: [{{path: {pairs}, query_instruction: 'Find the text:'}}]")
    command = ["train", "-m", decoder, "-o", str(tmp_path / "out"), "--pairs", str(mixture), *SMALL]
    command += ["--set", "stages.0.block_size=8"]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 0, found.output
    told = " ".join(found.stderr.split())
    assert re.search(r"Stage 1 of 2: mntp from \S+ to \S+1-mntp, on the texts of \S+mixture.yaml", told), told
    assert told.count("the encoder keeps none") == 1 and told.index("the encoder keeps none") < told.index(
        "Stage 1 of 2"
    )
    assert re.search(
        r"Beside it are \S+out-stages \(\d+\.\d MB, the stages before it\) and \S+checkpoints \(\d", told
    ), told
    assert load(tmp_path / "out").manifest.stages[0]["data"] == {"texts_of": {"mixture": str(mixture)}}
    shutil.rmtree(tmp_path / "out-stages")  # as it says that one may
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0 and "Stage 1 of 2: mntp is not needed any more" in again.stderr, again.output
    assert (
        "Stage 2 of 2: supervised is done and left as it is" in again.stderr and not (tmp_path / "out-stages").exists()
    )


def test_plans_of_the_recipes() -> None:
    plan = default_plan("llm2vec")
    assert [(stage["stage"], stage["data"]) for stage in plan["stages"]] == [("mntp", WIKITEXT), ("simcse", WIKI1M)]
    names = {
        recipe: [stage["stage"] for stage in default_plan(recipe, pairs="p.jsonl")["stages"]]
        for recipe in ("llm2vec", "nv-embed", "prompteol", "e5-mistral")
    }
    assert names == {
        "llm2vec": ["mntp", "supervised"],
        "nv-embed": ["retrieval", "blended"],
        "prompteol": ["prompteol_cse"],
        "e5-mistral": ["supervised"],
    }
    assert change({"a": [{"b": 1}]}, "a.0.b", 2) == {"a": [{"b": 2}]}


@pytest.mark.parametrize("lost", ["merge", "best checkpoint"])
def test_a_run_that_cannot_be_finished_ends_with_a_sentence(
    decoder: str, tmp_path: Path, texts: str, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = tmp_path / "scores.csv"
    scores.write_text("A mill stood.,The mill stood.,4.5\nRain fell.,The sea was calm.,0.4\nA cat.,A dog.,2\n")
    command = ["train", "-m", decoder, "-o", str(tmp_path / "out"), "--plan", str(tmp_path / "plan.yaml"), *SMALL]
    plan: dict[str, Any] = {"stages": [{"stage": "simcse", "data": texts, "training": {"save_steps": 1}}]}
    if lost == "merge":
        message = r"more than rounding explains.*The trained encoder is in \S+checkpoint-2, its adapter apart"
        monkeypatch.setattr(merging, "largest_cosine_distance", lambda *vectors: 1.0)
    else:
        message = "and there is no checkpoint of it: evaluate and save at the same steps"
        plan["stages"][0] |= {"evaluation": str(scores), "patience": 1}
        plan["stages"][0]["training"] |= {"eval_steps": 1}
        train = SentenceTransformerTrainer.train

        def forgetful(self: Any, *args: Any, **kwargs: Any) -> None:
            train(self, *args, **kwargs)
            self.state.best_model_checkpoint = None

        monkeypatch.setattr(SentenceTransformerTrainer, "train", forgetful)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 1 and isinstance(found.exception, SystemExit), found.output
    assert re.search(message, " ".join(found.stderr.split())), found.output


def test_bad_input(decoder: str, tmp_path: Path, texts: str) -> None:
    cases = [
        (["--recipe", "nv-embed"], "is trained on pairs; name a file"),
        (["--recipe", "prompteol", "--pairs", "x.jsonl", "--texts", texts], "leave --texts out"),
        (["--plan", str(tmp_path / "none.yaml")], "cannot be read"),
        (["--plan", "x.yaml", "--texts", texts], "A plan names its own data"),
        (["--texts", str(tmp_path / "none.txt")], "none.txt"),
        (["--texts", texts, "--set", "stages.7.scale=3"], "stages.7.scale"),
        (["--texts", texts, "--set", "trainin.max_steps=3"], "did you mean 'training'?"),
        (["--texts", texts, "--set", "training.max_step=3"], "did you mean 'max_steps'?"),
        (["--texts", texts, "--set", "training.seed=abc"], "seed is 'abc'; it must be a whole number"),
        (["--texts", texts, "--dtype", "bf16"], "--dtype bf16 is not one of"),
        (["--texts", texts, "--eval", texts], "two columns of texts and one of numbers"),
    ]
    for more, message in cases:
        found = CliRunner().invoke(app, ["train", "-m", decoder, "-o", str(tmp_path / "out"), *more])
        assert found.exit_code == 1, (more, found.output)
        assert message in " ".join(found.output.split()), (more, found.output)
    assert not (tmp_path / "out/modules.json").exists()
