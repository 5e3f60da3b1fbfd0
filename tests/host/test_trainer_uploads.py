"""The host's trainer uploads nothing by itself: not while it trains, and not when it is asked to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from peft import LoraConfig
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.model_card import SentenceTransformerModelCardData

from st_llm2vec import load

from ..conftest import TEXTS
from ..hub_server import Hub


def trainer(encoder: SentenceTransformer, output: Path, **more: Any) -> SentenceTransformerTrainer:
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(output), max_steps=1, use_cpu=True, report_to="none", disable_tqdm=True, **more
    )
    pairs = Dataset.from_dict({"anchor": TEXTS, "positive": TEXTS[::-1]})
    loss = MultipleNegativesRankingLoss(encoder)
    return SentenceTransformerTrainer(model=encoder, args=arguments, train_dataset=pairs, loss=loss)


@pytest.mark.parametrize("card", [None, SentenceTransformerModelCardData()])
@pytest.mark.parametrize("hub_model_id", [None, "org/trained"])
def test_a_trainer_makes_no_repository(
    hub: Hub, folder: Path, tmp_path: Path, card: Any, hub_model_id: str | None
) -> None:
    encoder = load(folder, device="cpu", model_card_data=card)
    encoder.add_adapter(LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="encoder.push_to_hub"):
        trainer(encoder, tmp_path / "out", push_to_hub=True, hub_model_id=hub_model_id)
    trained = trainer(encoder, tmp_path / "out", hub_model_id=hub_model_id)
    trained.train()
    with pytest.raises(ValueError, match="encoder.push_to_hub"):
        trained.push_to_hub()
    assert hub.repositories == {} and all(
        method == "GET" for method, _ in hub.requests
    )  # the model card asks for its base


def test_a_trainer_of_another_model_uploads_as_ever(hub: Hub, folder: Path, tmp_path: Path) -> None:
    trainer(SentenceTransformer(str(folder), device="cpu"), tmp_path, hub_model_id="org/plain").push_to_hub()
    assert "model.safetensors" in hub.repositories["org/plain"].files
