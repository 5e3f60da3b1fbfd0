"""What a loss needs to know of the other processes of a run."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn


def unwrapped(model: nn.Module) -> SentenceTransformer:
    """The encoder inside what accelerate, DistributedDataParallel or ``torch.compile`` put around it."""
    found: Any = model
    while not isinstance(found, SentenceTransformer):
        found = found._orig_mod if hasattr(found, "_orig_mod") else found.module
    return found


def process_index() -> int:
    """The rank of this process, 0 where there is only one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def process_count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_share(count: Tensor) -> Tensor:
    """The mean of a count over the processes, at least one.

    Distributed training averages gradients over the processes. A sum that each divides by this number averages to the
    mean over everything that was counted, however unevenly it is spread.

    Args:
        count: This process's count, a scalar.

    Returns:
        A scalar of the same device.
    """
    if process_count() > 1:
        count = count.clone()
        dist.all_reduce(count)
    return (count / process_count()).clamp(min=1 / process_count())
