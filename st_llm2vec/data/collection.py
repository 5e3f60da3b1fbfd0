"""Test collections: a corpus, queries, and judgements of which documents are relevant to which query."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from st_llm2vec.data.read import read_dataset
from st_llm2vec.data.retrieval_files import read_judgements, read_smart, read_trec_documents, read_trec_topics
from st_llm2vec.data.rows import require_columns

logger = logging.getLogger(__name__)

IDENTIFIERS = ("_id", "id")
ROLES = ("corpus", "queries", "qrels")
FORMATS = ("table", "smart", "trec")


@dataclass(frozen=True)
class Collection:
    """Queries and documents by their numbers, and which are relevant to which."""

    queries: dict[str, str]
    corpus: dict[str, str]
    relevant: dict[str, list[str]]


@dataclass(frozen=True)
class CollectionFiles:
    """Where a collection lies, and how it is written.

    Args:
        files: Paths of ``corpus``, ``queries`` and ``qrels``.
        format: One of :data:`FORMATS`.
        encoding: The encoding of SMART and TREC files.
        renumber: Number the queries from 1 in their order, as Cranfield's judgements do.
        smallest_grade: The smallest grade of relevance that counts.
        columns: What tables call ``id``, ``text`` and ``title``.
        header: Names for the columns of a ``.csv`` or ``.tsv`` whose first line is data.
        options: As for :func:`read_dataset`, for its tables: ``{"quoting": 3}`` where a quotation mark means nothing.

    Raises:
        ValueError: If the options are no mapping, or there are some and no tables.
    """

    files: Mapping[str, str]
    format: str = "table"
    encoding: str = "utf-8"
    renumber: bool = False
    smallest_grade: float = 1
    columns: Mapping[str, str] = field(default_factory=dict)
    header: Sequence[str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.options, Mapping):
            raise ValueError(
                f"The options of a collection are {self.options!r}; a mapping is expected, such as {{quoting: 3}}."
            )
        if self.options and self.format != "table":
            raise ValueError(
                f"The options {dict(self.options)} are for tables, and the collection's format is {self.format!r}. Leave them out."
            )


def read_collection(where: CollectionFiles, name: str) -> Collection:
    """Read a collection; documents without text, and queries to which nothing is relevant, are left out.

    Args:
        where: Its files.
        name: What it is called in messages.

    Raises:
        ValueError: If a file cannot be read, or no query has a relevant document.
    """
    corpus = {number: text for number, text in _entries(where, "corpus").items() if text.strip()}
    queries = _entries(where, "queries")
    if where.renumber:
        queries = {str(place): text for place, text in enumerate(queries.values(), start=1)}
    judged = read_judgements(Path(where.files["qrels"]), where.smallest_grade)
    relevant = {query: sorted(one for one in judged[query] if one in corpus) for query in queries if query in judged}
    answered = {query: found for query, found in relevant.items() if found}
    if not answered:
        raise ValueError(
            f"no query of {where.files['queries']} has a relevant document in {where.files['corpus']} by "
            f"{where.files['qrels']}. Numbers must be written alike in all three; `renumber: true` numbers the queries "
            "from 1."
        )
    lost = sum(len(judged[query]) - len(found) for query, found in relevant.items())
    if lost:
        logger.warning(
            "%s: %d judgements are of documents that the corpus has not, or without text; they are left out.",
            name,
            lost,
        )
    return Collection({query: queries[query] for query in answered}, corpus, answered)


def _entries(where: CollectionFiles, role: str) -> dict[str, str]:
    """Texts by their numbers, in the order of the file."""
    path = where.files[role]
    if where.format == "smart":
        return read_smart(Path(path), where.encoding)
    if where.format == "trec":
        read = read_trec_documents if role == "corpus" else read_trec_topics
        return read(Path(path), where.encoding)
    text = where.columns.get("text", "text")
    title = where.columns.get("title", "title")
    csv = Path(path).suffix.lower() in (".csv", ".tsv")
    texts_of_csv = (text, title, where.columns.get("id", "id"), *IDENTIFIERS) if csv else ()
    table = read_dataset(path, columns=where.header, only_texts=texts_of_csv, **where.options)
    identifier = where.columns.get("id") or next((name for name in IDENTIFIERS if name in table.column_names), "id")
    require_columns(table, [identifier, text], path)
    numbers, texts = table[identifier], table[text]
    titles = table[title] if title in table.column_names else [""] * len(table)
    found = {
        str(number): " ".join(filter(None, (head, one)))
        for number, head, one in zip(numbers, titles, texts, strict=True)
    }
    if len(found) < len(table):
        raise ValueError(f"{path} has {len(table) - len(found)} numbers twice in its column {identifier!r}.")
    return found
