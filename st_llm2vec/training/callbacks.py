"""What the trainer shows while it trains."""

from __future__ import annotations

import time
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from transformers import TrainerCallback


class Throughput(TrainerCallback):
    """Adds ``tokens_per_second`` to the trainer's log lines: tokens read by the decoder, padding not counted.

    Args:
        encoder: The encoder that is trained.
    """

    def __init__(self, encoder: SentenceTransformer) -> None:
        self.transformer = encoder[0]
        self.tokens: torch.Tensor | int = 0
        self.since = 0.0
        self.hook: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start counting."""
        self.hook = self.transformer.register_forward_pre_hook(self._count)
        self.tokens, self.since = 0, time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Add the rate since the last log line to this one."""
        if logs is not None and "loss" in logs:
            now = time.perf_counter()
            rate = round(int(self.tokens) / max(now - self.since, 1e-9))
            logs["tokens_per_second"] = rate
            if state.log_history:
                state.log_history[-1]["tokens_per_second"] = rate
            self.tokens, self.since = 0, now

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop counting."""
        if self.hook is not None:
            self.hook.remove()

    def _count(self, module: Any, inputs: tuple[Any, ...]) -> None:
        if module.training:
            self.tokens = self.tokens + inputs[0]["attention_mask"].sum()


class StopAfter(TrainerCallback):
    """Stops training after some steps, short of the horizon that the learning rate is planned for.

    Args:
        steps: How many.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop, and save, when the step has come."""
        if state.global_step >= self.steps:
            control.should_save = control.should_training_stop = True
