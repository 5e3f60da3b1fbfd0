"""Hard negatives for pairs, by ``mine_hard_negatives`` of Sentence Transformers, and a report of what was left out and why."""

from __future__ import annotations

import contextlib
import io
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from statistics import fmean
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.util import mine_hard_negatives

from st_llm2vec.data.mining_settings import MiningSettings
from st_llm2vec.data.teacher import Teacher

SKIPPED = re.compile(r"Skipped ([\d,]+) potential negatives \(.*?\) due to the (\w+) of")
SAMPLES = 5
SCORES_AT_A_TIME = 2**26
Candidates = dict[tuple[str, str], dict[str, float]]


@dataclass(frozen=True)
class Mined:
    """Pairs with hard negatives.

    Args:
        rows: The columns ``query``, ``positive``, ``negative`` (a list) and ``scores`` (of the positive, then of each negative).
        report: How many rows and candidates there were, how many each filter removed, the scores, and some rows.
    """

    rows: Dataset
    report: dict[str, Any]


def mine(
    pairs: Sequence[tuple[str, str]],
    model: SentenceTransformer,
    settings: MiningSettings,
    *,
    corpus: Iterable[str] = (),
    classes: Mapping[str, Any] | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    cross_encoder: CrossEncoder | None = None,
    where: str = "the pairs",
    progress: bool = False,
) -> Mined:
    """Mine hard negatives for pairs among their positives and a corpus.

    A text is no negative of itself, of its other positives, or of the texts of its class. Rows for which no negative is left
    are left out.

    Args:
        pairs: Queries and positives; a query may occur with several.
        model: The teacher: any ``SentenceTransformer``.
        settings: Which candidates are taken.
        corpus: More texts to mine in; they are read once, in parts.
        classes: The class of each text, where texts have one.
        query_prompt: The teacher's instruction for queries; by default its own.
        document_prompt: That for documents.
        cross_encoder: Scores the candidates again, and the positives, where scores are compared with them.
        where: What the pairs are called in messages.
        progress: Whether bars are shown.

    Returns:
        The rows, and the report.

    Raises:
        ValueError: If there are fewer than two texts to mine in, or no row has a negative left.
    """
    pairs = list(dict.fromkeys((query.strip(), positive.strip()) for query, positive in pairs))
    positives = Counter(query for query, _ in pairs)
    classes = {text.strip(): label for text, label in (classes or {}).items()}
    last = settings.last_rank(max(positives.values()))
    known = list(dict.fromkeys(text for pair in pairs for text in pair))
    teacher = Teacher(model, query_prompt, document_prompt, classes, known, last, progress)
    dataset = Dataset.from_dict({"query": [one for one, _ in pairs], "positive": [one for _, one in pairs]})
    removed: Counter[str] = Counter()
    texts = len({positive for _, positive in pairs})
    parts: list[Candidates] = []
    scores: dict[tuple[str, str], float] = {}
    for part, next_part in _with_next(_parts(corpus, settings.chunk)):
        whole = not parts and next_part is None
        texts += len(set(part) - {positive for _, positive in pairs})
        if texts < 2 and next_part is None:
            raise ValueError(
                f"The corpus of {where} has one text, {part[0] if part else pairs[0][1]!r}; there is no negative in it."
            )
        parts.append(_candidates(dataset, teacher, settings, part, last, whole, cross_encoder, removed, scores))
    rows = _rows(pairs, parts, scores, teacher, settings, last)
    if not rows:
        raise ValueError(
            f"No row of {where} has a negative left: {_said(removed) or 'there are no other texts'}. Loosen the filters, raise "
            "range_max, or give a larger corpus."
        )
    names = ("query", "positive", "negative", "scores")
    report = {
        "rows": len(pairs),
        "rows_with_negatives": len(rows),
        "rows_with_fewer": sum(len(row[2]) < settings.negatives for row in rows),
        "corpus": texts,
        "removed": {**removed, "same text or class": teacher.excluded},
        "scores": {
            "positive": fmean(row[3][0] for row in rows),
            "negative": fmean(score for row in rows for score in row[3][1:]),
        },
        "settings": asdict(settings),
        "samples": [dict(zip(names, row, strict=True)) for row in _spread(rows)],
    }
    return Mined(Dataset.from_dict({name: [row[at] for row in rows] for at, name in enumerate(names)}), report)


def _candidates(
    dataset: Dataset,
    teacher: Teacher,
    settings: MiningSettings,
    part: list[str],
    last: int,
    whole: bool,
    cross_encoder: CrossEncoder | None,
    removed: Counter[str],
    scores: dict[tuple[str, str], float],
) -> Candidates:
    """The candidates of a part of the corpus that no filter removes; of the whole corpus those that are chosen."""
    state = random.getstate()
    random.seed(settings.seed)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), torch.no_grad():
            found = mine_hard_negatives(
                dataset,
                teacher,  # type: ignore[arg-type]
                corpus=part or None,
                cross_encoder=cross_encoder,
                range_min=settings.range_min if whole else 0,
                range_max=last,
                max_score=settings.max_score,
                min_score=settings.min_score,
                absolute_margin=settings.absolute_margin,
                relative_margin=settings.relative_margin,
                num_negatives=settings.negatives if whole else last,
                sampling_strategy=settings.sampling if whole else "top",  # type: ignore[arg-type]
                output_format="labeled-list",
                output_scores=True,
                batch_size=settings.batch_size,
                faiss_batch_size=max(1, SCORES_AT_A_TIME // (len(part) + len(dataset))),
            )
    finally:
        random.setstate(state)
    for count, name in SKIPPED.findall(printed.getvalue()):
        removed[name] += int(count.replace(",", ""))
    chosen: Candidates = {}
    for row in found:
        positive, *negatives = row["positive"]
        pair = (row["query"], positive)
        scores[pair] = row["scores"][0]
        chosen[pair] = dict(zip(negatives, row["scores"][1:], strict=True))
    return chosen


def _rows(
    pairs: Sequence[tuple[str, str]],
    parts: list[Candidates],
    scores: Mapping[tuple[str, str], float],
    teacher: Teacher,
    settings: MiningSettings,
    last: int,
) -> list[tuple[str, str, list[str], list[float]]]:
    """The rows in order; of several parts the nearest candidates, or some of them, as of a whole corpus."""
    draws = random.Random(settings.seed)
    own: dict[str, set[str]] = defaultdict(set)
    for query, positive in pairs:
        own[query].add(positive)
    rows = []
    for pair in pairs:
        found = {text: score for part in parts for text, score in part.get(pair, {}).items()}
        # A cross-encoder's scores are of all candidates, also of those that were none.
        ranked = [
            (text, score)
            for text, score in sorted(found.items(), key=lambda one: -one[1])
            if text not in own[pair[0]] and not teacher.is_excluded(pair[0], text)
        ]
        if len(parts) > 1:
            ranked = ranked[settings.range_min : last]
            if settings.sampling == "random" and len(ranked) > settings.negatives:
                ranked = [ranked[at] for at in sorted(draws.sample(range(len(ranked)), settings.negatives))]
        ranked = ranked[: settings.negatives]
        if ranked:
            rows.append((*pair, [text for text, _ in ranked], [scores[pair], *(score for _, score in ranked)]))
    return rows


def _parts(corpus: Iterable[str], size: int) -> Iterator[list[str]]:
    """The corpus in parts; one at least, which may be empty."""
    texts = (text.strip() for text in corpus if text.strip())
    yield list(islice(texts, size))
    while part := list(islice(texts, size)):
        yield part


def _with_next(parts: Iterator[list[str]]) -> Iterator[tuple[list[str], list[str] | None]]:
    current: list[str] | None = next(parts)
    while current is not None:
        following = next(parts, None)
        yield current, following
        current = following


def _spread(rows: list[Any]) -> list[Any]:
    step = max(1, len(rows) // SAMPLES)
    return rows[::step][:SAMPLES]


def _said(removed: Mapping[str, int]) -> str:
    return ", ".join(f"{name} removed {count:,} candidates" for name, count in removed.items())
