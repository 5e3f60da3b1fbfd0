"""``st-llm2vec data``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from st_llm2vec import convert, load
from st_llm2vec.cli import app
from st_llm2vec.data import mine_source

MIXTURE = """\
sources:
  - name: facts
    task: retrieval
    path: facts.jsonl
    query_instruction: "Find the fact:"
  - name: classes
    task: classification
    path: classes.csv
    query_instruction: "Name the class:"
"""


@pytest.fixture
def mixture(tmp_path: Path) -> Path:
    facts = [("what do cats do", "Cats purr when they are calm."), ("what of the sea", "Waves roll at night.")]
    facts += [("what of rain", "It fell all day."), ("what of mills", "The mill stood by the river.")]
    lines = [json.dumps({"query": query, "positive": text}) for query, text in facts]
    (tmp_path / "facts.jsonl").write_text("\n".join(lines))
    (tmp_path / "classes.csv").write_text("text,label\na cat,animal\na dog,animal\nred,colour\nblue,colour\n")
    (tmp_path / "mix.yaml").write_text(MIXTURE)
    return tmp_path / "mix.yaml"


def run(*command: str) -> Any:
    found = CliRunner().invoke(app, ["data", *command])
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout) if "--json" in command else found.stdout


def test_list_names_mixtures_and_licences() -> None:
    found = run("list", "--json")
    assert found["nli"]["sources"][0]["hub"].endswith("nli_for_simcse.csv")
    assert {"e5-public", "nv-embed-retrieval", "nv-embed-blended", "wiki1m"} <= set(found)
    assert "CC BY-SA 4.0" in run("list")


def test_show_reads_a_mixture(mixture: Path) -> None:
    facts, classes = run("show", str(mixture), "--json")["sources"]
    assert facts["rows"] == 4 and facts["prompts"] == {"query": "Find the fact:"} and facts["in_batch_negatives"]
    assert classes["first"] == {"query": "a cat", "positive": "a dog", "negative_1": classes["first"]["negative_1"]}
    assert not classes["in_batch_negatives"]
    assert "what do cats do" in run("show", str(mixture), "--source", "facts")


@pytest.mark.parametrize("way", ["pairs", "plan"])
def test_train_takes_a_mixture(decoder: str, mixture: Path, tmp_path: Path, way: str) -> None:
    options = ["--pairs", str(mixture), "--recipe", "e5-mistral"]
    if way == "plan":
        plan = tmp_path / "plan.yaml"
        stage = {"stage": "supervised", "data": {"mixture": str(mixture), "limit": 3}}
        plan.write_text(json.dumps({"recipe": "llm2vec", "stages": [stage]}))
        options = ["--plan", str(plan)]
    settings = ["training.per_device_train_batch_size=2", "training.use_cpu=true", "training.disable_tqdm=true"]
    command = ["train", "-m", decoder, "-o", str(tmp_path / "out"), "--steps", "2", *options, "--json"]
    found = CliRunner().invoke(app, [*command, *(part for one in settings for part in ("--set", one))])
    assert found.exit_code == 0, found.output
    [record] = load(tmp_path / "out").manifest.stages
    assert record["rows"] == ({"facts": 4, "classes": 4} if way == "pairs" else {"facts": 3, "classes": 3})
    assert record["data"]["mixture"] == str(mixture)


def test_mine_writes_a_mixture_that_trains(
    decoder: str, mixture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CliRunner().invoke(app, ["convert", decoder, "-o", str(tmp_path / "teacher"), "--recipe", "sgpt"])
    options = ["--teacher", str(tmp_path / "teacher"), "--preset", "top-k", "-n", "2", "-o", str(tmp_path / "mined")]
    report = run("mine", str(mixture), *options, "--json")
    assert report["sources"]["facts"]["rows_with_negatives"] == 4
    assert json.loads((tmp_path / "mined" / "report.json").read_text())["sources"] == report["sources"]
    facts, classes = run("show", report["mixture"], "--json")["sources"]
    assert facts["columns"] == classes["columns"] == ["query", "positive", "negative_1", "negative_2"]
    assert facts["prompts"] == {"query": "Find the fact:"} and len(classes["prompts"]) == 4
    assert facts["in_batch_negatives"] and not classes["in_batch_negatives"]
    monkeypatch.chdir(mixture.parent)  # what is not mined is still found from the new mixture's folder
    assert "mean score" in run("mine", mixture.name, *options, "--source", "facts")
    assert [one["name"] for one in run("show", report["mixture"], "--json")["sources"]] == ["facts", "classes"]
    refused = CliRunner().invoke(app, ["data", "mine", str(mixture), *options[:-1], str(tmp_path)])
    assert "not empty; give another one" in " ".join(refused.stderr.split())


def test_mining_never_writes_over_what_it_reads(decoder: str, mixture: Path, tmp_path: Path) -> None:
    convert(decoder, "sgpt", measure=False).save(str(tmp_path / "teacher"))
    options = ["--teacher", str(tmp_path / "teacher"), "--preset", "top-k", "-n", "1", "--json"]

    def refused(mixture: Path, target: Path, *more: str) -> str:
        found = CliRunner().invoke(app, ["data", "mine", str(mixture), *options, "-o", str(target), *more])
        assert found.exit_code == 1
        return " ".join(found.stderr.split())

    folder = tmp_path / "data"
    folder.mkdir()
    for file in (mixture, tmp_path / "facts.jsonl", tmp_path / "classes.csv"):
        file.rename(folder / ("mixture.yaml" if file == mixture else file.name))
    mixture = folder / "mixture.yaml"
    before = {file: file.read_bytes() for file in folder.iterdir()}
    assert "is no folder of mined rows, and not empty" in refused(mixture, folder)
    mined = Path(run("mine", str(mixture), *options, "-o", str(tmp_path / "mined"))["mixture"])
    assert "which is written; give another folder" in refused(mined, mined.parent, "--source", "facts")
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
    entries = [{"name": name, "path": str(folder / "facts.jsonl")} for name in ("a/b", "A b")]
    (tmp_path / "alike.yaml").write_text(json.dumps({"sources": entries}))
    assert "'a/b' and 'A b' would both be A_b.jsonl" in refused(tmp_path / "alike.yaml", tmp_path / "alike")


def test_mining_goes_on_with_the_sources_that_are_left(
    decoder: str, mixture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(decoder, "sgpt", measure=False).save(str(tmp_path / "teacher"))
    target, mined, true_mine = tmp_path / "mined", [], mine_source.mine_source
    options = ["--teacher", str(tmp_path / "teacher"), "-n", "1", "-o", str(target), "--preset"]

    def interrupted(source: Any, *given: Any, **named: Any) -> Any:
        mined.append(source.label)
        if mined == ["facts", "classes"]:
            raise KeyboardInterrupt
        return true_mine(source, *given, **named)

    monkeypatch.setattr(mine_source, "mine_source", interrupted)
    stopped = CliRunner().invoke(app, ["data", "mine", str(mixture), *options, "top-k"])
    assert stopped.exit_code and sorted(file.name for file in target.iterdir()) == ["facts.jsonl", "unfinished.json"]
    report = run("mine", str(mixture), *options, "top-k", "--json")
    assert mined == ["facts", "classes", "classes"] and set(report["sources"]) == {"facts", "classes"}
    assert not (target / "unfinished.json").exists()
    run("mine", str(mixture), *options, "top-k", "--seed", "7", "--json")
    assert mined[3:] == ["facts", "classes"], "a finished folder is mined anew"


def test_preview_shows_tokens_lengths_and_leaks(decoder: str, mixture: Path, tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("text,label\nCats purr when they are calm!,x\nsomething else,y\n")
    command = ["preview", str(mixture), "-m", decoder, "--eval", str(tmp_path / "test.csv")]
    facts, classes = run(*command, "--json")["sources"]
    tokens = facts["rows"][0]["query"]["tokens"]
    assert "".join(one["token"] for one in tokens if one["pooled"]).strip() == "what do cats do"
    assert "Find the fact:" in "".join(one["token"] for one in tokens if not one["pooled"])
    leak = facts["leaks"][str(tmp_path / "test.csv")]
    assert (leak["texts"], leak["exact"], leak["near"]) == (2, 1, 0)
    assert classes["columns"]["query"]["cut"] == 0
    shown = run("preview", str(tmp_path / "facts.jsonl"), "-m", decoder, "--rows", "1")
    assert "is pooled" in shown and "whole pairs" in shown
