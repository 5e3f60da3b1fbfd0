"""What the words' vectors of a frozen encoder tell: a linear classifier learns a label for each word."""

from __future__ import annotations

import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from st_llm2vec.evaluation.entities import are_chunk_labels, chunk_f1
from st_llm2vec.evaluation.word_features import word_features
from st_llm2vec.evaluation.word_files import LabelledWords

Probe = Literal["linear", "logistic"]

DROPOUT = 0.1
LEARNING_RATE = 5e-4
SENTENCES_IN_BATCH = 8
STEPS = 1500
SEEDS = (0, 1, 2)
INVERSE_PENALTY = 0.1
MOST_ITERATIONS = 200
WORDS_AT_ONCE = 8192


@dataclass(frozen=True)
class WordScores:
    """How many words of a test file got their label.

    Args:
        probe: ``"linear"``, ``"logistic"``, or ``"most frequent label"``.
        accuracy: The share of words with the right label, in percent, for each seed.
        f1: The F1 of chunks or entities, in percent, for each seed; empty where the labels mark none.
        words: How many words were tested.
        unseen: How many of them have a label that training does not have, by label; they count as wrong.
        seconds: How long the words' vectors took, from the cache or not.
    """

    probe: str
    accuracy: list[float]
    f1: list[float]
    words: int
    unseen: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with mean and spread."""
        summary = {
            name: dict(zip(("mean", "spread"), mean_and_spread(getattr(self, name)), strict=True)) for name in SCORES
        }
        return {**asdict(self), "summary": {name: one for name, one in summary.items() if getattr(self, name)}}


SCORES = ("accuracy", "f1")


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """The mean over seeds and the standard deviation of the sample, which is 0 for a single one.

    Example:
        >>> mean_and_spread([1.0, 2.0, 3.0])
        (2.0, 1.0)
    """
    if not values:
        return float("nan"), float("nan")
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def probe_words(
    encoder: SentenceTransformer,
    train: LabelledWords,
    test: LabelledWords,
    *,
    probe: Probe = "linear",
    shift: bool = False,
    seeds: Sequence[int] = SEEDS,
    cache: str | Path | None = None,
    advance: Callable[[int], object] = lambda sentences: None,
) -> WordScores:
    """Train a linear classifier on the vectors of words, which stay as they are, and test it.

    ``linear`` is LLM2Vec's probe (arXiv 2404.05961, appendix D.1.3): dropout of 0.1 and a linear layer, AdamW with a
    learning rate of 5e-4, 8 sentences in a batch, 1,500 steps. The rate falls linearly to 0 and there is no weight decay,
    as Transformers' trainer has it. ``logistic`` is scikit-learn's logistic regression on standardised vectors
    (``C=0.1``, 200 iterations at most): the quick one, and without chance.

    Args:
        encoder: Any encoder that :func:`encode_words` takes.
        train: What the classifier learns from.
        test: What it is tested on.
        probe: Which classifier.
        shift: Whether a word's vector is made of the states that predict its pieces; see :func:`encode_words`.
        seeds: A run of ``linear`` for each.
        cache: A folder where words' vectors are kept for the next time; see :func:`word_features`.
        advance: Called with the numbers of sentences whose words are encoded.

    Returns:
        Accuracy over words, and the F1 of chunks where the labels mark chunks (``B-NP``, ``I-NP``, ``O``).

    Raises:
        ValueError: If training has a single label, or none that the test has; or as for :func:`encode_words`.
    """
    unseen = unseen_labels(train, test)
    start = time.perf_counter()
    features = [word_features(encoder, one.sentences, shift, cache, advance) for one in (train, test)]
    seconds = time.perf_counter() - start
    if probe == "logistic":
        predictions = [_logistic(features[0], train, features[1])]
    else:
        predictions = [_linear(features[0], train, features[1], seed) for seed in seeds]
    return _scores(probe, predictions, test, unseen, seconds)


def most_frequent_label(train: LabelledWords, test: LabelledWords) -> WordScores:
    """The baseline without any model: each word's most frequent label in training, and for other words that of all words.

    Args:
        train: Where labels are counted.
        test: What is labelled.

    Returns:
        As for :func:`probe_words`.

    Raises:
        ValueError: As for :func:`probe_words`.
    """
    unseen = unseen_labels(train, test)
    counts: dict[str, Counter[str]] = {}
    overall: Counter[str] = Counter()
    for word, label in zip(chain(*train.sentences), chain(*train.labels), strict=True):
        counts.setdefault(word, Counter())[label] += 1
        overall[label] += 1
    predicted = [counts.get(word, overall).most_common(1)[0][0] for word in chain(*test.sentences)]
    return _scores("most frequent label", [predicted], test, unseen)


def unseen_labels(train: LabelledWords, test: LabelledWords) -> dict[str, int]:
    """Labels of the test that training does not have, with how many words have them.

    Raises:
        ValueError: If training has a single label, or none that the test has.
    """
    known = set(chain(*train.labels))
    if len(known) < 2:
        raise ValueError(
            f"{train.name} has a single label, {known.pop()!r}: there is nothing to learn. Name another column."
        )
    counts = Counter(chain(*test.labels))
    if not known & set(counts):
        raise ValueError(
            f"No label of {test.name} ({', '.join(sorted(counts)[:5])}) is in {train.name} "
            f"({', '.join(sorted(known)[:5])}). Their columns hold different things."
        )
    return {label: count for label, count in sorted(counts.items()) if label not in known}


def _scores(
    probe: str, predictions: list[list[str]], test: LabelledWords, unseen: dict[str, int], seconds: float = 0.0
) -> WordScores:
    expected = list(chain(*test.labels))
    accuracy = [100 * float(np.mean(np.asarray(one) == np.asarray(expected))) for one in predictions]
    f1 = []
    if are_chunk_labels(chain(expected, *predictions)):
        ends = np.cumsum([len(row) for row in test.labels])[:-1]
        f1 = [
            100 * chunk_f1(test.labels, [part.tolist() for part in np.split(np.asarray(one), ends)])
            for one in predictions
        ]
    return WordScores(probe, accuracy, f1, len(expected), unseen, seconds)


def _logistic(features: NDArray[Any], train: LabelledWords, tested: NDArray[Any]) -> list[str]:
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_PENALTY, max_iter=MOST_ITERATIONS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(np.asarray(features), list(chain(*train.labels)))
    predicted: list[str] = classifier.predict(np.asarray(tested)).tolist()
    return predicted


def _linear(features: NDArray[Any], train: LabelledWords, tested: NDArray[Any], seed: int) -> list[str]:
    names, targets = np.unique(list(chain(*train.labels)), return_inverse=True)
    ends = np.cumsum([len(row) for row in train.labels])
    rows = [slice(end - len(row), end) for end, row in zip(ends.tolist(), train.labels, strict=True)]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        classifier = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(features.shape[1], len(names)))
        optimizer = torch.optim.AdamW(classifier.parameters(), LEARNING_RATE, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / STEPS)
        pending: list[int] = []
        for _ in range(STEPS):
            if not pending:
                pending = torch.randperm(len(rows)).tolist()
            batch, pending = pending[:SENTENCES_IN_BATCH], pending[SENTENCES_IN_BATCH:]
            inputs = torch.from_numpy(np.concatenate([features[rows[one]] for one in batch]))
            wanted = torch.from_numpy(np.concatenate([targets[rows[one]] for one in batch]))
            optimizer.zero_grad()
            nn.functional.cross_entropy(classifier(inputs), wanted).backward()
            optimizer.step()
            schedule.step()
    classifier.eval()
    with torch.no_grad():
        blocks = [tested[start : start + WORDS_AT_ONCE] for start in range(0, len(tested), WORDS_AT_ONCE)]
        best = [classifier(torch.from_numpy(np.array(block))).argmax(dim=1).numpy() for block in blocks]
    predicted: list[str] = names[np.concatenate(best)].tolist()
    return predicted
