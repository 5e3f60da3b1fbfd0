"""LLM2Vec with the paper's step counts, on the decoder in the box or on another, scored after each stage."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from benchmarks.learning import write_data
from benchmarks.learning_tasks import evaluate
from st_llm2vec import convert, decoder_path, load
from st_llm2vec.training import MNTP, SimCSE, Stage, Supervised

STEPS = 1000  # LLM2Vec, arXiv 2404.05961, appendix D.1, for all three stages
TASKS = ("STS-B dev", "STS-B test", "TREC", "Cranfield")
UNTRAINED: dict[str, tuple[str, dict[str, Any]]] = {
    "causal, mean": ("llm2vec", {"attention": "causal"}),
    "causal, weighted mean": ("sgpt", {}),
    "PromptEOL": ("prompteol", {}),
    "PromptEOL, one demonstration": ("prompteol-icl", {}),
    "bidirectional, mean": ("llm2vec", {}),
}
ADAPTER = {"r": 16, "alpha": 32, "dropout": 0.05}
SHARED: dict[str, Any] = {"bf16": True, "save_strategy": "no", "logging_steps": 100, "warmup_steps": 50}
RATES = {"mntp": 1e-3, "simcse": 3e-4, "supervised": 3e-4}


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Train each stage and score every row; nothing where there is no data, or where the time is over."""
    if not (given.data / "sts").is_dir():
        return {"problems": [], "skipped": f"there is no data to learn from: {given.data.name}/sts is not there"}
    decoder = given.decoder or decoder_path()
    steps = 2 if given.tiny else STEPS
    tasks = TASKS[:1] if given.tiny else TASKS
    found: dict[str, Any] = {
        "decoder": Path(decoder).name if given.decoder else "the decoder in the box",
        "learns": "LoRA of rank 16" if given.decoder else "all weights",
        "tasks": tasks,
        "counts": write_data(given.data, given.work / "learning" / "data"),
        "steps": steps,
        "rates": RATES,
        "rows": {},
        "problems": [],
    }
    for name, (recipe, changes) in UNTRAINED.items():
        encoder = convert(decoder, recipe, measure=False, device=given.device, **changes)
        found["rows"][name] = evaluate(encoder, given.data, tasks)
        print(name, found["rows"][name], flush=True)
    adapter = dict(ADAPTER) if given.decoder else None
    for name, stage in stages(decoder, given.work / "learning", steps, given.tiny, adapter).items():
        if time.monotonic() > given.end:
            found["problems"] = [f"learning: {name} and what follows were not begun, the time was over."]
            break
        begun = time.perf_counter()
        stage.run()
        seconds = time.perf_counter() - begun
        scores = evaluate(load(stage.output, device=given.device), given.data, tasks)
        found["rows"][name] = {"seconds": seconds, **scores}
        print(name, found["rows"][name], flush=True)
    return found


def stages(decoder: str, work: Path, steps: int, on_cpu: bool, adapter: dict[str, Any] | None) -> dict[str, Stage]:
    """The runs, by the row of the table that they make."""
    data = work / "data"
    mntp = str(work / "mntp")

    def settings(kind: str, start: str, name: str, **more: Any) -> dict[str, Any]:
        training = {**SHARED, "max_steps": steps, "learning_rate": RATES[kind], **more}
        if on_cpu:
            training |= {"use_cpu": True, "bf16": False, "per_device_train_batch_size": 8}
        return {"model": start, "output": str(work / name), "adapter": adapter, "training": training}

    sentences = str(data / "sentences.jsonl")
    pairs = {"data": [{"path": str(data / "triplets.jsonl")}, {"path": str(data / "paraphrases.jsonl")}], "scale": 20.0}
    simcse = {"data": sentences, "max_length": 32, "attention_dropout": 0.3}
    large = {"per_device_train_batch_size": 128}
    found: dict[str, Stage] = {
        "+ MNTP": MNTP(
            data=sentences,
            block_size=128,
            **settings("mntp", decoder, "mntp", per_device_train_batch_size=128),
        ),
        "+ SimCSE": SimCSE(**simcse, **settings("simcse", decoder, "simcse")),
        "+ MNTP + SimCSE": SimCSE(**simcse, **settings("simcse", mntp, "mntp-simcse")),
        "+ supervised": Supervised(**pairs, max_length=64, **settings("supervised", decoder, "supervised", **large)),
        "+ MNTP + supervised": Supervised(
            **pairs, max_length=64, **settings("supervised", mntp, "mntp-supervised", **large)
        ),
    }
    return found
