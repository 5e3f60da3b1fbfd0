"""What a loss needs to know of what stands around it: the wrapped model, the other processes, a loss that wraps it."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses.adaptive_layer import TransformerDecorator
from sentence_transformers.util import get_world_size
from torch import Tensor, nn


def unwrapped(model: nn.Module) -> SentenceTransformer:
    """The encoder inside what accelerate, DistributedDataParallel or ``torch.compile`` put around it."""
    found: Any = model
    while not isinstance(found, SentenceTransformer):
        found = found._orig_mod if hasattr(found, "_orig_mod") else found.module
    return found


def reuses_layers(model: nn.Module) -> bool:
    """Whether ``AdaptiveLayerLoss`` runs the loss, again and again on the layers that the first pass left behind."""
    return isinstance(unwrapped(model)[0].__dict__.get("forward"), TransformerDecorator)


def refuse_reused_layers(loss: nn.Module, model: nn.Module) -> None:
    """Raise if ``AdaptiveLayerLoss`` runs a loss whose gradients come from passes of its own.

    Args:
        loss: The loss.
        model: Its encoder.

    Raises:
        ValueError: If it does.
    """
    if reuses_layers(model):
        raise ValueError(
            f"{type(loss).__name__} passes its texts anew in the backward pass, where AdaptiveLayerLoss and "
            "Matryoshka2dLoss have no layers for it. Give them a loss without mini-batches: mini_batch_size=None, or "
            "HardNegativesRankingLoss."
        )


def process_share(count: Tensor) -> Tensor:
    """The mean of a count over the processes, at least one.

    Distributed training averages gradients over the processes. A sum that each divides by this number averages to the
    mean over everything that was counted, however unevenly it is spread.

    Args:
        count: This process's count, a scalar.

    Returns:
        A scalar of the same device.
    """
    if get_world_size() > 1:
        count = count.clone()
        dist.all_reduce(count)
    return (count / get_world_size()).clamp(min=1 / get_world_size())
