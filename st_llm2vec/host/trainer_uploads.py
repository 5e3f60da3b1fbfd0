"""Uploads by the host's trainer, which know nothing of what ``publish`` does."""

from __future__ import annotations

from typing import Any

from sentence_transformers import SentenceTransformerTrainer


def refuse_trainer_uploads(encoder_class: type) -> None:
    """Let no trainer upload encoders of a class.

    Every upload of a trainer begins by making sure of its repository, before anything is sent, and it asks neither the
    encoder nor a callback; so that step is where it is refused. Trainers of other models are left as they are.

    Args:
        encoder_class: The class.
    """
    make_repository = SentenceTransformerTrainer.init_hf_repo

    def init_hf_repo(trainer: Any, *args: Any, **kwargs: Any) -> None:
        if isinstance(trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False), encoder_class):
            raise ValueError(
                "push_to_hub of a trainer would upload the encoder as it is, unverified and with adapters apart from a base "
                "that others may not have. Leave push_to_hub out of the trainer's arguments, and publish the trained encoder: "
                'encoder.push_to_hub("org/name") merges, verifies and uploads it in one commit.'
            )
        make_repository(trainer, *args, **kwargs)

    SentenceTransformerTrainer.init_hf_repo = init_hf_repo  # type: ignore[assignment]
