"""How well an encoder tells meanings from words, in seconds, on sentences that the package carries."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer

from st_llm2vec import assets

SENTENCES = Path(assets.__file__).parent / "sentences.jsonl"
GRADES = {"same": 2, "near": 1, "far": 1}
"""How alike a sentence is to the first of its group; sentences of other groups have grade 0.

Whether another event of the same scene or the same words in another scene is more alike is a matter of taste.
"""


@functools.cache
def sentence_groups() -> tuple[dict[str, str], ...]:
    """The built-in sentences, in groups of four.

    Returns:
        Groups with a ``text``, the ``same`` meaning in other words, one ``near`` to it, and one that shares words with it
        but is ``far`` in meaning.
    """
    lines = SENTENCES.read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line) for line in lines)


def sentence_score(encoder: SentenceTransformer) -> float:
    """Score an encoder on the built-in sentences, as on a benchmark of textual similarity.

    Args:
        encoder: The encoder.

    Returns:
        Spearman's rank correlation between cosine similarities and grades, times 100. Shared words mislead, so an
        encoder that sees no more than words scores low. Vectors that do not tell texts apart score 0.

    Example:
        >>> from st_llm2vec import convert, decoder_path
        >>> -100 <= sentence_score(convert(decoder_path(), "prompteol")) <= 100
        True
    """
    groups = sentence_groups()
    texts = [group[part] for group in groups for part in ("text", *GRADES)]
    vectors = encoder.encode(texts, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True)
    return score_of(np.asarray(vectors, dtype=np.float64).reshape(len(groups), 1 + len(GRADES), -1))


def score_of(vectors: NDArray[Any]) -> float:
    """Score unit vectors of shape ``(groups, 4, dimension)``, in the order of a group's sentences."""
    first = vectors[:, 0]
    grades, cosines = [], []
    for position, grade in enumerate(GRADES.values(), start=1):
        cosines.append((first * vectors[:, position]).sum(axis=1))
        grades.append(np.full(len(first), grade))
    cosines.append((first * np.roll(first, 1, axis=0)).sum(axis=1))
    grades.append(np.zeros(len(first)))
    found = float(spearmanr(np.concatenate(cosines), np.concatenate(grades)).statistic)
    return 100 * found if np.isfinite(found) else 0.0
