"""How far apart vectors are."""

from __future__ import annotations

import numpy as np


def largest_cosine_distance(first: np.ndarray, second: np.ndarray) -> float:
    """The largest cosine distance between vectors in the same place; infinite where one is not a number.

    Example:
        >>> largest_cosine_distance(np.array([[3.0, 4.0]]), np.array([[4.0, 3.0]]))
        0.04
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        return float("inf")
    distances = 1 - (first * second).sum(axis=-1) / lengths
    return float(np.maximum(distances, 0).max().round(15))
