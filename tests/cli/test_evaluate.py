"""``st-llm2vec evaluate``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ..evaluation.test_words import stock
from .test_cli import loud_again, run, succeed  # noqa: F401

SENTENCE = "The DT B-NP\ngirl NN I-NP\nsees VBZ B-VP\nthe DT B-NP\ncat NN I-NP\n. . O\n\n"


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("st_llm2vec.evaluation.word_probe.STEPS", 20)


@pytest.fixture
def files(tmp_path: Path) -> list[object]:
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"
    train.write_text(SENTENCE * 4)
    test.write_text(SENTENCE.replace("cat NN I-NP", "dog NN B-DOG"))
    return ["--train", train, "--test", test, "--cache", tmp_path / "cache"]


@pytest.fixture
def encoder(tiny: Callable[..., str], tmp_path: Path) -> str:
    folder = str(tmp_path / "an encoder")
    stock(tiny("llama")).save(folder)
    return folder


def test_words_of_encoders_beside_the_baseline(encoder: str, files: list[object], tmp_path: Path) -> None:
    data = json.loads(
        succeed("evaluate", "words", encoder, *files, "--column", "chunk", "--probe", "logistic", "--json").stdout
    )
    assert list(data["models"]) == ["most frequent label", encoder]
    assert data["models"]["most frequent label"]["accuracy"] == [pytest.approx(100 * 5 / 6)]
    assert data["models"][encoder]["unseen"] == {"B-DOG": 1} and len(data["models"][encoder]["f1"]) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 2
    shown = succeed("evaluate", "words", encoder, *files, "--column", "pos", "--seeds", 2, "--shift", "--limit", 1)
    assert "most frequent label" in shown.stdout and "±" in shown.stdout and "F1" not in shown.stdout
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_words_of_a_decoder_with_both_kinds_of_attention(tiny: Callable[..., str], files: list[object]) -> None:
    decoder = tiny("llama")
    options = ["--column", "pos", "--probe", "logistic", "--attention", "both"]
    shown = succeed("evaluate", "words", decoder, *files, *options, "--json")
    assert list(json.loads(shown.stdout)["models"])[1:] == [f"{decoder}, causal", f"{decoder}, bidirectional"]


def test_labels_that_training_does_not_have_are_told(encoder: str, files: list[object]) -> None:
    shown = succeed("evaluate", "words", encoder, *files, "--column", "chunk", "--probe", "logistic")
    assert "Labels that training does not have, which count as wrong, with their words: B-DOG (1)." in shown.stderr


def test_analysis(encoder: str, tmp_path: Path) -> None:
    triples = tmp_path / "triples.jsonl"
    triples.write_text('{"query": "a b", "positive": "a c", "negative": "a d", "shared_prefix": "a"}\n')
    texts = tmp_path / "texts.txt"
    texts.write_text("Once upon a time.\n\nThe clock struck seven.\n")
    options = ["evaluate", "analyse", encoder, "--triples", triples, "--against", encoder, "--texts", texts]
    data = json.loads(succeed(*options, "--json").stdout)
    assert data["future"]["causal"]["tied"] == 1
    assert data["similarity_to_decoder"] == pytest.approx([1.0] * 3, abs=1e-5)
    shown = succeed(*options)
    texts.write_text("One text.\n")
    assert "holds fewer than two texts" in run(*options).stderr
    assert "all 1 triples tied" in shown.stdout and "above chance" in shown.stdout and "to the decoder" in shown.stdout


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--column", "ner"], "Line 1 of"),
        (["--column", "pos", "--probe", "deep"], "--probe deep is not one of linear, logistic."),
        (["--column", "pos", "--attention", "none"], "--attention none is not one of causal, bidirectional, both."),
    ],
)
def test_bad_options_are_a_sentence(options: list[str], sentence: str, encoder: str, files: list[object]) -> None:
    result = run("evaluate", "words", encoder, *files, *options)
    assert result.exit_code == 1 and sentence in result.stderr and "Traceback" not in result.stderr
