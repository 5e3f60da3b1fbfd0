"""From rows as datasets are published, scored, labelled or of classes, to rows of query, positive and negatives."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from st_llm2vec.data.rows import as_number, as_text, require_columns

ENTAILMENT, CONTRADICTION = "entailment", "contradiction"
NLI_LABELS = {ENTAILMENT: 0, CONTRADICTION: 2}


def pairs_of_scores(dataset: Dataset, columns: Mapping[str, str], score: str, min_score: float, where: str) -> Dataset:
    """The pairs whose score is high enough, each in both directions (NV-Embed, arXiv 2405.17428, section 4.2).

    Args:
        dataset: Pairs with a score, or with a label that is a number.
        columns: The columns of ``sentence1``, ``sentence2`` and ``score``.
        score: The role of the score in ``columns``.
        min_score: The smallest score of a positive.
        where: What the dataset is called in messages.

    Returns:
        The columns ``query`` and ``positive``.

    Raises:
        ValueError: If a row has no text or no number, or no score is high enough.
    """
    first, second, scores = columns["sentence1"], columns["sentence2"], columns[score]
    require_columns(dataset, [first, second, scores], where)
    queries: list[str] = []
    positives: list[str] = []
    for number, row in enumerate(dataset.select_columns([first, second, scores])):
        texts = [as_text(row[name], name, where, number) for name in (first, second)]
        if as_number(row[scores], scores, where, number) >= min_score:
            queries += texts
            positives += reversed(texts)
    if not queries:
        raise ValueError(f"No row of {where} has {min_score:g} or more in {scores!r}, so there is no positive pair.")
    return Dataset.from_dict({"query": queries, "positive": positives})


def scores_of(dataset: Dataset, columns: Sequence[str], where: str) -> list[float]:
    """The scores of pairs, each of which must have two texts.

    Args:
        dataset: Pairs with a score.
        columns: The columns of the two texts and of the score.
        where: What the dataset is called in messages.

    Returns:
        A number for each row.

    Raises:
        ValueError: If a row has no text or no number.

    Example:
        >>> scores_of(Dataset.from_dict({"a": ["a cat"], "b": ["a kitten"], "score": [4]}), ["a", "b", "score"], "pairs")
        [4.0]
    """
    first, second, score = columns
    found = []
    for number, row in enumerate(dataset.select_columns(list(columns))):
        for name in (first, second):
            as_text(row[name], name, where, number)
        found.append(as_number(row[score], score, where, number))
    return found


def triplets_of_inferences(
    dataset: Dataset, columns: Mapping[str, str], labels: Mapping[str, Any], where: str
) -> Dataset:
    """Premises with what they entail and what contradicts them, as SimCSE reads NLI (arXiv 2104.08821, section 4).

    Args:
        dataset: Premises and hypotheses with labels.
        columns: The columns of ``premise``, ``hypothesis`` and ``label``.
        labels: How the dataset writes ``entailment`` and ``contradiction``.
        where: What the dataset is called in messages.

    Returns:
        The columns ``query``, ``positive`` and ``negative``, a row for each premise that has both, in order.

    Raises:
        ValueError: If a row has no text, or no premise has both.
    """
    premise, hypothesis, label = columns["premise"], columns["hypothesis"], columns["label"]
    require_columns(dataset, [premise, hypothesis, label], where)
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: {ENTAILMENT: [], CONTRADICTION: []})
    meanings = {str(written): meaning for meaning, written in labels.items()}
    for number, row in enumerate(dataset.select_columns([premise, hypothesis, label])):
        meaning = meanings.get(str(row[label]))
        query = as_text(row[premise], premise, where, number)
        if meaning is not None:
            found[query][meaning].append(as_text(row[hypothesis], hypothesis, where, number))
    rows = [
        (query, one, other)
        for query, hypotheses in found.items()
        for one, other in zip(hypotheses[ENTAILMENT], hypotheses[CONTRADICTION], strict=False)
        if len({query.strip(), one.strip(), other.strip()}) == 3
    ]
    if not rows:
        raise ValueError(
            f"No premise of {where} has a hypothesis that it entails and one that contradicts it; labels are read as "
            f"{dict(labels)!r}. Say how they are written: labels: {{entailment: 0, contradiction: 2}}."
        )
    return Dataset.from_dict(
        {name: [row[at] for row in rows] for at, name in enumerate(("query", "positive", "negative"))}
    )


def classes_of(
    dataset: Dataset, columns: Mapping[str, str], pattern: str | None, where: str
) -> tuple[list[str], list[str]]:
    """The texts and their classes.

    Args:
        dataset: Texts with labels.
        columns: The columns of ``text`` and ``label``.
        pattern: A regular expression; the class is what it finds first in a label.
        where: What the dataset is called in messages.

    Raises:
        ValueError: If a row has no text or no label, or the pattern does not fit.
    """
    text, label = columns["text"], columns["label"]
    require_columns(dataset, [text, label], where)
    texts: list[str] = []
    labels: list[str] = []
    part = re.compile(pattern or ".+", re.DOTALL)
    for number, row in enumerate(dataset.select_columns([text, label])):
        texts.append(as_text(row[text], text, where, number))
        found = part.search(_label(row[label], dataset, label))
        if found is None or not found[0].strip():
            raise ValueError(f"Row {number} of {where} (the first is 0) has no class in {label!r}: {row[label]!r}.")
        labels.append(found[0])
    return texts, labels


def _label(value: Any, dataset: Dataset, column: str) -> str:
    feature = dataset.features[column]
    names = getattr(feature, "names", None)  # of a ClassLabel
    return str(names[value]) if names and isinstance(value, int) else "" if value is None else str(value)
