"""No encoder with a weight that is not a number is saved, imported or published, and the blame is the weight's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


def require_finite(weights: nn.Module | Mapping[str, Tensor], source: str) -> None:
    """Raise if a weight is infinite or not a number; otherwise an attention probe would be blamed for it.

    Args:
        weights: A model, or tensors by name.
        source: Whose they are, for the message.

    Raises:
        ValueError: If there is one; the message names the weight.
    """
    named: Iterable[tuple[str, Tensor]]
    named = weights.items() if isinstance(weights, Mapping) else weights.named_parameters()
    broken = [name for name, weight in named if not is_finite(weight)]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise ValueError(
            f"{source} has weights that are not finite ({broken[0]}{more}), so its vectors would not be numbers. A training "
            "run diverged, or the file is damaged: take an earlier checkpoint, or train with a smaller learning rate."
        )


@torch.no_grad()
def is_finite(weight: Tensor) -> bool:
    """Whether all elements are finite; the smallest and the largest tell, in one pass without a copy.

    Example:
        >>> is_finite(torch.tensor([0.0, 1.0])), is_finite(torch.tensor([0.0, float("nan")]))
        (True, False)
    """
    if not weight.is_floating_point() or weight.is_meta or not weight.numel():
        return True
    wide = weight if weight.element_size() > 1 else weight.float()
    return all(bool(one.isfinite()) for one in torch.aminmax(wide.detach()))
