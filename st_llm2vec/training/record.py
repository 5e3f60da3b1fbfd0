"""What a stage leaves in the manifest of its encoder."""

from __future__ import annotations

from typing import Any

from accelerate import PartialState
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer

from st_llm2vec.data import TrainingData
from st_llm2vec.training.curve import mean_loss
from st_llm2vec.training.report import evaluated, took
from st_llm2vec.training.settings import put_on_top
from st_llm2vec.training.stage_settings import StageSettings


def stage_record(stage: StageSettings, trainer: SentenceTransformerTrainer, data: TrainingData) -> dict[str, Any]:
    """What was trained on what, for the manifest and the model card.

    Args:
        stage: The stage; the arguments of its paper are recorded with those that it was given.
        trainer: Its trainer, after training.
        data: What it trained on.
    """
    log, best_step = trainer.state.log_history, trainer.state.best_global_step
    losses = [entry["loss"] for entry in log if "loss" in entry]
    rows = {"train": data.dataset} if isinstance(data.dataset, Dataset) else dict(data.dataset)
    kept = stage.to_dict()
    kept["training"] = put_on_top(stage.arguments_of_paper, stage.training)
    return {
        "name": stage.called,
        "method": type(stage).__name__,
        "from": stage.model,
        "data": kept.pop("data"),
        "rows": {name: len(dataset) for name, dataset in rows.items()},
        "instructions": stage.instructions(),
        "settings": {name: value for name, value in kept.items() if name not in ("model", "output", "stage")},
        "steps": trainer.state.global_step,
        "last_loss": losses[-1] if losses else None,
        "mean_loss": mean_loss(log),
        "best": trainer.state.best_metric,
        "evaluation": evaluated(log, stage.metric, best_step if stage.keeps_best else None),
        "took": took(log),
        "processes": PartialState().num_processes,
        "merged": False,
    }
