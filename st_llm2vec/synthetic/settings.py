"""What is generated: how much of which groups and languages, and what the literature generated, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from st_llm2vec.recipe.config import closest
from st_llm2vec.synthetic.groups import GROUPS

ENGLISH = "English"
LANGUAGES: dict[str, str] = yaml.safe_load(Path(__file__).with_name("languages.yaml").read_text(encoding="utf-8"))
"""Names of languages by their code."""
FREQUENT = ("pl", "ja", "it", "ru", "id", "de", "fa", "es", "zh", "fr", "pt", "nl", "ar", "ko", "tr", "vi", "sv")
MOST_TASKS = 50

# E5 (arXiv 2401.00368, section 4.1): English is predominant, and the 75 rarest of the 93 languages have about 1,000 of the 500,000
# examples each. The shares of the groups and of English are estimates: it shows them in a figure.
E5_GROUPS = {"short-long": 33, "long-short": 24, "sts": 20, "bitext": 17, "long-long": 3.5, "short-short": 2.5}
E5_LANGUAGES = {name: 43 if name == ENGLISH else 2.5 if code in FREQUENT else 0.2 for code, name in LANGUAGES.items()}

PRESETS: dict[str, dict[str, Any]] = {
    # A first look: two examples of each task, in English. Without bitext, which needs a second language.
    "small": {"tasks": 100, "examples": 200, "groups": {name: 1 for name in GROUPS if name != "bitext"}},
    # E5-Mistral (arXiv 2401.00368, section 4.1).
    "e5": {"tasks": 150_000, "examples": 500_000, "groups": E5_GROUPS, "languages": E5_LANGUAGES},
    # NV-Embed v2 (arXiv 2405.17428), by E5's prompts.
    "nv-embed": {"tasks": 60_000, "examples": 120_000, "groups": E5_GROUPS, "languages": E5_LANGUAGES},
}
"""Settings by name."""


@dataclass(frozen=True)
class SyntheticSettings:
    """What is generated. Temperature and top-p are E5's (arXiv 2401.00368, section 3.1).

    Args:
        tasks: How many tasks are brainstormed, over the groups that are.
        examples: How many rows are wanted.
        groups: The groups, and what share of the rows each has.
        languages: The languages by name, and what share of the requests each has.
        tasks_per_request: How many tasks one request asks for.
        temperature: The temperature of sampling.
        top_p: The share of the probability that is sampled from.
        max_tokens: The longest answer, by default as long as the model gives.
        near: From which overlap on two texts are nearly the same and one is left out: the Jaccard index of their sets of five
            letters in a row. 1 leaves out repeated texts only.
        most: How many times as many requests are made at the most as would do if none failed.
        seed: Seed of all that is drawn, and of a local model.

    Raises:
        ValueError: If a value cannot be.
    """

    tasks: int = 100
    examples: int = 200
    groups: Mapping[str, float] = field(default_factory=lambda: dict(PRESETS["small"]["groups"]))
    languages: Mapping[str, float] = field(default_factory=lambda: {ENGLISH: 1})
    tasks_per_request: int = 20
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int | None = None
    near: float = 0.8
    most: float = 3.0
    seed: int = 42

    def __post_init__(self) -> None:
        if min(self.tasks, self.examples, self.tasks_per_request) < 1 or self.tasks_per_request > MOST_TASKS:
            raise ValueError(
                f"tasks={self.tasks}, examples={self.examples} and tasks_per_request={self.tasks_per_request} cannot be; at "
                f"least 1 of each is expected, and at most {MOST_TASKS} tasks a request."
            )
        if not (self.temperature >= 0 and 0 < self.top_p <= 1 and 0 < self.near <= 1 and self.most >= 1):
            raise ValueError(
                f"temperature={self.temperature}, top_p={self.top_p}, near={self.near} and most={self.most} cannot be; at "
                "least 0, shares above 0 and up to 1, and at least 1 are expected."
            )
        _check_shares("group of tasks", self.groups, list(GROUPS))
        _check_shares("language", self.languages, list(LANGUAGES.values()))
        if "bitext" in self.groups and len(self.languages) < 2:
            raise ValueError(
                f"bitext is translated from one language into another, and there is {next(iter(self.languages))} only. Name "
                "more languages, or leave the group out."
            )

    @classmethod
    def of(cls, preset: str = "small", **changes: Any) -> SyntheticSettings:
        """The settings of a preset, with some of them changed.

        Args:
            preset: A key of :data:`PRESETS`.
            **changes: Fields; those that are ``None`` are as in the preset. ``groups`` and ``languages`` may be lists of
                names, which then have the preset's shares, or equal ones; a language may be its code.

        Raises:
            ValueError: If there is no such preset, group or language.

        Example:
            >>> SyntheticSettings.of("nv-embed", languages=["en", "German"]).languages
            {'English': 43, 'German': 2.5}
        """
        if preset not in PRESETS:
            raise ValueError(
                f"There is no preset {preset!r}{closest(preset, list(PRESETS))} Known: {', '.join(PRESETS)}."
            )
        given = {**PRESETS[preset], **{name: value for name, value in changes.items() if value is not None}}
        for name in ("groups", "languages"):
            if isinstance(given.get(name), Sequence):
                names = [LANGUAGES.get(one, one) if name == "languages" else one for one in given[name]]
                shares = PRESETS[preset].get(name, {})
                known = all(one in shares for one in names)
                given[name] = {one: shares[one] if known else 1 for one in names}
        return cls(**given)

    def rows_of(self) -> dict[str, int]:
        """How many rows of each group are wanted."""
        return _divided(self.examples, self.groups)

    def tasks_of(self) -> dict[str, int]:
        """How many tasks of each group that is brainstormed are wanted; no more than it has rows."""
        rows = self.rows_of()
        shares = {name: share for name, share in self.groups.items() if GROUPS[name].two_steps}
        return {name: min(rows[name], count) for name, count in _divided(self.tasks, shares).items()}


def _divided(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """A number in parts of these shares, of which each has 1 at the least."""
    whole = sum(shares.values())
    return {name: max(1, round(total * share / whole)) for name, share in shares.items()}


def _check_shares(what: str, shares: Mapping[str, float], known: list[str]) -> None:
    if not shares:
        raise ValueError(f"There is no {what}; name one at least, of {', '.join(known)}.")
    for name, share in shares.items():
        if name not in known:
            raise ValueError(f"There is no {what} {name!r}{closest(name, known)} Known are {', '.join(known)}.")
        if isinstance(share, bool) or not isinstance(share, int | float) or share <= 0:
            raise ValueError(f"The share of the {what} {name} is {share!r}; a number above 0 is expected.")
