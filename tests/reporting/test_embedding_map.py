from __future__ import annotations

import numpy as np
import pytest
import torch

from st_llm2vec.evaluation.task_data import Labelled, Pairs, Split
from st_llm2vec.evaluation.task_plan import TaskSpec
from st_llm2vec.evaluation.tasks import Task
from st_llm2vec.reporting.embedding_map import LABELS, mapped_texts, place_texts


def labelled(kind: str, data: Labelled | Split) -> Task:
    files = {"clustering": {"data": "x"}, "classification": {"train": "x", "test": "y"}}[kind]
    return Task(TaskSpec("topics", kind, files, instruction="Name the topic:"), data)


def test_texts_are_those_of_the_first_task_with_labels() -> None:
    pairs = Task(TaskSpec("pairs", "sts", {"data": "x"}), Pairs(["a", "b"], ["c", "d"], [0.0, 1.0]))
    texts = [f"text {n}" for n in range(60)]
    data = Labelled(texts, [str(min(n % 10, 8)) for n in range(60)])
    for task in (labelled("clustering", data), labelled("classification", Split(Labelled(["z"], ["q"]), data))):
        found = mapped_texts([pairs, task])
        assert (found.source, found.instruction, found.pairs) == ("topics", "Name the topic:", False)
        assert len(set(found.labels)) == LABELS and set(found.texts) < set(texts)
        assert "8" in found.labels  # the most frequent one
    assert mapped_texts([pairs]).pairs and len(mapped_texts([pairs]).texts) == 32


def test_neighbours_stay_neighbours_and_places_are_the_same_again() -> None:
    torch.manual_seed(0)
    centres = torch.randn(3, 16) * 5
    vectors = torch.cat([centre + 0.1 * torch.randn(10, 16) for centre in centres])
    places = np.array(place_texts(vectors))
    assert places.tolist() == np.array(place_texts(vectors)).tolist()
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    same = np.kron(np.eye(3), np.ones((10, 10))).astype(bool)
    np.fill_diagonal(apart, np.inf)
    nearest = apart.argmin(axis=1)
    assert same[np.arange(30), nearest].all()


@pytest.mark.parametrize(("texts", "width"), [(1, 4), (2, 1), (5, 3), (8, 2)])
def test_few_texts_have_places_too(texts: int, width: int) -> None:
    places = np.array(place_texts(torch.randn(texts, width)))
    assert places.shape == (texts, 2) and np.isfinite(places).all()
