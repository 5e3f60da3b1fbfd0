"""Tasks in local files: what is read, scored, told and kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from transformers import PreTrainedTokenizerFast

from st_llm2vec import convert
from st_llm2vec.evaluation.fingerprint import encoder_fingerprint
from st_llm2vec.evaluation.task_data import Candidates, Collection, Labelled, Pairs, Split, Words
from st_llm2vec.evaluation.task_encoder import TaskEncoder, TfidfEncoder
from st_llm2vec.evaluation.task_plan import KINDS, TaskSpec
from st_llm2vec.evaluation.task_scores import score, score_baseline
from st_llm2vec.evaluation.tasks import Task, run_baseline, run_task
from st_llm2vec.evaluation.word_files import LabelledWords
from st_llm2vec.folder.encoder import TextEncoder

ANIMALS, METALS = (
    ["the red fox runs", "the brown fox sleeps", "a fox eats"],
    ["iron melts", "hot iron bends", "iron rusts"],
)
COLLECTION = Collection(
    {"q": "fox sleeps"}, {str(place): text for place, text in enumerate(ANIMALS + METALS)}, {"q": ["1"]}
)
DATA: dict[str, Any] = {
    "sts": Pairs(ANIMALS, [ANIMALS[0], METALS[0], "a fox"], [5.0, 0.0, 3.0]),
    "pair-classification": Pairs(ANIMALS, [ANIMALS[0], METALS[0], "a fox"], [1.0, 0.0, 1.0]),
    "classification": Split(
        Labelled(ANIMALS + METALS, ["animal"] * 3 + ["metal"] * 3), Labelled(["fox", "iron"], ["animal", "metal"])
    ),
    "clustering": Labelled(ANIMALS + METALS, ["animal"] * 3 + ["metal"] * 3),
    "retrieval": COLLECTION,
    "words": Words(
        *(LabelledWords(name, [["the", "fox", "runs"]] * 4, [["B-NP", "I-NP", "B-VP"]] * 4) for name in ("a", "b")),
        probe="logistic",
        shift=False,
    ),
    "reranking": Candidates([{"query": "fox sleeps", "positive": [ANIMALS[1]], "negative": METALS}]),
}


@pytest.fixture(scope="module")
def encoder(decoder: str) -> TextEncoder:
    return convert(decoder, "llm2vec", max_length=64)


@pytest.fixture(scope="module")
def plain(encoder: TextEncoder, tmp_path_factory: pytest.TempPathFactory) -> SentenceTransformer:
    """The same encoder as any user without this package reads it."""
    folder = tmp_path_factory.mktemp("plain")
    encoder.save(str(folder))
    return SentenceTransformer(str(folder))


@pytest.mark.parametrize("kind", KINDS)
def test_words_alone_solve_what_shares_words(kind: str) -> None:
    scores = score_baseline(kind, DATA[kind])
    assert set(scores) == set(KINDS[kind].metrics)
    assert scores[KINDS[kind].metrics[0]] == pytest.approx(100)


@pytest.mark.parametrize("kind", KINDS)
def test_encoders_are_scored_on_every_kind(kind: str, encoder: TextEncoder, plain: SentenceTransformer) -> None:
    scores = score(TaskEncoder(encoder), kind, DATA[kind])
    assert set(scores) == set(KINDS[kind].metrics) and all(-100 <= one <= 100 for one in scores.values())
    assert score(TaskEncoder(plain), kind, DATA[kind]) == pytest.approx(scores, abs=1e-3)


def test_sts_is_the_rank_correlation_of_cosines(encoder: TextEncoder) -> None:
    pairs = DATA["sts"]
    first, second = (encoder.encode(texts, normalize_embeddings=True) for texts in (pairs.first, pairs.second))
    expected = spearmanr((first * second).sum(1), pairs.targets).statistic
    assert score(TaskEncoder(encoder), "sts", pairs)["spearman"] == pytest.approx(100 * expected)


def test_instructions_are_for_queries_and_not_for_documents(encoder: TextEncoder) -> None:
    told = TaskEncoder(encoder, "Find animals:")
    expected = encoder.encode(ANIMALS, prompt="Find animals:")
    for found in (told.encode(ANIMALS), told.encode_query(ANIMALS)):
        assert np.allclose(found.numpy(), expected, atol=1e-5)
    assert np.allclose(told.encode_document(ANIMALS).numpy(), encoder.encode(ANIMALS), atol=1e-5)
    assert not np.allclose(expected, encoder.encode(ANIMALS), atol=1e-2)


def test_instructions_are_not_for_models_without_a_place_for_them(decoder: str, plain: SentenceTransformer) -> None:
    for model in (plain, convert(decoder, "prompteol")):
        told = TaskEncoder(model, "Find animals:")
        assert told.instruction is None
        assert np.allclose(told.encode_query(ANIMALS).numpy(), model.encode_query(ANIMALS), atol=1e-5)


def test_labels_that_training_has_not_count_as_wrong() -> None:
    data = replace(DATA["classification"], test=Labelled(["fox", "iron", "a tree"], ["animal", "metal", "plant"]))
    found = run_baseline(Task(TaskSpec("a", "classification", {"train": "", "test": ""}), data))
    assert found.unseen == {"plant": 1} and found.main == pytest.approx(100 * 2 / 3)
    assert found.scores["macro_f1"] < 67


def test_words_without_chunks_have_no_f1(encoder: TextEncoder, tmp_path: Path) -> None:
    parts = [LabelledWords(name, [["the", "fox"]], [["DT", "NN"]]) for name in ("train", "test")]
    spec = TaskSpec("tags", "words", {"train": "", "test": ""}, columns={"label": "pos"}, probe="logistic")
    task = Task(spec, Words(*parts, "logistic", False))
    assert run_baseline(task).scores == {"accuracy": 100.0, "spread": 0.0} and task.texts == 2
    assert run_task(encoder, task, tmp_path, "x").main == 100
    assert len(list((tmp_path / "words").iterdir())) == 1  # both parts are the same sentences
    with pytest.raises(ValueError, match="its labels mark no chunks or entities, which f1 counts"):
        run_baseline(replace(task, spec=replace(spec, metric="f1")))
    with pytest.raises(ValueError, match="its labels mark no chunks or entities, which f1 counts"):
        run_task(encoder, replace(task, spec=replace(spec, metric="f1")), tmp_path, "x")


def test_similarities_that_are_all_alike_are_no_score() -> None:
    pairs = Pairs(["a fox"] * 3, ["a fox"] * 3, [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="all of the encoder's similarities are alike"):
        score(TfidfEncoder(["a fox"]), "sts", pairs)
    with pytest.raises(ValueError, match="no words of two letters or more in 1 texts"):
        TfidfEncoder(["?"])


def test_kept_results_are_told_apart_by_their_encoders(encoder: TextEncoder, decoder: str, tmp_path: Path) -> None:
    task = Task(TaskSpec("a", "sts", {"data": "x.csv"}), DATA["sts"])
    first, again = (run_task(encoder, task, tmp_path) for _ in range(2))
    assert first == again and len(list(tmp_path.iterdir())) == 1
    other = convert(decoder, "prompteol", measure=False)
    assert run_task(other, task, tmp_path).scores == pytest.approx(run_task(other, task).scores)


def test_results_are_kept_for_an_encoder_and_a_task(encoder: TextEncoder, tmp_path: Path) -> None:
    task = Task(TaskSpec("a", "sts", {"data": "x.csv"}, instruction="Compare:"), DATA["sts"])
    counted: list[int] = []
    found = run_task(encoder, task, tmp_path, "encoder", advance=counted.append)
    assert found.instruction == "Compare:" and found.texts == 6 == sum(counted) and found.memory > 2**20
    renamed = replace(task, spec=replace(task.spec, name="b", metric="pearson", files={"data": "y.csv"}))
    kept = run_task(None, renamed, tmp_path, "encoder", advance=counted.append)  # type: ignore[arg-type]
    assert kept == replace(found, task="b", metric="pearson") and sum(counted) == 12
    for other in (
        replace(task, spec=replace(task.spec, instruction=None)),
        replace(task, data=DATA["pair-classification"]),
    ):
        run_task(encoder, other, tmp_path, "encoder")
    run_task(encoder, task, tmp_path, "another")
    assert len(list(tmp_path.iterdir())) == 4
    (file,) = [
        one for one in tmp_path.iterdir() if json.loads(one.read_text()) == json.loads(json.dumps(found.__dict__))
    ]
    file.write_text("{")
    with pytest.raises(ValueError, match="cannot be read .* delete it"):
        run_task(encoder, task, tmp_path, "encoder")
    assert run_task(encoder, task, tmp_path, "encoder", again=True).scores == pytest.approx(found.scores)


def test_fingerprints_tell_encoders_apart(encoder: TextEncoder, plain: SentenceTransformer) -> None:
    before = encoder_fingerprint(encoder)
    encoder.encode(["a text"] * 3)
    assert encoder_fingerprint(encoder) == before
    parameter = next(encoder.parameters()).data
    parameter[0, 0] += 1
    changed = encoder_fingerprint(encoder)
    parameter[0, 0] -= 1
    length, encoder.max_seq_length = encoder.max_seq_length, 32
    shorter = encoder_fingerprint(encoder)
    encoder.max_seq_length = length
    assert len({before, changed, shorter}) == 3
    prompted = encoder_fingerprint(plain)
    plain.prompts = {**plain.prompts, "query": "Find:"}
    assert encoder_fingerprint(plain) != prompted


def test_models_without_a_transformer_are_scored_too(tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    words = StaticEmbedding(tokenizers["byte-level+bos"], embedding_dim=8)
    model = SentenceTransformer(modules=[words])
    assert "spearman" in score(TaskEncoder(model, "Compare:"), "sts", DATA["sts"])
    before = encoder_fingerprint(model)
    assert encoder_fingerprint(model) == before
    words.embedding.weight.data[0] += 1
    assert encoder_fingerprint(model) != before
