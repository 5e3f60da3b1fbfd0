"""Chunks and entities in a sentence's labels, and their F1."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

TAG = re.compile(r"O|[BIES]-.+")


def are_chunk_labels(labels: Iterable[str]) -> bool:
    """Whether labels mark chunks: ``B-NP``, ``I-NP``, ``E-NP``, ``S-NP`` and ``O``, not all of them ``O``.

    Example:
        >>> are_chunk_labels(["B-NP", "O"]), are_chunk_labels(["NN", "O"]), are_chunk_labels(["O"])
        (True, False, False)
    """
    labels = set(labels)
    return labels != {"O"} and all(TAG.fullmatch(label) for label in labels)


def chunks(labels: Sequence[str]) -> list[tuple[str, int, int]]:
    """The chunks of a sentence, as seqeval's default mode and conlleval find them.

    A chunk goes on where ``I-`` or ``E-`` follows ``B-`` or ``I-`` of the same type, so that IOB1, IOB2 and IOBES are all
    read, and labels that break their scheme too.

    Args:
        labels: The labels of the sentence's words.

    Returns:
        For each chunk its type, its first word and its last.

    Example:
        >>> chunks(["B-PER", "I-PER", "O", "B-LOC"])
        [('PER', 0, 1), ('LOC', 3, 3)]
    """
    found: list[tuple[str, int, int]] = []
    before, before_type = "O", ""
    for place, label in enumerate(labels):
        tag, _, kind = label.partition("-")
        if tag in ("I", "E") and before in ("B", "I") and kind == before_type:
            found[-1] = (kind, found[-1][1], place)
        elif tag != "O":
            found.append((kind, place, place))
        before, before_type = tag, kind
    return found


def chunk_f1(expected: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """F1 over the chunks of all sentences (micro average): a chunk is right if its type and both its ends are.

    Args:
        expected: The true labels of each sentence.
        predicted: The predicted ones.

    Returns:
        Between 0 and 1; 0 where no chunk is right.

    Example:
        >>> chunk_f1([["O", "B-MISC", "I-MISC"], ["B-PER", "O"]], [["B-MISC", "I-MISC", "I-MISC"], ["B-PER", "O"]])
        0.5
    """
    true, guessed = (
        {(number, *one) for number, row in enumerate(rows) for one in chunks(row)} for rows in (expected, predicted)
    )
    return 2 * len(true & guessed) / max(len(true) + len(guessed), 1)
