"""NV-Embed's two stages of instruction tuning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from st_llm2vec.training.adapters import Adapter
from st_llm2vec.training.supervised import Supervised

# Adam with weight decay 0.03, batch 128, warm-up 50, linear decay; arXiv 2405.17428, table "parameters".
SHARED = {
    "per_device_train_batch_size": 128,
    "weight_decay": 0.03,
    "warmup_steps": 50,
    "lr_scheduler_type": "linear",
}


@dataclass(kw_only=True)
class RetrievalStage(Supervised):
    """NV-Embed's first stage (arXiv 2405.17428, section 3.3): retrieval sets, in-batch negatives on.

    Args:
        adapter: Rank 16, alpha 32, dropout 0.1.
        recipe: ``"nv-embed"``.
    """

    name: ClassVar[str] = "retrieval"
    arguments_of_paper: ClassVar[dict[str, Any]] = {
        **SHARED,
        "max_steps": 20_000,
        "learning_rate": 2e-5,
        "batch_sampler": "no_duplicates",
    }

    recipe: str | dict[str, Any] = "nv-embed"
    adapter: Adapter | None = field(default_factory=lambda: Adapter(dropout=0.1))


@dataclass(kw_only=True)
class BlendedStage(RetrievalStage):
    """NV-Embed's second stage: all tasks blended in every batch, in-batch negatives off, a fresh optimizer.

    Args:
        in_batch_negatives: Off; a source may turn them on for its own rows.
        blended: On. Rows with their own instructions need an encoder of custom modules, as the recipe ``nv-embed``
            makes; for a portable one, turn it off and every batch comes from one source.
    """

    name: ClassVar[str] = "blended"
    arguments_of_paper: ClassVar[dict[str, Any]] = {**SHARED, "max_steps": 18_000, "learning_rate": 1.5e-5}

    in_batch_negatives: bool = False
    blended: bool = True
