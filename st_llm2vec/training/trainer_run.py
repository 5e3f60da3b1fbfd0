"""Train from where a run stopped, and make sure that the best checkpoint is what the run ends with."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from sentence_transformers import SentenceTransformerTrainer
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from st_llm2vec.folder.weights import learned_beside_quantized
from st_llm2vec.training.curve import points
from st_llm2vec.training.run_folder import was_over

logger = logging.getLogger(__name__)


class TrainingError(ValueError):
    """What was trained could not be brought to its end; the checkpoints are kept."""


def train_from(trainer: SentenceTransformerTrainer, checkpoint: str | None) -> None:
    """Train, from a checkpoint if there is one; one that was written at the end of training is only read.

    Args:
        trainer: The trainer.
        checkpoint: The last complete checkpoint.

    Raises:
        TrainingError: If the best checkpoint is asked for and could not be read back.
    """
    best = trainer.args.load_best_model_at_end
    if checkpoint is not None and was_over(checkpoint):
        trainer.state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        trainer._load_from_checkpoint((trainer.state.best_model_checkpoint if best else None) or checkpoint)
    else:
        if checkpoint is not None:
            trainer.args.eval_on_start = False  # it was, and once more would count as an evaluation without progress
        trainer.train(resume_from_checkpoint=checkpoint)
    if PartialState().is_main_process:
        if best:
            prove_best_model(trainer)
        _warn_of_scores(trainer.state, str(trainer.args.metric_for_best_model), best)


def prove_best_model(trainer: SentenceTransformerTrainer) -> None:
    """Raise unless the trainer holds the weights of its best checkpoint; on failure it would only log.

    Args:
        trainer: A trainer that has trained with ``load_best_model_at_end``.

    Raises:
        TrainingError: If the best checkpoint is not there, or its weights are not the model's.
    """
    best, step = trainer.state.best_model_checkpoint, trainer.state.best_global_step
    if best is None or not Path(best).is_dir() or not best.endswith(f"-{step}"):
        raise TrainingError(
            f"The best score was that of step {step}, and there is no checkpoint of it: evaluate and save at the same "
            "steps, e.g. training: {eval_steps: 100, save_steps: 100}."
        )
    model: Any = trainer.model
    stored = type(model)._load_with_module_classes(best, {}, device="cpu").state_dict()
    if getattr(model.transformer.model, "is_quantized", False):
        stored = learned_beside_quantized(stored, model.transformer.model)
    weights = model.state_dict()
    for name, weight in stored.items():
        if isinstance(weight, torch.Tensor) and not torch.equal(weight.to(weights[name].dtype), weights[name].cpu()):
            raise TrainingError(
                f"The best checkpoint {best} could not be read back: {name} differs. The trainer's log says why; the "
                "checkpoints are kept."
            )


def _warn_of_scores(state: TrainerState, metric: str, best: bool) -> None:
    """Say where the scores could not choose a checkpoint, and where what is kept has none above that before training."""
    scores = points(state.log_history, metric)
    before = scores.pop(0, None)  # of no training, which does not compete
    if not scores:
        return
    kept = state.best_global_step if best and state.best_global_step is not None else max(scores)
    if best and len(set(scores.values())) == 1:
        logger.warning(
            "%s gave %s=%.4g, which chose nothing: the first checkpoint with it, of step %d of %d, was kept. Evaluate more often "
            "(training.eval_steps) or on more pairs, or end with the last weights: keep_best: false.",
            "The one evaluation" if len(scores) == 1 else f"All {len(scores)} evaluations",
            metric,
            scores[kept],
            kept,
            state.global_step,
        )
    elif before is not None and scores[kept] <= before:
        logger.warning(
            "%s was %.4g before the first step and is %.4g at step %d, whose weights are the result: training has not raised it. "
            "The curve is in training_report.md; the learning rate, the number of steps and the data are what to look at.",
            metric,
            before,
            scores[kept],
            kept,
        )
