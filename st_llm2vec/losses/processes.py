"""What a loss needs to know of the other processes of a run."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import get_world_size
from torch import Tensor, nn


def unwrapped(model: nn.Module) -> SentenceTransformer:
    """The encoder inside what accelerate, DistributedDataParallel or ``torch.compile`` put around it."""
    found: Any = model
    while not isinstance(found, SentenceTransformer):
        found = found._orig_mod if hasattr(found, "_orig_mod") else found.module
    return found


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
