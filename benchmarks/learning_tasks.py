"""Small public tasks that an encoder is scored on: similarity, classification, retrieval."""

from __future__ import annotations

import csv
import re
from functools import cache
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TASKS = ("STS-B dev", "STS-B test", "Banking77", "TREC", "Cranfield")
BATCH = 64
Pairs = tuple[list[str], list[str], list[float]]


def evaluate(encoder: SentenceTransformer, data: Path = DATA, tasks: tuple[str, ...] = TASKS) -> dict[str, float]:
    """Score an encoder; every score is between 0 and 100, and more is better."""
    scores = {
        "STS-B dev": lambda: sts_spearman(encoder, *read_sts(data, "dev")),
        "STS-B test": lambda: sts_spearman(encoder, *read_sts(data, "test")),
        "Banking77": lambda: linear_accuracy(encoder, *read_banking77(data)),
        "TREC": lambda: linear_accuracy(encoder, *read_trec(data)),
        "Cranfield": lambda: retrieval_ndcg(encoder, *read_cranfield(data)),
    }
    return {task: 100 * scores[task]() for task in tasks}


def sts_spearman(encoder: SentenceTransformer, first: list[str], second: list[str], scores: list[float]) -> float:
    """Spearman correlation of the cosine similarity with people's scores."""
    vectors = [_unit(encode(encoder, texts)) for texts in (first, second)]
    return float(spearmanr((vectors[0] * vectors[1]).sum(1), scores).statistic)


def linear_accuracy(
    encoder: SentenceTransformer, train: tuple[list[str], list[str]], test: tuple[list[str], list[str]]
) -> float:
    """Test accuracy of a logistic regression on standardised vectors."""
    scaler = StandardScaler()
    train_vectors = scaler.fit_transform(encode(encoder, train[0]))
    model = LogisticRegression(C=0.1, max_iter=200).fit(train_vectors, train[1])
    return float(model.score(scaler.transform(encode(encoder, test[0])), test[1]))


def retrieval_ndcg(
    encoder: SentenceTransformer, queries: dict[str, str], corpus: dict[str, str], relevant: dict[str, set[str]]
) -> float:
    """NDCG@10 of a search by cosine similarity."""
    evaluator = InformationRetrievalEvaluator(
        queries, corpus, relevant, ndcg_at_k=[10], batch_size=BATCH, main_score_function="cosine", name="cranfield"
    )
    return float(evaluator(encoder)["cranfield_cosine_ndcg@10"])


def encode(encoder: SentenceTransformer, texts: list[str]) -> np.ndarray:
    """Vectors in double precision, so that a sum over thousands of texts does not depend on their order."""
    return encoder.encode(texts, batch_size=BATCH, show_progress_bar=False).astype(np.float64)


def read_sts(data: Path, part: str) -> Pairs:
    """Read a part of the STS benchmark: two lists of sentences and people's scores."""
    with (data / "sts" / f"stsb-en-{part}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    return [row[0] for row in rows], [row[1] for row in rows], [float(row[2]) for row in rows]


def read_banking77(data: Path) -> tuple[tuple[list[str], list[str]], tuple[list[str], list[str]]]:
    """Read train and test of Banking77: texts and their intents."""

    def read(part: str) -> tuple[list[str], list[str]]:
        with (data / "classification" / "banking77" / f"{part}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [row["text"] for row in rows], [row["category"] for row in rows]

    return read("train"), read("test")


def read_trec(data: Path) -> tuple[tuple[list[str], list[str]], tuple[list[str], list[str]]]:
    """Read train and test of TREC: questions and their types."""

    def read(part: str) -> tuple[list[str], list[str]]:
        path = data / "classification" / "trec" / f"TREC.{part}.all"
        rows = [line.split(" ", 1) for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line]
        return [row[1] for row in rows], [row[0] for row in rows]

    return read("train"), read("test")


@cache
def read_cranfield(data: Path) -> tuple[dict[str, str], dict[str, str], dict[str, set[str]]]:
    """Read Cranfield: queries, documents (their text; empty ones left out) and what is relevant to each query."""
    folder = data / "retrieval" / "cranfield"
    documents = {number: text for number, text in _smart(folder / "cran.all.1400").items() if text}
    queries = {str(at): text for at, text in enumerate(_smart(folder / "cran.qry").values(), start=1)}
    relevant: dict[str, set[str]] = {}
    for line in (folder / "QRelsCorrectedforTRECeval").read_text().splitlines():
        query, _, document, grade = line.split()
        if grade in {"1", "2", "3", "4"} and document in documents:
            relevant.setdefault(query, set()).add(document)
    return {number: text for number, text in queries.items() if number in relevant}, documents, relevant


def _smart(path: Path) -> dict[str, str]:
    """The ``.W`` field of each entry of a SMART file, its lines joined."""
    entries = re.split(r"^\.I ", path.read_text(encoding="utf-8", errors="replace"), flags=re.MULTILINE)[1:]
    found = {}
    for entry in entries:
        number, _, rest = entry.partition("\n")
        found[number.strip()] = " ".join(rest.partition(".W")[2].split())
    return found


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
