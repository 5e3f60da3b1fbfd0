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
    sample = read_task(next(spec for spec in tasks.specs(tasks.SAMPLE) if spec.name == "Cranfield"))
    assert isinstance(sample, Collection) and len(sample.queries) == 20 and len(sample.corpus) < 400


def test_a_page_is_written_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "TARGET", tmp_path / "tasks.md")
    cost = {"seconds": 12.3, "memory": 2**30}
    results = [
        {**cost, "task": "TREC", "metric": "accuracy", "scores": {"accuracy": 87.654}, "texts": 600},
        {
            **cost,
            "task": "STS-B test",
            "metric": "spearman",
            "scores": {"spearman": 50.0, "pearson": 49.0},
            "texts": 1000,
        },
    ]
    about = {"part": tasks.SAMPLE, "machine": "two cores", "results": results}
    tasks.write_page([{**about, "model": "TF-IDF", "recipe": ""}, {**about, "model": "box", "recipe": "sgpt"}])
    written = (tmp_path / "tasks.md").read_text()
    assert "TREC<br>accuracy, 600 texts" in written and "Whole files" not in written
    assert written.endswith("| TF-IDF |  | 87.7 | 50.0 | 25 | 1.0 |\n| box | sgpt | 87.7 | 50.0 | 25 | 1.0 |\n")
