"""The tasks of docs/tasks.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import tasks
from st_llm2vec.evaluation.task_data import Collection, read_task


def test_every_file_of_the_plan_is_there(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "DATA", shared_data)
    monkeypatch.setattr(tasks, "REWRITTEN", tmp_path)
    monkeypatch.setenv("ST_LLM2VEC_TASK_FILES", str(tmp_path))
    monkeypatch.setenv("ST_LLM2VEC_DATA", str(shared_data))
    tasks.rewrite(shared_data, tmp_path)
    specs = {spec.name: spec for spec in tasks.specs()}
    assert all(Path(file).is_file() for spec in specs.values() for file in spec.files.values())
    rows = {file.name: file.read_text().splitlines() for file in tmp_path.iterdir()}
    assert {name: len(found) for name, found in rows.items()} == {
        "clinc150-train.jsonl": 15_000,
        "clinc150-test.jsonl": 4_500,
        "trec-train.jsonl": 5_452,
        "trec-test.jsonl": 500,
        "search-snippets.jsonl": 12_340,
    }
    assert json.loads(rows["trec-test.jsonl"][0]) == {"text": "How far is it from Denver to Aspen ?", "label": "5"}
    cranfield = read_task(specs["Cranfield"])
    assert isinstance(cranfield, Collection) and len(cranfield.queries) == 225 and len(cranfield.corpus) == 1398
    assert sum(map(len, cranfield.relevant.values())) > 1_600


def test_a_page_is_written_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "TARGET", tmp_path / "tasks.md")
    row = {"model": "box", "recipe": "sgpt", "task": "TREC", "machine": "two cores", "metric": "accuracy"}
    tasks.write_page([{**row, "scores": {"accuracy": 87.654}, "seconds": 12.3, "memory": 2**30}])
    assert (tmp_path / "tasks.md").read_text().endswith("| box | sgpt | TREC | accuracy | 87.7 | 12 | 1.0 |\n")
