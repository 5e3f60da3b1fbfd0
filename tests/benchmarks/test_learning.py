"""The training data of the learning table holds nothing that the table is measured on."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.learning import Corpus
from benchmarks.learning_tasks import read_banking77, read_cranfield, read_sts, read_trec


def letters(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalnum())


@pytest.mark.slow
def test_no_test_sentence_is_trained_on(shared_data: Path) -> None:
    corpus = Corpus(shared_data)
    made = [corpus.sentences(), corpus.triplets(), corpus.paraphrases(), corpus.same_intent()]
    trained = {letters(text) for dataset in made for column in dataset.column_names for text in dataset[column]}
    for part in ("dev", "test"):
        first, second, _ = read_sts(shared_data, part)
        assert not trained & {letters(text) for text in (*first, *second)}
    assert len(corpus.removed) > 200
    assert [len(dataset) > 2000 for dataset in made] == [True] * 4


def test_the_tasks_are_read_whole(shared_data: Path) -> None:
    assert [len(read_sts(shared_data, part)[0]) for part in ("dev", "test")] == [1500, 1379]
    (train, _), (test, labels) = read_banking77(shared_data)
    assert (len(train), len(test), len(set(labels))) == (10_003, 3_080, 77)
    (train, _), (test, labels) = read_trec(shared_data)
    assert (len(train), len(test), len(set(labels))) == (5_452, 500, 6)
    queries, documents, relevant = read_cranfield(shared_data)
    assert (len(queries), len(documents), sum(map(len, relevant.values()))) == (225, 1398, 1611)
