"""Run by ``accelerate launch`` with two processes: each loss's gradients against those of one process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from st_llm2vec import TextEncoder, convert, decoder_path
from st_llm2vec.losses import (
    CachedHardNegativesRankingLoss,
    HardNegativesRankingLoss,
    MNTPLoss,
    SimCSELoss,
    SimilarityDistillationLoss,
)

torch.set_num_threads(1)
COLUMNS = [
    ["a cat", "the sea at night is calm and dark", "how is a violin made", "12 ships"],
    ["cats purr", "waves roll", "it is carved from spruce and maple", "a fleet left the harbour this morning"],
    ["dogs bark", "sand", "a drum is stretched", "a road"],
]
LABELS = torch.tensor([1, 0, 0, 1])
TAUGHT = torch.randn(4, 2, 5, generator=torch.Generator().manual_seed(0))
CASES: dict[str, tuple[int, Tensor | None, Callable[[TextEncoder, bool], nn.Module]]] = {
    "mntp": (1, None, lambda model, many: MNTPLoss(model, 1.0, "all_mask")),
    "simcse": (1, None, lambda model, many: SimCSELoss(model, gather_across_devices=many)),
    "simcse, cached": (1, None, lambda model, many: SimCSELoss(model, gather_across_devices=many, mini_batch_size=1)),
    "distillation": (2, TAUGHT, lambda model, many: SimilarityDistillationLoss(model, None, many)),
    "distillation, softmax": (2, TAUGHT, lambda model, many: SimilarityDistillationLoss(model, 0.1, many)),
    "supervised": (3, None, lambda model, many: HardNegativesRankingLoss(model, gather_across_devices=many)),
    "off": (3, None, lambda model, many: HardNegativesRankingLoss(model, in_batch_negatives=False)),
    "by row": (
        3,
        LABELS,
        lambda model, many: HardNegativesRankingLoss(model, in_batch_negatives="per_row", gather_across_devices=many),
    ),
    "by row, cached": (
        3,
        LABELS,
        lambda model, many: CachedHardNegativesRankingLoss(
            model, in_batch_negatives="per_row", gather_across_devices=many, mini_batch_size=1
        ),
    ),
}


def gradient(case: str, rank: int | None) -> tuple[float, Tensor]:
    """The loss, and the gradients of all weights, of one process's half of the batch or, without a rank, of it all."""
    columns, labels, make = CASES[case]
    encoder = convert(decoder_path(), "llm2vec", device="cpu")
    loss = make(encoder, rank is not None)
    encoder.eval()  # no dropout, so that the passes of one and of two processes are the same
    rows = slice(None) if rank is None else slice(2 * rank, 2 * rank + 2)
    features: list[dict[str, Any]] = [encoder.preprocess(texts[rows]) for texts in COLUMNS[:columns]]
    if rank is not None:
        loss.model = DistributedDataParallel(encoder)
        for child in loss.children():
            if child is not loss.model and hasattr(child, "model"):
                child.model = loss.model
                if hasattr(child, "loss"):
                    child.loss.model = loss.model
    value = loss(features, None if labels is None else labels[rows])
    value.backward()
    value = value.detach()
    if rank is not None:
        dist.all_reduce(value)
        value /= 2
    return float(value), torch.cat(
        [weight.grad.flatten() for weight in encoder.parameters() if weight.grad is not None]
    )


def main() -> None:
    state = PartialState(cpu=True)
    found = {}
    for case in CASES:
        value, many = gradient(case, state.process_index)
        expected_value, one = gradient(case, None)
        found[case] = {
            "loss": abs(value - expected_value),
            "gradient": float((many - one).abs().max() / one.abs().max()),
            "norm": float(one.norm()),
        }
    if state.is_main_process:
        with open(sys.argv[1], "w", encoding="utf-8") as file:
            json.dump(found, file)


if __name__ == "__main__":
    main()
