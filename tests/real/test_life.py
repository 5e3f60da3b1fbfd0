"""The life of a real encoder: the headline command, killed once and continued; a third stage; the Hub; every door."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from st_llm2vec import convert, load
from st_llm2vec.corpus import read_embeddings

from ..conftest import TEXTS, cosine_distance
from ..elsewhere import BLOCK_THE_PACKAGE
from ..hub_server import serve_hub
from ..publishing.conftest import TOKEN, USERS

pytestmark = pytest.mark.real

STEPS = 20
WORDS = "the old clock in a hall struck seven and cats slept on twelve ships while rain fell over quiet hills".split()
QUERY = "Find the sentence that says it:"
THERE = """
import sys
import numpy as np
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("org/encoder", device="cpu")
texts = sys.argv[2].split("|")
np.save(sys.argv[1], np.stack([model.encode_document(texts), model.encode_query(texts)]))
"""
ADAPTED = """
import sys
import numpy as np
from tests.real.test_doors import by_adapters

texts = sys.argv[2].split("|")
np.save(sys.argv[1], [np.stack([*documents, *queries]) for documents, *queries in by_adapters("org/encoder", texts)])
"""


def drawn_sentences(count: int) -> list[str]:
    drawn = random.Random(1)
    return [" ".join(drawn.choices(WORDS, k=drawn.randint(3, 8))).capitalize() + "." for _ in range(count)]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "st_llm2vec", *map(str, arguments)]


def run_killed_once(train: list[str], checkpoint: Path, log: Path) -> None:
    """Run a command, kill it as soon as there is a checkpoint, and run it again to its end."""
    with log.open("w") as out:
        process = subprocess.Popen(train, stdout=out, stderr=out)
        while process.poll() is None and not (checkpoint / "trainer_state.json").is_file():
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, log.read_text()
    done = subprocess.run(train, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def headline(decoder: str, folder: Path, *options: str) -> Path:
    """Train by the headline command, killed once in its first stage, and hold the folder against the unmerged adapter."""
    texts, out = folder / "texts.txt", folder / "out"
    texts.write_text("\n".join(drawn_sentences(64)) + "\n")
    train = command("train", "--recipe", "llm2vec", "--model", decoder, "--texts", texts, "--steps", STEPS, *options)
    train += ["--batch-size", "2", "--output", str(out)]
    train += ["--set", "training.save_steps=10", "--set", "stages.0.block_size=8"]
    run_killed_once(train, folder / "out-stages/1-mntp/checkpoints/checkpoint-10", folder / "log")
    trained = load(out, verify=True)
    assert trained.layout == "text" and [record["steps"] for record in trained.manifest.stages] == [STEPS, STEPS]
    starts = [convert(decoder, "llm2vec", measure=False, dtype=torch.float32), load(f"{out}-stages/1-mntp")]
    for start, stage in zip(starts, (Path(f"{out}-stages/1-mntp"), out), strict=True):
        unmerged = load(stage / f"checkpoints/checkpoint-{STEPS}", dtype=torch.float32)
        merged, plain = load(stage), SentenceTransformer(str(stage), device="cpu")
        assert merged.dtype == torch.float32  # bfloat16 would keep a few percent of so short a training
        moved = unmerged.encode(TEXTS) - start.encode(TEXTS)
        assert cosine_distance(plain.encode(TEXTS), merged.encode(TEXTS)) < 1e-6
        assert cosine_distance(merged.encode(TEXTS), unmerged.encode(TEXTS)) < 1e-6
        assert cosine_distance(merged.encode(TEXTS) - start.encode(TEXTS), moved) < 1e-3
    return out


@pytest.mark.slow
def test_the_headline_command_in_bfloat16(real_decoder: str, tmp_path: Path) -> None:
    """The decoder as it is stored; a step takes seconds where the processor has no bfloat16."""
    headline(real_decoder, tmp_path)


def test_from_the_headline_command_to_the_hub(real_decoder: str, tmp_path: Path) -> None:
    out, pairs = headline(real_decoder, tmp_path, "--dtype", "float32"), tmp_path / "pairs.jsonl"
    texts = drawn_sentences(120)
    rows = [
        {"query": text.lower(), "positive": text, "negative": other}
        for text, other in zip(texts[:40], texts[80:], strict=True)
    ]
    pairs.write_text("\n".join(map(json.dumps, rows)))
    plan = {
        "model": str(out),
        "stages": [{"stage": "supervised", "data": {"path": str(pairs)}, "max_length": 32}],
        "training": {"max_steps": STEPS, "per_device_train_batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 0},
    }
    (tmp_path / "plan.yaml").write_text(json.dumps(plan))
    third = command("train", "--plan", tmp_path / "plan.yaml", "--output", tmp_path / "third")
    subprocess.run(third, check=True, capture_output=True)
    encoder = load(tmp_path / "third", prompts={"query": QUERY})
    encoder.save_pretrained(str(tmp_path / "final"))
    meant = np.stack([encoder.encode_document(TEXTS), encoder.encode_query(TEXTS)])
    assert cosine_distance(meant[0], load(out).encode(TEXTS)) > 1e-5

    with serve_hub(users=USERS) as hub:
        environment = {**hub.environment(tmp_path / "hf"), "HF_TOKEN": TOKEN}

        def at_the_hub(arguments: list[str]) -> None:
            done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr

        at_the_hub(command("publish", tmp_path / "final", "org/encoder", "--base-model", "org/decoder"))
        at_the_hub([sys.executable, "-c", BLOCK_THE_PACKAGE + THERE, str(tmp_path / "there.npy"), "|".join(TEXTS)])
        assert cosine_distance(np.load(tmp_path / "there.npy"), meant) < 1e-6
        at_the_hub([sys.executable, "-c", ADAPTED, str(tmp_path / "adapted.npy"), "|".join(TEXTS)])
        for found in np.load(tmp_path / "adapted.npy"):
            assert cosine_distance(found[: len(TEXTS)], meant[0]) < 1e-6
            assert cosine_distance(found[len(TEXTS) :], meant[1][:2]) < 1e-6
        (tmp_path / "corpus.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
        at_the_hub(command("embed", "org/encoder", "-i", tmp_path / "corpus.jsonl", "-o", tmp_path / "vectors"))
    vectors = np.concatenate([vectors.numpy() for _, vectors in read_embeddings(tmp_path / "vectors")])
    assert cosine_distance(vectors, meant[0]) < 1e-6
