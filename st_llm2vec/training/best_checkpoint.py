"""Did the trainer really go back to its best checkpoint?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainer


def prove_best_model(trainer: SentenceTransformerTrainer) -> None:
    """Raise unless the trainer holds the weights of its best checkpoint; on failure it would only log.

    Args:
        trainer: A trainer that has trained with ``load_best_model_at_end``.

    Raises:
        RuntimeError: If the best checkpoint is not there, or its weights are not the model's.
    """
    best = trainer.state.best_model_checkpoint
    if best is None or not Path(best).is_dir():
        raise RuntimeError(
            "There is no best checkpoint to go back to: evaluate and save at the same steps, e.g. training: "
            "{eval_steps: 100, save_steps: 100}."
        )
    model: Any = trainer.model
    stored = type(model)._load_with_module_classes(best, {}).to(model.device)
    weights = model.state_dict()
    for name, weight in stored.state_dict().items():
        if isinstance(weight, torch.Tensor) and not torch.equal(weight.to(weights[name].dtype), weights[name]):
            raise RuntimeError(
                f"The best checkpoint {best} could not be read back: {name} differs. The trainer's log says why; the "
                "checkpoints are kept."
            )
