"""How exactly things that are meant to be the same must be so, by the type of the weights, and why."""

from __future__ import annotations

from dataclasses import dataclass

import torch

FULL_PRECISION = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Tolerance:
    """The largest difference that rounding explains.

    Args:
        full: In float32 and float64.
        half: In bfloat16 and float16.
        reason: Where the numbers come from.
    """

    full: float
    half: float
    reason: str

    def of(self, dtype: torch.dtype, rounding: float = 0.0) -> float:
        """The one for a type of weights.

        Args:
            dtype: The type.
            rounding: How far a model's vectors in half precision are from those in float32, where that was measured. Two
                passes that are so far from the same vector are twice the angle apart at most, four times the cosine distance.

        Example:
            >>> VECTORS.of(torch.float32), VECTORS.of(torch.bfloat16), VECTORS.of(torch.bfloat16, rounding=0.002)
            (1e-06, 0.001, 0.008)
        """
        return self.full if dtype in FULL_PRECISION else max(self.half, 4 * rounding)


VECTORS = Tolerance(
    1e-6,
    1e-3,
    "Cosine distance of a text's vectors by two doors or in two batches. Two orders of summation in float32 are 1e-12 to 1e-9 "
    "apart, a token that is read or pooled otherwise 1e-3 and more. In bfloat16 each product has 8 bits.",
)
DRIFT = Tolerance(
    1e-6,
    1e-2,
    "Cosine distance of a text's vectors in a type of weights and in float32. Of two real decoders of 18 and 30 layers in bfloat16 "
    "it is 5.2e-3 at most.",
)
MERGED_VECTORS = Tolerance(
    1e-5,
    1e-5,
    "Cosine distance before and after a merge, which is computed in float32 whatever the weights are stored in. The sum of "
    "weights and update rounds once more than either.",
)
SERVED_VECTORS = Tolerance(
    1e-5,
    1e-5,
    "Cosine distance of a text's vectors in another engine that computes in float32, with kernels and sums of its own.",
)
ROW_STATES = Tolerance(
    1e-4,
    0.02,
    "Norm of the difference between hidden states of a row of texts and of a padded batch, over the states' norm. States are not "
    "averaged as vectors are. Deep models in bfloat16 may round further; then they are held against their own rounding.",
)
PADDED_STATES = Tolerance(
    1e-2,
    1e-2,
    "Largest difference of a text's last state alone and behind padding, over the state's largest value. Positions that shift "
    "move it by the size of the state, and rounding in bfloat16 by a hundredth of that at most.",
)
STEPS = Tolerance(
    1e-5,
    5e-2,
    "Cosine distance of one training step's gradients by two ways of batching, which sum over texts in another order.",
)
