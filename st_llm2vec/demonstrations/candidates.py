"""Where candidates come from: those of the package, files of sentences with a word, and pairs of a task."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset

from st_llm2vec import assets
from st_llm2vec.data.read import read_dataset
from st_llm2vec.data.rows import as_text
from st_llm2vec.demonstrations.dev_sets import Retrieval, ScoredPairs
from st_llm2vec.demonstrations.trial import Candidate
from st_llm2vec.recipe.config import RECIPES, Demonstration
from st_llm2vec.training.named_data import SCORED, open_scored_pairs

BUILT_IN = Path(assets.__file__).parent / "demonstrations.jsonl"
QUERIES, POSITIVES = ("query", "anchor", "question", "sentence1"), ("positive", "answer", "document", "sentence2")
LONGEST_EXAMPLE = 64


def built_in_candidates() -> list[Candidate]:
    """The sentences with a word each that the package carries, and the demonstration of ``prompteol-icl``.

    Example:
        >>> len(built_in_candidates())
        67
    """
    return [Candidate(RECIPES["prompteol-icl"].demonstrations, "prompteol-icl"), *read_candidates(BUILT_IN, "built-in")]


def read_candidates(file: str | Path, source: str = "") -> list[Candidate]:
    """Read sentences with a word each.

    Args:
        file: Any file that :func:`st_llm2vec.data.read_dataset` reads, with the columns ``text`` and ``response``, and
            ``instruction`` where the recipe has a place for it.
        source: What the table calls them; the file's name if not given.

    Returns:
        A candidate for each row.

    Raises:
        ValueError: If the file cannot be read, or a row has no text or no response.
    """
    names = ("text", "response")
    table = read_dataset(file, only_texts=names if Path(file).suffix.lower() in (".csv", ".tsv") else ())
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise ValueError(
            f"{file} has no column {missing[0]!r}, only {', '.join(table.column_names)}; a candidate needs text and response."
        )
    found = []
    for row, one in enumerate(table, start=1):
        parts = {name: one.get(name) or "" for name in (*names, "instruction")}
        if not all(isinstance(part, str) for part in parts.values()) or not (parts["text"] and parts["response"]):
            raise ValueError(f"Row {row} of {file} has no text or no response: {dict(one)!r}.")
        found.append(Candidate((Demonstration(**parts),), source or Path(file).name))
    return found


def read_sentences(file: str | Path) -> list[str]:
    """Read sentences to find words for: the column ``text``, or both columns of a file of pairs with scores.

    Args:
        file: The file.

    Returns:
        The sentences, each once.

    Raises:
        ValueError: If it holds neither.
    """
    table = read_dataset(file)
    if "text" in table.column_names:
        found = list(table["text"])
    else:
        pairs = open_scored_pairs(str(file))
        found = [text for name in SCORED[:2] for text in pairs[name]]
    return list(dict.fromkeys(text.strip() for text in found if text and text.strip()))


def read_scored_pairs(file: str | Path, limit: int | None = None, instruction: str | None = None) -> ScoredPairs:
    """Read a dev set of pairs with scores, as ``train --eval`` does.

    Args:
        file: The file, or ``stsb``.
        limit: Take the first pairs only.
        instruction: What recipes that take an instruction are told.

    Returns:
        The pairs.

    Raises:
        ValueError: If the file holds no such pairs.
    """
    table = _first(open_scored_pairs(str(file)), limit)
    first, second, scores = (list(table[name]) for name in SCORED)
    return ScoredPairs(first, second, [float(score) for score in scores], instruction)


def read_task_pairs(file: str | Path, limit: int | None = None) -> list[tuple[str, str]]:
    """Read a task's queries with a positive each.

    Args:
        file: The file, with a column ``query`` (or ``anchor``, ``question``, ``sentence1``) and one ``positive`` (or
            ``answer``, ``document``, ``sentence2``). Of a list of positives, as training reads them, the first is taken.
        limit: Take the first pairs only.

    Returns:
        The pairs; rows with an empty query or positive are left out.

    Raises:
        ValueError: If the file has no such columns, or a row holds no text in one.
    """
    table = _first(read_dataset(file), limit)
    columns = []
    for names in (QUERIES, POSITIVES):
        known = [name for name in names if name in table.column_names]
        if not known:
            raise ValueError(
                f"{file} has the columns {', '.join(table.column_names)}, and none of {', '.join(names)}; a task's pairs "
                "have a query and a positive."
            )
        columns.append(known[0])
    found = []
    for number, row in enumerate(table.select_columns(columns)):
        query, positives = row[columns[0]], row[columns[1]]
        positive = next(filter(None, positives), None) if isinstance(positives, list) else positives
        if query and positive:
            first = as_text(query, columns[0], str(file), number)
            found.append((first, as_text(positive, columns[1], str(file), number)))
    return found


def _first(table: Dataset, limit: int | None) -> Dataset:
    return table.select(range(min(limit or len(table), len(table))))


def task_examples(pairs: Sequence[tuple[str, str]], instruction: str) -> tuple[Demonstration, ...]:
    """A task's pairs as examples, as bge-en-icl (arXiv 2409.15700) puts them before a query.

    Args:
        pairs: Queries with what answers each.
        instruction: The task's, which each example repeats.

    Returns:
        The demonstrations: ``convert(decoder, "bge-en-icl", demonstrations=task_examples(...))``.

    Raises:
        ValueError: If the instruction is empty, without which the recipe shows no examples.

    Example:
        >>> task_examples([("who wrote it?", "Its author is unknown.")], "Answer the question.")[0].response
        'Its author is unknown.'
    """
    if not instruction.strip():
        raise ValueError("Examples need the task's instruction: texts without one have no place for them.")
    return tuple(Demonstration(query, positive, instruction) for query, positive in pairs)


def example_sets(
    pairs: Sequence[tuple[str, str]],
    instruction: str,
    examples: int = 2,
    count: int = 60,
    seed: int = 0,
    longest: int = LONGEST_EXAMPLE,
) -> list[Candidate]:
    """Draw sets of a task's pairs, to choose the best from.

    Args:
        pairs: The pairs to draw from, of training, none of which may be in the dev set.
        instruction: The task's.
        examples: How many of them are shown together.
        count: How many sets.
        seed: Of the draw.
        longest: Leave out pairs of more words, which every query would have to carry.

    Returns:
        The candidates, each set once.

    Raises:
        ValueError: If too few pairs are short enough.
    """
    short = [pair for pair in dict.fromkeys(pairs) if len(" ".join(pair).split()) <= longest]
    if len(short) < examples + 1:
        raise ValueError(
            f"{len(short)} of {len(pairs)} pairs have at most {longest} words; sets of {examples} need more of them."
        )
    draw = random.Random(seed)
    drawn = [task_examples(draw.sample(short, examples), instruction) for _ in range(count)]
    return [Candidate(one, "training pairs") for one in dict.fromkeys(drawn)]


def held_out(pairs: Sequence[tuple[str, str]], instruction: str) -> Retrieval:
    """A task's dev pairs as a dev set.

    Args:
        pairs: Queries with a positive each.
        instruction: The task's.
    """
    return Retrieval([query for query, _ in pairs], [positive for _, positive in pairs], instruction)
