from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from st_llm2vec import TextEncoder, convert
from st_llm2vec.evaluation import word_probe
from st_llm2vec.evaluation.word_files import LabelledWords, read_labelled_words
from st_llm2vec.evaluation.word_probe import mean_and_spread, most_frequent_label, probe_words, unseen_labels

NOUNS, VERBS = ["girl", "cat", "clock", "garden", "house"], ["sees", "loves", "finds", "paints", "opens"]
TRIPLES = list(itertools.product(NOUNS, VERBS, NOUNS))


def labelled(name: str, triples: list[tuple[str, str, str]]) -> LabelledWords:
    return LabelledWords(
        name, [["The", a, b, "the", c, "."] for a, b, c in triples], [["D", "N", "V", "D", "N", "P"]] * len(triples)
    )


TRAIN, TEST = labelled("train", TRIPLES[::5]), labelled("test", TRIPLES[2::5])


@pytest.fixture(autouse=True)
def few_steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred steps learn what is tested here, in a tenth of the time."""
    if request.function is not test_the_papers_settings:
        monkeypatch.setattr(word_probe, "STEPS", 100)
        monkeypatch.setattr(word_probe, "LEARNING_RATE", 5e-3)


@pytest.fixture(scope="module")
def encoder(decoder: str) -> TextEncoder:
    return convert(decoder, "sgpt", device="cpu", dtype=torch.float32)


@pytest.mark.parametrize("probe", ["linear", "logistic"])
def test_a_probe_learns_what_the_vectors_tell(probe: str, encoder: TextEncoder, tmp_path: Path) -> None:
    found = probe_words(encoder, TRAIN, TEST, probe=probe, seeds=(0, 1), cache=tmp_path)
    assert (found.probe, found.words, found.f1, found.unseen) == (probe, 150, [], {})
    assert len(found.accuracy) == (2 if probe == "linear" else 1)
    assert min(found.accuracy) > 95
    assert probe_words(encoder, TRAIN, TEST, probe=probe, seeds=(0, 1), cache=tmp_path).accuracy == found.accuracy
    data = json.loads(json.dumps(found.to_dict()))
    assert data["summary"]["accuracy"]["mean"] == pytest.approx(np.mean(found.accuracy))


def test_labels_that_the_vectors_do_not_tell_are_not_learned(encoder: TextEncoder) -> None:
    generator = np.random.default_rng(0)
    labels = [generator.choice(["A", "B"], 6).tolist() for _ in range(25)]
    by_chance = LabelledWords("chance", TEST.sentences, labels)
    train = LabelledWords("train", TRAIN.sentences, [generator.choice(["A", "B"], 6).tolist() for _ in range(25)])
    assert 25 < probe_words(encoder, train, by_chance, probe="logistic").accuracy[0] < 75


def test_the_encoder_is_frozen_and_chance_is_left_as_it_was(encoder: TextEncoder) -> None:
    before = {name: one.clone() for name, one in encoder.state_dict().items()}
    state = torch.get_rng_state()
    first = probe_words(encoder, TRAIN, TEST, shift=True)
    assert torch.equal(state, torch.get_rng_state())
    assert first.accuracy == probe_words(encoder, TRAIN, TEST, shift=True).accuracy
    assert all(torch.equal(one, before[name]) for name, one in encoder.state_dict().items())


def test_chunks_have_an_f1(encoder: TextEncoder) -> None:
    tags = {"D": "B-NP", "N": "I-NP", "V": "B-VP", "P": "O"}
    parts = [
        LabelledWords(one.name, one.sentences, [[tags[label] for label in row] for row in one.labels])
        for one in (TRAIN, TEST)
    ]
    found = probe_words(encoder, *parts, seeds=(0,))
    assert found.f1[0] > 90
    assert most_frequent_label(*parts).f1 == [100.0]


def test_the_baseline_by_hand() -> None:
    train = LabelledWords("train", [["a", "b", "a", "a"], ["c"]], [["X", "Y", "X", "Y"], ["Y"]])
    test = LabelledWords("test", [["a", "b"], ["new", "new"]], [["X", "Y"], ["Y", "Z"]])
    found = most_frequent_label(train, test)
    assert (found.accuracy, found.unseen, found.words) == ([75.0], {"Z": 1}, 4)


def test_the_baseline_that_conll_2000_publishes(shared_data: Path) -> None:
    """The most frequent chunk label of each part of speech has an F1 of 77.07 by conlleval (Tjong Kim Sang, Buchholz 2000)."""
    parts = []
    for part in ("train", "test"):
        file = shared_data / "words" / f"conll2000-{part}.txt"
        speech, chunk = (read_labelled_words(file, column).labels for column in ("pos", "chunk"))
        parts.append(LabelledWords(part, speech, chunk))
    found = most_frequent_label(*parts)
    assert (round(found.f1[0], 2), round(found.accuracy[0], 2), found.unseen) == (77.07, 77.29, {"I-LST": 2})


def test_labels_that_cannot_be_learned_are_refused() -> None:
    other = LabelledWords("other", [["a", "b"]], [["NN", "VB"]])
    with pytest.raises(ValueError, match=r"No label of other \(NN, VB\) is in train \(D, N, P, V\)"):
        most_frequent_label(TRAIN, other)
    with pytest.raises(ValueError, match="one has a single label, 'N'"):
        unseen_labels(LabelledWords("one", [["a"]], [["N"]]), TEST)


def test_mean_and_spread() -> None:
    assert mean_and_spread([90.0]) == (90.0, 0.0)
    assert mean_and_spread([1, 3]) == (2, pytest.approx(2**0.5))


def test_the_papers_settings() -> None:
    """Appendix D.1.3 of arXiv 2404.05961."""
    assert (word_probe.DROPOUT, word_probe.LEARNING_RATE) == (0.1, 5e-4)
    assert (word_probe.SENTENCES_IN_BATCH, word_probe.STEPS) == (8, 1500)
