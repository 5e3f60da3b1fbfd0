"""Encoders train in the stock trainer, and its checkpoints are encoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from st_llm2vec import convert, load
from tests.promises import Promise

PAIRS = Dataset.from_dict(
    {
        "anchor": ["a cat", "a dog", "the sea", "a violin"] * 2,
        "positive": ["cats purr", "dogs bark", "waves roll", "strings sing"] * 2,
    }
)


def trainer(decoder: str, recipe: str, folder: Path, steps: int) -> SentenceTransformerTrainer:
    encoder = convert(decoder, recipe, max_length=64)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        save_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        prompts={"anchor": "Find the story:"},
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    loss = MultipleNegativesRankingLoss(encoder)
    return SentenceTransformerTrainer(model=encoder, args=arguments, train_dataset=PAIRS, eval_dataset=PAIRS, loss=loss)


@pytest.mark.promise(Promise.HOST_TRAINS)
@pytest.mark.parametrize("recipe", ["llm2vec", "e5-mistral", "echo"])
def test_the_stock_trainer(decoder: str, tmp_path: Path, recipe: str, caplog: pytest.LogCaptureFixture) -> None:
    training = trainer(decoder, recipe, tmp_path, steps=2)
    before = training.model.encode("a cat")
    training.train()
    assert "Could not load the best model" not in caplog.text
    assert np.abs(training.model.encode("a cat") - before).max() > 1e-5
    best = Path(training.state.best_model_checkpoint)
    expected = training.model.encode(["a cat", "the sea"], prompt="Find the story: ")
    for model in (load(best, verify=True), SentenceTransformer(str(best), trust_remote_code=recipe == "echo")):
        found = model.encode(["a cat", "the sea"], prompt="Find the story: ")
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert load(best).manifest.config.name == recipe


def test_what_is_pooled_does_not_learn(decoder: str, tmp_path: Path) -> None:
    convert(decoder, "llm2vec").save(str(tmp_path / "encoder"))
    for encoder in (convert(decoder, "llm2vec"), load(tmp_path / "encoder")):
        assert {name.split(".")[0] for name, weight in encoder.named_parameters() if weight.requires_grad} == {"0"}


def test_resuming_continues_from_the_checkpoint(decoder: str, tmp_path: Path) -> None:
    trainer(decoder, "echo", tmp_path, steps=1).train()
    resumed = trainer(decoder, "echo", tmp_path, steps=2)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 2
