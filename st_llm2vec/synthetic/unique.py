"""Texts that have been there before, to the letter or nearly, told as they arrive."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from st_llm2vec.data.overlap import GRAM, normalized

REPEATED, NEAR = "repeated", "nearly repeated"
PERMUTATIONS = 128


class Unique:
    """Remembers texts, and says of each whether one of them says the same.

    Candidates are found by MinHash (Broder, 1997) and then compared; near the threshold a few are not found.

    Args:
        near: The overlap from which on two texts are nearly the same, as for
            :func:`st_llm2vec.data.overlap.near_pairs`; 1 compares to the letter only.
    """

    def __init__(self, near: float) -> None:
        self.near = near
        self._texts: dict[str, None] = {}
        if near < 1:
            from datasketch import MinHashLSH

            self._index = MinHashLSH(num_perm=PERMUTATIONS, params=_bands(near))

    def __len__(self) -> int:
        return len(self._texts)

    def why_not(self, text: str) -> str | None:
        """Why a text is not new: :data:`REPEATED`, :data:`NEAR`, or ``None`` if it is.

        Args:
            text: The text. It is not remembered.
        """
        words = normalized(text)
        if words in self._texts:
            return REPEATED
        if self.near < 1:
            grams = _grams(words)
            for other in self._index.query(_hashed(words)):
                if _overlap(grams, _grams(str(other))) >= self.near:
                    return NEAR
        return None

    def add(self, text: str) -> None:
        """Remember a text."""
        words = normalized(text)
        if words not in self._texts:
            self._texts[words] = None
            if self.near < 1:
                self._index.insert(words, _hashed(words))


def copied(first: str, second: str) -> float:
    """How much of the shorter of two texts stands in the other: the share of its sets of five letters in a row.

    Example:
        >>> copied("The mill stood by the river.", "At night the mill stood by the river, and nobody saw it.")
        1.0
    """
    one, other = _grams(normalized(first)), _grams(normalized(second))
    return len(one & other) / min(len(one), len(other))


def _overlap(first: set[str], second: set[str]) -> float:
    return len(first & second) / len(first | second)


def _grams(words: str) -> set[str]:
    words = words.ljust(GRAM)
    return {words[at : at + GRAM] for at in range(len(words) - GRAM + 1)}


@cache
def _bands(near: float) -> tuple[int, int]:
    """How many bands of how many rows find nearly all that are as near."""
    from datasketch import MinHashLSH

    chosen = MinHashLSH(threshold=near, num_perm=PERMUTATIONS, weights=(0.1, 0.9))
    return chosen.b, chosen.r


@lru_cache(maxsize=8)  # a text is looked for and then remembered
def _hashed(words: str) -> Any:
    made = _empty_hash().copy()
    made.update_batch([gram.encode() for gram in _grams(words)])
    return made


@cache
def _empty_hash() -> Any:
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, seed=1)
