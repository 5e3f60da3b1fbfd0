"""``accelerate launch`` with two processes runs the stages of the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from st_llm2vec import load

from ..conftest import TEXTS, cosine_distance
from ..losses.test_processes import launch


@pytest.mark.slow  # tests/losses/test_processes.py holds the losses of two processes against one, in seconds
def test_two_processes_train_mntp_simcse_and_both_stages(
    decoder: str, tmp_path: Path, texts_file: str, pairs_file: str
) -> None:
    sources = [
        {"path": pairs_file, "name": "with negatives"},
        {"path": pairs_file, "name": "without", "columns": {"query": "query", "positive": "positive"}, "negatives": 0},
    ]
    new_token = {"mask_token": "<mask>", "add_mask_token": True, "train_head": True}
    plan = {
        "model": decoder,
        "training": {"max_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-3, "use_cpu": True},
        "stages": [
            {"stage": "mntp", "data": texts_file, "block_size": 24, **new_token, "training": {"save_steps": 1}},
            {"stage": "simcse", "data": texts_file, "max_length": 32},
            {"stage": "supervised", "data": pairs_file, "max_length": 32, "training": {"warmup_steps": 0}},
            # Each batch has one source's columns in both processes; else one would wait for the other's for ever.
            {"stage": "supervised", "data": sources, "max_length": 32, "training": {"warmup_steps": 0, "max_steps": 6}},
            {"stage": "blended", "data": pairs_file, "max_length": 32, "blended": False},
        ],
    }
    (tmp_path / "plan.yaml").write_text(json.dumps(plan))
    launch("-m", "st_llm2vec", "train", "--plan", str(tmp_path / "plan.yaml"), "--output", str(tmp_path / "out"))
    encoder = load(tmp_path / "out")
    records = encoder.manifest.stages
    assert [record["name"] for record in records] == ["mntp", "simcse", "supervised", "supervised", "blended"]
    assert all(record["processes"] == 2 and record["steps"] in (2, 6) and record["merged"] for record in records)
    assert cosine_distance(SentenceTransformer(str(tmp_path / "out")).encode(TEXTS), encoder.encode(TEXTS)) < 1e-6
