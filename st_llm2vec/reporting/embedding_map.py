"""Where an encoder puts texts, in two dimensions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from st_llm2vec.evaluation.sentence_score import sentence_groups
from st_llm2vec.evaluation.task_data import Labelled, Split
from st_llm2vec.evaluation.tasks import Task

TEXTS = 320
LABELS = 8
NEIGHBOURS = 30
FEWEST = 8  # of fewer texts t-SNE has no neighbourhoods


@dataclass(frozen=True)
class MappedTexts:
    """Texts to put on a map.

    Args:
        source: Where they come from, in words.
        texts: The texts.
        labels: A label for each.
        pairs: Whether those with one label are two that mean the same, to be joined by a line.
        instruction: The instruction that encoders are told.
    """

    source: str
    texts: list[str]
    labels: list[str]
    pairs: bool = False
    instruction: str | None = None


def mapped_texts(tasks: Sequence[Task]) -> MappedTexts:
    """Choose texts: of the first task with labels, else the built-in pairs of sentences.

    Args:
        tasks: The tasks of the report.

    Returns:
        At most 320 texts with the eight most frequent labels, in their order.
    """
    for task in tasks:
        data = task.data.test if isinstance(task.data, Split) else task.data
        if isinstance(data, Labelled):
            named = [label for label, _ in Counter(data.labels).most_common(LABELS)]
            kept = [pair for pair in zip(data.texts, data.labels, strict=True) if pair[1] in named][:TEXTS]
            texts, labels = ([pair[place] for pair in kept] for place in (0, 1))
            return MappedTexts(task.spec.name, texts, labels, instruction=task.spec.instruction)
    groups = sentence_groups()
    texts = [group[part] for group in groups for part in ("text", "same")]
    return MappedTexts("built-in sentences", texts, [group["text"] for group in groups for _ in range(2)], pairs=True)


def place_texts(vectors: Tensor) -> list[tuple[float, float]]:
    """Place vectors in two dimensions, such that neighbours by cosine stay neighbours (t-SNE, van der Maaten 2008).

    Args:
        vectors: Of shape ``(texts, dimension)``.

    Returns:
        Two coordinates for each, always the same ones for the same vectors.
    """
    rows = vectors.double().numpy()
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    if len(rows) == 1:
        places = np.zeros((1, 2))
    elif len(rows) < FEWEST:
        places = PCA(min(2, *rows.shape)).fit_transform(rows)
        places = np.pad(places, ((0, 0), (0, 2 - places.shape[1])))
    else:
        neighbours = min(NEIGHBOURS, (len(rows) - 1) / 3)
        places = TSNE(metric="cosine", init="pca", perplexity=neighbours, random_state=0).fit_transform(rows)
    return [(float(x), float(y)) for x, y in places]
