"""Chunks and their F1, held against what seqeval and conlleval publish."""

from __future__ import annotations

import pytest

from st_llm2vec.evaluation.entities import are_chunk_labels, chunk_f1, chunks


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("B-PER I-PER O B-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),  # seqeval's own example
        ("I-PER I-PER O I-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),  # IOB1
        ("I-PER B-PER I-PER I-LOC", [("PER", 0, 0), ("PER", 1, 2), ("LOC", 3, 3)]),
        ("S-PER B-LOC I-LOC E-LOC E-LOC", [("PER", 0, 0), ("LOC", 1, 3), ("LOC", 4, 4)]),
        ("S-PER I-PER", [("PER", 0, 0), ("PER", 1, 1)]),
        ("B-NP-SBJ I-NP-SBJ I-NP", [("NP-SBJ", 0, 1), ("NP", 2, 2)]),
        ("O O", []),
    ],
)
def test_chunks(labels: str, expected: list[tuple[str, int, int]]) -> None:
    assert chunks(labels.split()) == expected


def test_seqevals_published_example() -> None:
    expected = ["O O O B-MISC I-MISC I-MISC O".split(), "B-PER I-PER O".split()]
    predicted = ["O O B-MISC I-MISC I-MISC I-MISC O".split(), "B-PER I-PER O".split()]
    assert chunk_f1(expected, predicted) == 0.5
    assert chunk_f1(expected, expected) == 1
    assert chunk_f1(expected, [["O"] * 7, ["O"] * 3]) == 0
    assert chunk_f1([["O"]], [["O"]]) == 0


def test_a_chunk_ends_with_its_sentence() -> None:
    assert chunk_f1([["B-A"], ["I-A"]], [["B-A"], ["O"]]) == pytest.approx(2 / 3)


def test_which_labels_mark_chunks() -> None:
    assert are_chunk_labels(["B-NP", "I-NP", "O"]) and are_chunk_labels(["I-NP"])
    assert not are_chunk_labels(["NN", "O"]) and not are_chunk_labels(["O"]) and not are_chunk_labels(["B-", "O"])
