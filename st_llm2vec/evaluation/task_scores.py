"""The scores of each kind of task, as Sentence Transformers' evaluators and scikit-learn compute them."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray
from sentence_transformers.sentence_transformer.evaluation import (
    BinaryClassificationEvaluator,
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
    RerankingEvaluator,
)
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, v_measure_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from st_llm2vec.evaluation.task_data import Candidates, Collection, Labelled, Pairs, Split, TaskData, Words
from st_llm2vec.evaluation.task_encoder import TaskEncoder, TfidfEncoder
from st_llm2vec.evaluation.word_probe import (
    WordScores,
    mean_and_spread,
    most_frequent_label,
    probe_words,
    unseen_labels,
)

Scores = dict[str, float]
SEEDS = range(3)
CORPUS_AT_ONCE = 10_000


def score(encoder: TaskEncoder | TfidfEncoder, kind: str, data: TaskData) -> Scores:
    """Score an encoder on a task.

    Args:
        encoder: The encoder, or the baseline.
        kind: A key of :data:`~st_llm2vec.evaluation.task_plan.KINDS`.
        data: What the task's files hold.

    Returns:
        The kind's scores by their names, 100 being the best.

    Raises:
        ValueError: If a score is no number, as where all vectors are alike.
    """
    scores = _percent(SCORERS[kind](encoder, data))
    undefined = [name for name, value in scores.items() if not math.isfinite(value)]
    if undefined:
        raise ValueError(f"{', '.join(undefined)} cannot be computed: all of the encoder's similarities are alike.")
    return scores


def score_baseline(kind: str, data: TaskData) -> Scores:
    """What needs no model: TF-IDF over a task's texts (those to learn from, the documents, or all where there are neither).

    For words, the most frequent label of each.
    """
    if isinstance(data, Words):
        return _percent(_of_words(most_frequent_label(data.train, data.test)))
    return score(TfidfEncoder(_texts(data)[0]), kind, data)


def _percent(scores: Scores) -> Scores:
    return {name: 100 * float(value) for name, value in scores.items()}


def texts_of(data: TaskData) -> int:
    """How many texts a task has to encode, counted as an encoder's progress is."""
    if isinstance(data, Words):
        return len(data.train.sentences) + len(data.test.sentences)
    return sum(map(len, _texts(data)))


def unseen(data: TaskData) -> dict[str, int]:
    """Labels that only what is tested has, with their numbers; they count as wrong."""
    if isinstance(data, Words):
        return unseen_labels(data.train, data.test)
    if not isinstance(data, Split):
        return {}
    return dict(Counter(label for label in data.test.labels if label not in set(data.train.labels)))


def _texts(data: Pairs | Labelled | Split | Collection | Candidates) -> list[list[str]]:
    """Lists of texts; the first are those that a baseline may know."""
    if isinstance(data, Pairs):
        return [data.first + data.second]
    if isinstance(data, Labelled):
        return [data.texts]
    if isinstance(data, Split):
        return [data.train.texts, data.test.texts]
    if isinstance(data, Collection):
        return [list(data.corpus.values()), list(data.queries.values())]
    documents = [text for one in data.samples for text in (*one["positive"], *one["negative"])]
    return [documents, [one["query"] for one in data.samples]]


def _sts(encoder: Any, data: Pairs) -> Scores:
    found = EmbeddingSimilarityEvaluator(**_as_pairs(data), scores=data.targets, similarity_fn_names=["cosine"])(
        encoder
    )
    return {"spearman": found["spearman_cosine"], "pearson": found["pearson_cosine"]}


def _pair_classification(encoder: Any, data: Pairs) -> Scores:
    labels = list(map(int, data.targets))
    evaluator = BinaryClassificationEvaluator(**_as_pairs(data), labels=labels, similarity_fn_names=["cosine"])
    found = evaluator(encoder)
    return {name: found[f"cosine_{name}"] for name in ("ap", "accuracy", "f1")}


def _as_pairs(data: Pairs) -> dict[str, Any]:
    return {"sentences1": data.first, "sentences2": data.second}


def _classification(encoder: Any, data: Split) -> Scores:
    """Logistic regression: on standardised vectors of encoders, whose scales differ; on TF-IDF as it is."""
    steps: list[Any] = [LogisticRegression(C=1, max_iter=500)]
    if isinstance(encoder, TaskEncoder):
        steps = [StandardScaler(), LogisticRegression(C=0.1, max_iter=500)]
    classifier = make_pipeline(*steps).fit(_features(encoder, data.train.texts), data.train.labels)
    found = classifier.predict(_features(encoder, data.test.texts))
    return {
        "accuracy": accuracy_score(data.test.labels, found),
        "macro_f1": f1_score(data.test.labels, found, average="macro", zero_division=0),
    }


def _clustering(encoder: Any, data: Labelled) -> Scores:
    """k-means on vectors of length one, with as many clusters as there are labels; mean and spread over three seeds."""
    vectors = normalize(_features(encoder, data.texts))
    clusters = len(set(data.labels))
    found = [
        v_measure_score(data.labels, KMeans(clusters, n_init=3, random_state=seed).fit_predict(vectors))
        for seed in SEEDS
    ]
    return {"v_measure": statistics.fmean(found), "spread": statistics.stdev(found)}


def _features(encoder: Any, texts: list[str]) -> NDArray[Any]:
    """Vectors for scikit-learn; in double precision, so that a sum over thousands does not depend on their order."""
    found: NDArray[Any] = (
        encoder.encode(texts).double().numpy() if isinstance(encoder, TaskEncoder) else encoder.sparse(texts)
    )
    return found


def _retrieval(encoder: Any, data: Collection) -> Scores:
    queries: Any = data.queries
    corpus: Any = data.corpus
    evaluator = InformationRetrievalEvaluator(
        queries,
        corpus,
        {query: set(found) for query, found in data.relevant.items()},
        corpus_chunk_size=CORPUS_AT_ONCE,
        precision_recall_at_k=[100],
    )
    found = evaluator(encoder)
    return {name: found[f"cosine_{name}"] for name in ("ndcg@10", "mrr@10", "recall@100")}


def _reranking(encoder: Any, data: Candidates) -> Scores:
    found = RerankingEvaluator(data.samples)(encoder)
    return {name: found[name] for name in ("map", "mrr@10")}


def _words(encoder: TaskEncoder, data: Words) -> Scores:
    options: dict[str, Any] = {"probe": data.probe, "shift": data.shift, "cache": encoder.cache}
    return _of_words(probe_words(encoder.encoder, data.train, data.test, **options, advance=encoder.advance))


def _of_words(found: WordScores) -> Scores:
    """Mean and spread over seeds; the F1 of chunks where the labels mark them."""
    accuracy, spread = mean_and_spread(found.accuracy)
    f1 = {"f1": mean_and_spread(found.f1)[0]} if found.f1 else {}
    return {name: value / 100 for name, value in {"accuracy": accuracy, **f1, "spread": spread}.items()}


SCORERS: dict[str, Callable[..., Scores]] = {
    "sts": _sts,
    "pair-classification": _pair_classification,
    "classification": _classification,
    "clustering": _clustering,
    "retrieval": _retrieval,
    "reranking": _reranking,
    "words": _words,
}
