"""Texts that say the same: to the letter, and nearly."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer

GRAM = 5
FEATURES = 2**22
BLOCK = 500
WORDS = re.compile(r"\w+")


class Near(NamedTuple):
    """Two texts that are nearly the same: their numbers, and the share of what they have in common."""

    first: int
    second: int
    similarity: float


def normalized(text: str) -> str:
    """A text's words in lower case, with one blank between them: what two texts that say the same share.

    Args:
        text: The text.

    Example:
        >>> normalized("Rain fell,  all day!")
        'rain fell all day'
    """
    return " ".join(WORDS.findall(text.casefold())) or text.strip()


def repeated(texts: Sequence[str]) -> list[list[int]]:
    """The numbers of texts that are the same but for case, blanks and punctuation, in groups of two and more.

    Args:
        texts: The texts.
    """
    found: dict[str, list[int]] = {}
    for number, text in enumerate(texts):
        found.setdefault(normalized(text), []).append(number)
    return [numbers for numbers in found.values() if len(numbers) > 1]


def near_pairs(first: Sequence[str], second: Sequence[str] | None = None, threshold: float = 0.8) -> Iterator[Near]:
    """Pairs of texts that are nearly the same: whose sets of five letters in a row overlap by their Jaccard index.

    Args:
        first: Texts.
        second: Texts to compare them with; by default the same, each pair once.
        threshold: The smallest index, from 0 (nothing in common) to 1.

    Yields:
        The pairs, by the order of ``first``.

    Example:
        >>> [tuple(pair[:2]) for pair in near_pairs(["the old mill stood by the river", "rain"], ["The mill stood by the river."], 0.6)]
        [(0, 0)]
    """
    if not first or (second is not None and not second):
        return
    vectors = _grams(first)
    others = vectors if second is None else _grams(second)
    sizes, other_sizes = _sizes(vectors), _sizes(others)
    transposed = others.T.tocsc()
    for start in range(0, vectors.shape[0], BLOCK):
        shared = (vectors[start : start + BLOCK] @ transposed).tocoo()
        rows, columns = shared.row + start, shared.col
        similarity = shared.data / (sizes[rows] + other_sizes[columns] - shared.data)
        kept = similarity >= threshold
        if second is None:
            kept &= rows < columns
        order = np.lexsort((columns[kept], rows[kept]))
        for row, column, value in zip(rows[kept][order], columns[kept][order], similarity[kept][order], strict=True):
            yield Near(int(row), int(column), float(value))


def _grams(texts: Sequence[str]) -> csr_matrix:
    vectorizer = HashingVectorizer(
        analyzer="char", ngram_range=(GRAM, GRAM), n_features=FEATURES, binary=True, norm=None, alternate_sign=False,
        dtype=np.float32,
    )  # fmt: skip
    return csr_matrix(vectorizer.transform(normalized(text).ljust(GRAM) for text in texts))


def _sizes(vectors: csr_matrix) -> np.ndarray:
    return np.asarray(vectors.sum(axis=1)).ravel()
