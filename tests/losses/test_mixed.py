"""All losses in one run of the stock trainer, one for each dataset."""

from __future__ import annotations

import math
from pathlib import Path

from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

from st_llm2vec import convert, load
from st_llm2vec.data import pack_blocks
from st_llm2vec.losses import CachedHardNegativesRankingLoss, HardNegativesRankingLoss, MNTPLoss, SimCSELoss

from ..conftest import INSTRUCTION, TEXTS, cosine_distance

PAIRS = {"query": TEXTS, "positive": TEXTS[1:] + TEXTS[:1], "negative": TEXTS[2:] + TEXTS[:2]}


def test_every_loss_in_one_run(decoder: str, tmp_path: Path) -> None:
    encoder = convert(decoder, "llm2vec", max_length=64)
    before = encoder.encode(TEXTS)
    sentences = Dataset.from_dict({"text": TEXTS})
    datasets = DatasetDict(
        {
            "blocks": pack_blocks(sentences, encoder.tokenizer, 8),
            "sentences": sentences,
            "pairs": Dataset.from_dict(PAIRS),
            "triplets": Dataset.from_dict({**PAIRS, "label": [1, 0, 1, 0, 1]}),
        }
    )
    losses = {
        "blocks": MNTPLoss(encoder),
        "sentences": SimCSELoss(encoder),
        "pairs": HardNegativesRankingLoss(encoder, in_batch_negatives=False),
        "triplets": CachedHardNegativesRankingLoss(encoder, in_batch_negatives="per_row", mini_batch_size=2),
    }
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=1,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        prompts={"pairs": {"query": INSTRUCTION}},
        save_strategy="epoch",
        eval_strategy="epoch",
        logging_steps=1,
        gradient_checkpointing=True,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = SentenceTransformerTrainer(encoder, arguments, datasets, eval_dataset=datasets, loss=losses)
    trainer.train()
    found = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(found) >= 8 and all(math.isfinite(value) for value in found) and max(found) > 0
    evaluated = trainer.evaluate()
    assert all(math.isfinite(evaluated[f"eval_{name}_loss"]) for name in datasets)
    assert cosine_distance(before, encoder.encode(TEXTS)) > 1e-6
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    assert cosine_distance(load(checkpoint).encode(TEXTS), encoder.encode(TEXTS)) < 1e-6
