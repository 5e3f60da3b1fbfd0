"""Does a model use what comes after a token? Triples of sentences with a shared beginning tell."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from st_llm2vec import assets
from st_llm2vec.evaluation.layers import layer_states
from st_llm2vec.evaluation.words import readers
from st_llm2vec.proof.tolerances import VECTORS

TRIPLES = Path(assets.__file__).parent / "future_triples.jsonl"
FIELDS = ("query", "positive", "negative")
CONFIDENCE = 1.959964  # the 97.5th percentile of the normal distribution, for an interval of 95 %


@dataclass(frozen=True)
class Triple:
    """Three sentences that begin alike: a query, one that ends with the same meaning, and one with another.

    Args:
        query: The sentence.
        positive: One with the same meaning.
        negative: One with another meaning.
        shared_prefix: What all three begin with.
    """

    query: str
    positive: str
    negative: str
    shared_prefix: str


@dataclass(frozen=True)
class FutureTokens:
    """How often the shared beginning of a triple stands nearer to that of the positive than to that of the negative.

    Args:
        right: In how many triples it does.
        wrong: In how many it stands nearer to the negative's.
        tied: In how many no difference is left but rounding: all of them where no state depends on later tokens.
        share: The share of triples ranked right, where a tie is half a triple.
        interval: Wilson's interval of 95 % for the share.
        positive: For each triple the cosine of the query's beginning and the positive's.
        negative: The same with the negative's.
    """

    right: int
    wrong: int
    tied: int
    share: float
    interval: tuple[float, float]
    positive: list[float]
    negative: list[float]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def built_in_triples() -> list[Triple]:
    """The triples that the package carries.

    Example:
        >>> len(built_in_triples())
        48
    """
    return read_triples(TRIPLES)


def read_triples(path: str | Path) -> list[Triple]:
    """Read triples from JSON lines with ``query``, ``positive``, ``negative`` and ``shared_prefix``.

    Args:
        path: The file. Lines without a shared prefix, or whose sentences do not all begin with it, are left out: the Echo
            paper's (arXiv 2402.15449) other structures, whose positives begin otherwise.

    Returns:
        The triples.

    Raises:
        ValueError: If there is no such file, a line has not these fields or is not UTF-8, or no line is left.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    triples = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            data = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            triple = Triple(data["query"], data["positive"], data["negative"], data.get("shared_prefix", ""))
        except UnicodeDecodeError as error:
            raise ValueError(f"Line {number} of {path} is not UTF-8: byte {line[error.start]:#04x}.") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"Line {number} of {path} is no object with query, positive and negative: {line.decode()[:60]!r}."
            ) from error
        if triple.shared_prefix and all(getattr(triple, name).startswith(triple.shared_prefix) for name in FIELDS):
            triples.append(triple)
    if not triples:
        raise ValueError(f"{path} has no triple whose three sentences begin with its shared_prefix.")
    return triples


def future_tokens(encoder: SentenceTransformer, triples: Sequence[Triple] | None = None) -> FutureTokens:
    """Pool the last states of a triple's shared beginning alone, and see which of two sentences it is nearer to.

    Under causal attention these states are the same in all three sentences. Under bidirectional attention they can tell how
    the sentence goes on (LLM2Vec, arXiv 2404.05961, section 4.1), and do so where more are ranked right than by chance.

    Args:
        encoder: The encoder, under the attention that is set.
        triples: The triples; the built-in ones if not given.

    Returns:
        How many were ranked right.

    Raises:
        ValueError: As for :func:`layer_states`.
    """
    triples = built_in_triples() if triples is None else triples
    if not triples:
        raise ValueError("There are no triples to rank.")
    texts = [getattr(triple, name) for triple in triples for name in FIELDS]
    lengths = [len(triple.shared_prefix) for triple in triples for _ in FIELDS]
    pooled = [
        _beginning(states.layers[-1], states.offsets, length)
        for states, length in zip(layer_states(encoder, texts), lengths, strict=True)
    ]
    query, positive, negative = np.stack(pooled).astype(np.float64).reshape(len(triples), 3, -1).transpose(1, 0, 2)
    to_positive, to_negative = _cosines(query, positive), _cosines(query, negative)
    margin = to_positive - to_negative
    rounding = VECTORS.of(readers(encoder)[0].model.dtype)
    right, wrong = int((margin > rounding).sum()), int((margin < -rounding).sum())
    tied = len(triples) - right - wrong
    share = (right + tied / 2) / len(triples)
    return FutureTokens(
        right, wrong, tied, share, wilson_interval(share, len(triples)), to_positive.tolist(), to_negative.tolist()
    )


def _beginning(states: NDArray[Any], offsets: NDArray[Any], length: int) -> NDArray[Any]:
    """The mean over the tokens that stand within the first characters, wholly."""
    inside = (offsets[:, 1] <= length) & (offsets[:, 1] > offsets[:, 0])
    mean: NDArray[Any] = states[inside].mean(axis=0)
    return mean


def _cosines(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines: NDArray[Any] = (first * second).sum(axis=1) / lengths
    return cosines


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's score interval of 95 % for a share (Wilson 1927).

    Args:
        share: The share, between 0 and 1.
        count: Of how many.

    Example:
        >>> tuple(round(one, 4) for one in wilson_interval(0.8, 10))
        (0.4902, 0.9433)
    """
    spread = CONFIDENCE**2 / count
    middle = share + spread / 2
    half = math.sqrt(spread * (share * (1 - share) + spread / 4))
    return max((middle - half) / (1 + spread), 0.0), min((middle + half) / (1 + spread), 1.0)
