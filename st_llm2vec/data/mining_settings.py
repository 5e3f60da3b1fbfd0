"""How hard negatives are chosen: the settings, and those of the literature by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # The nearest ones, whatever they are.
    "top-k": {},
    # NV-Retriever (arXiv 2407.15831), the best of its ablation and what NV-Embed v2 trains on: at most 95 % of the positive.
    "topk-percpos": {"relative_margin": 0.05},
    # The same, second: at least 0.05 below the positive.
    "topk-marginpos": {"absolute_margin": 0.05},
    # The same, its control: no more than 0.7.
    "topk-abs": {"max_score": 0.7},
    # The same, its control "Top-K shifted by N": without the first 10.
    "topk-shifted": {"range_min": 10},
    # FlagEmbedding's hn_mine: at random from the ranks 10 to 210; it takes 15.
    "window": {"range_min": 10, "range_max": 210, "sampling": "random"},
    # E5-Mistral (arXiv 2401.00368, appendix A), where a dataset has no negatives: from the first 100; it takes 1.
    "e5": {"range_max": 100, "sampling": "random"},
}
"""Settings by name; without a comment on their number, negatives are as many as are asked for."""

SAMPLINGS = ("top", "random")


@dataclass(frozen=True)
class MiningSettings:
    """Which candidates become negatives; filters as ``mine_hard_negatives`` of Sentence Transformers has them.

    Args:
        negatives: How many each row gets, if so many are left.
        range_min: Nearest candidates to skip.
        range_max: Rank of the last candidate; by default ten for each negative where a filter may remove some.
        relative_margin: Share of the positive's score that a negative must be below it.
        absolute_margin: What a negative must be below the positive's score.
        max_score: The highest score of a negative.
        min_score: The lowest one.
        sampling: ``"top"``: the nearest that are left; ``"random"``: any of them.
        seed: Seed of what is drawn.
        chunk: Texts of the corpus that are compared at a time. A larger corpus goes in parts, of whose candidates the nearest
            are taken. Without a filter these are those of the whole; with one, each part has its own ``range_max`` candidates
            before it, so that more are left.
        batch_size: Texts in a batch of the teacher's.

    Raises:
        ValueError: If a value cannot be.
    """

    negatives: int = 7
    range_min: int = 0
    range_max: int | None = None
    relative_margin: float | None = None
    absolute_margin: float | None = None
    max_score: float | None = None
    min_score: float | None = None
    sampling: str = "top"
    seed: int = 42
    chunk: int = 500_000
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.negatives < 1 or self.chunk < 2 or self.range_min < 0:
            raise ValueError(
                f"negatives={self.negatives}, range_min={self.range_min} and chunk={self.chunk} cannot be; at least 1, 0 and 2 "
                "are expected."
            )
        if self.sampling not in SAMPLINGS:
            raise ValueError(f"sampling={self.sampling!r} is not one of {', '.join(SAMPLINGS)}.")
        if self.range_max is not None and self.range_max < self.range_min + self.negatives:
            raise ValueError(
                f"The ranks {self.range_min} to {self.range_max} hold fewer than {self.negatives} candidates; raise range_max."
            )

    @classmethod
    def of(cls, preset: str, **changes: Any) -> MiningSettings:
        """The settings of a preset, with some of them changed.

        Args:
            preset: A key of :data:`PRESETS`.
            **changes: Fields; those that are ``None`` are as in the preset.

        Raises:
            ValueError: If there is no such preset.

        Example:
            >>> MiningSettings.of("topk-percpos", negatives=4).relative_margin
            0.05
        """
        if preset not in PRESETS:
            raise ValueError(f"There is no way of mining {preset!r}; known are {', '.join(PRESETS)}.")
        given = {name: value for name, value in changes.items() if value is not None}
        return cls(**{**PRESETS[preset], **given})

    def last_rank(self, positives: int) -> int:
        """The rank of the last candidate, where a query has so many positives, as ``mine_hard_negatives`` has it."""
        if self.range_max is not None:
            return self.range_max
        filtered = any(one is not None for one in (self.relative_margin, self.absolute_margin, self.max_score))
        return self.range_min + self.negatives * (10 if filtered else 1) + positives
