"""The Cranfield collection and nDCG@10, for the examples and the tests of the adapters."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import semantic_search


@dataclass(frozen=True)
class Collection:
    """Documents, queries, and which documents answer which query.

    Args:
        documents: Texts by id.
        queries: Texts by id.
        relevant: Ids of documents by the query's id.
    """

    documents: dict[str, str]
    queries: dict[str, str]
    relevant: dict[str, set[str]]


def read_cranfield(folder: Path) -> Collection:
    """Read ``cran.all.1400``, ``cran.qry`` and ``cranqrel``; queries are numbered in their order, as judgements are.

    A judgement of -1 says that the document does not answer the query.
    """
    documents = {number: _field(record, "W") for number, record in _records(folder / "cran.all.1400")}
    queries = {str(place): _field(record, "W") for place, (_, record) in enumerate(_records(folder / "cran.qry"), 1)}
    relevant: dict[str, set[str]] = {}
    for line in (folder / "cranqrel").read_text().splitlines():
        query, document, grade = line.split()[:3]
        if int(grade) > 0:
            relevant.setdefault(query, set()).add(document)
    return Collection({one: text for one, text in documents.items() if text}, queries, relevant)


def ndcg_at_10(found: dict[str, Sequence[str]], relevant: dict[str, set[str]]) -> float:
    """The mean over all queries, for documents that are relevant or not."""
    gains = 1 / np.log2(np.arange(2, 12))
    scores = []
    for query, wanted in relevant.items():
        hits = np.array([document in wanted for document in found[query][:10]] + [False] * 10)[:10]
        scores.append(float(hits @ gains / gains[: len(wanted)].sum()))
    return float(np.mean(scores))


def own_search(encoder: SentenceTransformer, collection: Collection) -> dict[str, list[str]]:
    """The ten best documents for each query, by Sentence Transformers' exact search."""
    names = list(collection.documents)
    documents = encoder.encode_document(list(collection.documents.values()), convert_to_tensor=True)
    queries = encoder.encode_query(list(collection.queries.values()), convert_to_tensor=True)
    hits = semantic_search(queries, documents, top_k=10)
    return {
        query: [names[hit["corpus_id"]] for hit in one] for query, one in zip(collection.queries, hits, strict=True)
    }


def searched(collection: Collection, search: Callable[[str], list[Any]]) -> dict[str, list[str]]:
    """The documents that a function finds for each query."""
    return {query: [str(one) for one in search(text)] for query, text in collection.queries.items()}


def _records(path: Path) -> list[tuple[str, str]]:
    parts = re.split(r"^\.I\s+(\d+)\s*$", path.read_text(encoding="latin-1"), flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def _field(record: str, name: str) -> str:
    found = re.search(rf"^\.{name}\s*\n(.*?)(?=^\.[A-Z]\s*$|\Z)", record, flags=re.MULTILINE | re.DOTALL)
    return " ".join(found.group(1).split()) if found else ""
