"""The stock trainer reads blocks, prompts for each dataset, and rows with their own instructions."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

from st_llm2vec import TextEncoder, convert, load
from st_llm2vec.data import TrainingSource, build_training_data, pack_blocks, pairs_from_labels
from st_llm2vec.losses import HardNegativesRankingLoss, MNTPLoss

from ..conftest import TEXTS

FIND, SAME = "Find the passage:", "Find the same:"


def train(
    encoder: TextEncoder, dataset: Dataset | DatasetDict, loss: Any, folder: Path, **options: Any
) -> SentenceTransformerTrainer:
    given = {"max_steps": 2, "save_steps": 2, "logging_steps": 1, "per_device_train_batch_size": 4}
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], disable_tqdm=True, **{**given, **options}
    )
    trainer = SentenceTransformerTrainer(model=encoder, args=arguments, train_dataset=dataset, loss=loss)
    before = [weight.detach().clone() for weight in encoder.parameters()]
    trainer.train()
    assert any(not torch.equal(old, new) for old, new in zip(before, encoder.parameters(), strict=True))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2 and all(0 < value < 20 for value in losses)
    return trainer


def sources() -> list[TrainingSource]:
    numbers = range(20)
    facts = {"query": [f"fact {n}" for n in numbers], "positive": [f"true {n}" for n in numbers]}
    retrieval = Dataset.from_dict({**facts, "negative": [f"false {n}" for n in numbers]})
    texts = list(itertools.chain.from_iterable((f"cat {n}", f"red {n}") for n in numbers))
    classes = pairs_from_labels(texts, [0, 1] * 20, negatives=1)
    return [
        TrainingSource(retrieval, query_instruction=FIND, name="nq"),
        TrainingSource(classes, query_instruction=SAME, symmetric=True, in_batch_negatives=False, name="banking"),
    ]


@pytest.mark.parametrize("recipe", ["llm2vec", "e5-mistral", "echo"])
def test_mntp_on_blocks(decoder: str, tmp_path: Path, recipe: str, caplog: pytest.LogCaptureFixture) -> None:
    encoder = convert(decoder, recipe, max_length=64)
    blocks = pack_blocks([f"{text} {number}" for number in range(9) for text in TEXTS], encoder.tokenizer, 32)
    seen: list[torch.Size] = []
    hook = encoder[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]["input_ids"].shape))
    trainer = train(encoder, blocks, MNTPLoss(encoder, mlm_probability=0.5), tmp_path)
    hook.remove()
    assert (1, 128) in seen
    assert "Error while" not in caplog.text
    checkpoint = tmp_path / "checkpoint-2"
    assert "<code>block</code>" in (checkpoint / "README.md").read_text()
    assert load(checkpoint).encode("a cat") == pytest.approx(trainer.model.encode("a cat"), abs=1e-6)


def test_blended_rows(decoder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = convert(decoder, "nv-embed", max_length=64, latent_attention={"num_latents": 4, "num_heads": 2})
    data = build_training_data(sources(), blended=True)
    loss = HardNegativesRankingLoss(encoder, in_batch_negatives="per_row")
    train(encoder, data.dataset, loss, tmp_path, batch_sampler="no_duplicates")
    assert "Error while" not in caplog.text and "Could not save" not in caplog.text
    card = (tmp_path / "checkpoint-2" / "README.md").read_text()
    assert "<code>query</code>, <code>positive</code>, <code>negative_1</code>, and <code>label</code>" in card
    assert load(tmp_path / "checkpoint-2").layout == "custom"


def test_blended_rows_need_custom_modules(decoder: str, tmp_path: Path) -> None:
    encoder = convert(decoder, "llm2vec", max_length=64)
    data = build_training_data(sources(), blended=True)
    loss = HardNegativesRankingLoss(encoder, in_batch_negatives="per_row")
    with pytest.raises(ValueError, match="one dataset for each instruction"):
        train(encoder, data.dataset, loss, tmp_path, per_device_train_batch_size=20)


def test_one_dataset_a_batch_with_its_own_prompts(decoder: str, tmp_path: Path) -> None:
    encoder = convert(decoder, "llm2vec", max_length=64)
    data = build_training_data(sources())
    losses = {
        name: HardNegativesRankingLoss(encoder, in_batch_negatives=switch)
        for name, switch in data.in_batch_negatives.items()
    }
    read: list[tuple[frozenset[str], str | None]] = []
    preprocess = encoder.preprocess

    def spy(inputs: Any, prompt: str | None = None, task: str | None = None, **options: Any) -> dict[str, Any]:
        if task is None:
            read.append((frozenset(text.split()[0] for text in inputs), prompt))
        return preprocess(inputs, prompt=prompt, task=task, **options)

    encoder.preprocess = spy  # type: ignore[method-assign]
    mixed = {"prompts": data.prompts, "multi_dataset_batch_sampler": "round_robin"}
    train(encoder, data.dataset, losses, tmp_path, per_device_train_batch_size=16, **mixed)
    queries, classes = frozenset(["fact"]), frozenset(["cat", "red"])
    expected = {(queries, FIND), (frozenset(["true"]), None), (frozenset(["false"]), None), (classes, SAME)}
    assert set(read) == expected
