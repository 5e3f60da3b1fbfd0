"""PromptEOL-CSE: contrastive tuning of a one-word prompt on NLI triplets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from st_llm2vec.training.adapters import Adapter
from st_llm2vec.training.supervised import Supervised


@dataclass(kw_only=True)
class PromptEOLCSE(Supervised):
    """Contrastive tuning of PromptEOL (arXiv 2307.16645, section 3.3).

    Args:
        scale: Inverse of the temperature 0.05.
        recipe: ``"prompteol"``.
        adapter: Rank 64, alpha 16, dropout 0.05 on all linear layers. The authors train it over 4-bit weights
            (``quantize: nf4``), which needs bitsandbytes and suits a GPU.
    """

    name: ClassVar[str] = "prompteol_cse"
    # One epoch, batch 256, 5e-4 after 100 steps of warm-up; train_llm.sh of the authors.
    arguments_of_paper: ClassVar[dict[str, Any]] = {
        "per_device_train_batch_size": 256,
        "num_train_epochs": 1,
        "learning_rate": 5e-4,
        "warmup_steps": 100,
        "lr_scheduler_type": "linear",
        "batch_sampler": "no_duplicates",
    }

    scale: float = 20.0
    recipe: str | dict[str, Any] = "prompteol"
    adapter: Adapter | None = field(default_factory=lambda: Adapter(r=64, alpha=16))
