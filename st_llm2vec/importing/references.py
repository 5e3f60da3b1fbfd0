"""Published reference values: similarities that the authors print, and vectors in a file of one's own."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from sentence_transformers.util import cos_sim

from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.proof.distance import largest_cosine_distance

FILE = Path(__file__).with_name("references.yaml")
VECTOR_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Reference:
    """What a published model gives for its authors' own example.

    Args:
        model: Its name on the Hub.
        instruction: The bare instruction of the queries; documents have none.
        queries: The queries.
        documents: The documents.
        expected: Cosine similarities, queries by documents.
        tolerance: The largest difference that passes.
        source: Where the values stand.
    """

    model: str
    instruction: str
    queries: list[str]
    documents: list[str]
    expected: list[list[float]]
    tolerance: float
    source: str


@dataclass(frozen=True)
class Comparison:
    """One value compared.

    Args:
        what: What was compared, in words.
        expected: The published value; 0 for a distance.
        found: The value found here.
        passed: Whether it is within the tolerance.
    """

    what: str
    expected: float
    found: float
    passed: bool


@dataclass(frozen=True)
class Verification:
    """All values of one reference compared.

    Args:
        reference: Its name.
        source: Where its values stand.
        tolerance: The largest difference that passes.
        comparisons: The values.
    """

    reference: str
    source: str
    tolerance: float
    comparisons: tuple[Comparison, ...]

    @property
    def passed(self) -> bool:
        """Whether every value is within the tolerance."""
        return all(one.passed for one in self.comparisons)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "passed": self.passed}


@cache
def references() -> dict[str, Reference]:
    """The published references, by the model's name.

    Example:
        >>> references()["nvidia/NV-Embed-v2"].expected[0]
        [0.8742693, 0.0046284]
    """
    data = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    found = (Reference(**{**data["texts"][entry.pop("texts")], **entry}) for entry in data["references"])
    return {one.model: one for one in found}


def find_reference(name: str) -> Reference:
    """The reference of a model, by its name or the last part of it, as copies in folders have it.

    Raises:
        ValueError: If there is none.
    """
    last = name.rstrip("/").rsplit("/", 1)[-1].lower()
    for reference in references().values():
        if last == reference.model.rsplit("/", 1)[-1].lower():
            return reference
    raise ValueError(
        f"No published values are known for {name}. Known are: {', '.join(references())}. Name one of them (--reference), or "
        "give a file with vectors (--expected)."
    )


def verify_similarities(encoder: TextEncoder, reference: Reference) -> Verification:
    """Encode a reference's queries and documents and compare their similarities with the published ones.

    Args:
        encoder: The model, loaded or imported.
        reference: What was published.

    Returns:
        The comparison, value by value.
    """
    queries = encoder.encode(reference.queries, prompt=reference.instruction, show_progress_bar=False)
    documents = encoder.encode(reference.documents, show_progress_bar=False)
    similarities = cos_sim(queries.astype(np.float64), documents.astype(np.float64)).numpy()
    comparisons = []
    for (row, column), found in np.ndenumerate(similarities):
        expected = reference.expected[row][column]
        agrees = bool(abs(found - expected) <= reference.tolerance)
        comparisons.append(Comparison(f"query {row + 1}, document {column + 1}", expected, float(found), agrees))
    return Verification(reference.model, reference.source, reference.tolerance, tuple(comparisons))


@dataclass(frozen=True)
class ExpectedVectors:
    """Vectors in a JSON file: ``texts``, ``documents`` and, with an ``instruction``, ``queries``.

    Args:
        path: The file.
        texts: The texts.
        instruction: The bare instruction of the queries.
        vectors: ``"documents"`` and ``"queries"``, those that are there; ``(texts, dimension)``.
    """

    path: str
    texts: list[str]
    instruction: str | None
    vectors: dict[str, np.ndarray]

    @classmethod
    def read(cls, path: str | Path) -> ExpectedVectors:
        """Read such a file.

        Raises:
            ValueError: If it holds no such vectors.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            texts, instruction = list(data["texts"]), data.get("instruction")
            vectors = {
                kind: np.asarray(data[kind], dtype=np.float64) for kind in ("documents", "queries") if kind in data
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} does not hold texts and their vectors ({type(error).__name__}: {error})."
            ) from error
        if not vectors:
            raise ValueError(f"{path} holds neither documents nor queries to compare with.")
        return cls(str(path), texts, instruction, vectors)


def verify_vectors(
    encoder: TextEncoder, expected: ExpectedVectors, tolerance: float = VECTOR_TOLERANCE
) -> Verification:
    """Compare an encoder with vectors.

    Args:
        encoder: The model, loaded or imported.
        expected: The vectors.
        tolerance: The largest cosine distance that passes.

    Returns:
        The largest cosine distance for documents, and for queries.

    Raises:
        ValueError: If the vectors have another dimension.
    """
    comparisons = []
    for kind, vectors in expected.vectors.items():
        prompt = expected.instruction if kind == "queries" else None
        found = encoder.encode(expected.texts, prompt=prompt, show_progress_bar=False)
        if vectors.shape != found.shape:
            raise ValueError(
                f"{kind} of {expected.path} has the shape {vectors.shape}, but the encoder gives {found.shape}."
            )
        distance = largest_cosine_distance(found, vectors)
        what = f"{kind}: largest cosine distance over {len(expected.texts)} texts"
        comparisons.append(Comparison(what, 0.0, distance, distance <= tolerance))
    return Verification(expected.path, "vectors in a file", tolerance, tuple(comparisons))
