"""Hard negatives: those that brute force finds, never of the query's class, and a report of what was removed."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.trainers import WordLevelTrainer
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from st_llm2vec import TextEncoder, convert
from st_llm2vec.data import build_training_data, read_mixture
from st_llm2vec.data.mine_source import has_negatives, mine_source, mined_source
from st_llm2vec.data.mining import mine
from st_llm2vec.data.mining_settings import PRESETS, MiningSettings

ANIMALS = ["the cat sat on the mat", "a dog ran in the park", "the little bird sang", "a fish swam in the pond"]
COLOURS = ["the door was red", "her coat is blue", "green is the grass", "a white wall"]
WEATHER = ["rain fell all day", "the sun was hot", "snow lay on the hill", "a storm came at night"]
CLASSES = {"animal": ANIMALS, "colour": COLOURS, "weather": WEATHER}
TEXTS = {text: label for label, texts in CLASSES.items() for text in texts}
PAIRS = [(text, texts[(at + 1) % 4]) for texts in CLASSES.values() for at, text in enumerate(texts)]


@pytest.fixture(scope="module")
def teacher(decoder: str) -> TextEncoder:
    return convert(decoder, "sgpt", measure=False)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> CrossEncoder:
    """A cross-encoder with random weights, whose scores differ from pair to pair."""
    tokenizer = Tokenizer(WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.train_from_iterator(TEXTS, WordLevelTrainer(special_tokens=["[PAD]", "[UNK]"]))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=1,
        initializer_range=0.5,
    )
    folder = tmp_path_factory.mktemp("cross-encoder")
    BertForSequenceClassification(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return CrossEncoder(str(folder), device="cpu")


def ranked(teacher: TextEncoder, query: str, texts: list[str]) -> list[tuple[str, float]]:
    vectors = teacher.encode([query, *texts], normalize_embeddings=True)
    scores = vectors[1:] @ vectors[0]
    return sorted(zip(texts, scores.tolist(), strict=True), key=lambda one: -one[1])


def test_the_nearest_of_other_classes_are_found(teacher: TextEncoder) -> None:
    found = mine(PAIRS, teacher, MiningSettings.of("top-k", negatives=3), corpus=TEXTS, classes=TEXTS)
    assert [(row["query"], row["positive"]) for row in found.rows] == PAIRS
    for row in found.rows:
        others = [text for text, label in TEXTS.items() if label != TEXTS[row["query"]]]
        nearest = ranked(teacher, row["query"], others)[:3]
        assert row["negative"] == [text for text, _ in nearest]
        np.testing.assert_allclose(row["scores"][1:], [score for _, score in nearest], atol=1e-5)
        assert row["scores"][0] == pytest.approx(
            dict(ranked(teacher, row["query"], ANIMALS + COLOURS + WEATHER))[row["positive"]], abs=1e-5
        )
    assert found.report["rows_with_negatives"] == 12 and found.report["corpus"] == 12
    assert found.report["removed"]["same text or class"] > 0


def test_a_margin_to_the_positive_holds_and_is_counted(teacher: TextEncoder) -> None:
    settings = MiningSettings.of("topk-percpos", negatives=2, relative_margin=0.01)
    found = mine(PAIRS, teacher, settings, corpus=TEXTS, classes=TEXTS)
    assert found.rows.num_rows < 12
    assert all(score <= 0.99 * row["scores"][0] + 1e-6 for row in found.rows for score in row["scores"][1:])
    removed = 0
    for query, positive in PAIRS:
        scores = dict(ranked(teacher, query, list(TEXTS)))
        others = [score for text, score in scores.items() if TEXTS[text] != TEXTS[query]]
        removed += sum(score > 0.99 * scores[positive] for score in others)
    assert found.report["removed"]["relative_margin"] == removed


def test_without_classes_a_text_is_no_negative_of_itself_or_its_positives(teacher: TextEncoder) -> None:
    pairs = [("the cat sat", ANIMALS[0]), ("the cat sat", ANIMALS[1]), ("the sun was hot", WEATHER[1] + " ")]
    found = mine(pairs, teacher, MiningSettings.of("top-k", negatives=20), corpus=[*TEXTS, "the cat sat"])
    for row in found.rows:
        assert not {row["query"], row["positive"]} & set(row["negative"])
    assert not {ANIMALS[0], ANIMALS[1]} & set(found.rows[0]["negative"])
    assert found.report["rows_with_fewer"] == 3


@pytest.mark.parametrize("preset", ["top-k", "topk-shifted"])
@pytest.mark.parametrize("chunk", [2, 5, 11])
def test_a_corpus_in_parts_has_the_same_nearest(teacher: TextEncoder, preset: str, chunk: int) -> None:
    changes: dict[str, Any] = {"negatives": 2, "range_min": 1 if preset == "topk-shifted" else None}
    texts = [f"{text}, {word}" for text, word in itertools.product(TEXTS, ("they said", "again"))]
    whole = mine(PAIRS[:3], teacher, MiningSettings.of(preset, **changes), corpus=texts).rows
    parts = mine(PAIRS[:3], teacher, MiningSettings.of(preset, **changes, chunk=chunk), corpus=iter(texts)).rows
    assert whole["negative"][:] == parts["negative"][:]


def test_what_is_drawn_depends_on_the_seed(teacher: TextEncoder) -> None:
    def drawn(seed: int, chunk: int = 500) -> list[list[str]]:
        settings = MiningSettings(negatives=2, range_min=1, range_max=9, sampling="random", seed=seed, chunk=chunk)
        return mine(PAIRS, teacher, settings, corpus=TEXTS).rows["negative"][:]

    assert drawn(1) == drawn(1) != drawn(2)
    assert drawn(1, chunk=4) == drawn(1, chunk=4)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_mines(teacher: TextEncoder, preset: str) -> None:
    settings = MiningSettings.of(preset, negatives=1, range_min=1 if preset == "topk-shifted" else None)
    if preset == "window":
        settings = MiningSettings.of(preset, negatives=1, range_min=2)
    try:
        found = mine(PAIRS, teacher, settings, corpus=TEXTS, classes=TEXTS)
    except ValueError as error:
        assert preset == "topk-abs" and "max_score removed" in str(error)
    else:
        assert len(found.rows)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"negatives": 0}, "negatives=0"),
        ({"sampling": "best"}, "sampling='best' is not one of top, random"),
        ({"range_min": 10, "range_max": 12}, "ranks 10 to 12 hold fewer than 7"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MiningSettings.of("top-k", **changes)
    with pytest.raises(ValueError, match="no way of mining 'topk'"):
        MiningSettings.of("topk")


def write(folder: Path, sources: str) -> list[Any]:
    (folder / "mix.yaml").write_text("sources:\n" + sources)
    return read_mixture(folder / "mix.yaml").sources


def test_sources_of_classes_by_examples_and_by_names(teacher: TextEncoder, tmp_path: Path) -> None:
    lines = [f"{text},{label}" for text, label in TEXTS.items()] + ["both ways,animal", "both ways,colour"]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *lines]))
    by_examples, by_names = write(
        tmp_path,
        "  - {name: one, path: a.csv, task: classification}\n"
        "  - {name: two, path: a.csv, task: classification, classes: {by: names}}\n",
    )
    found = mine_source(by_examples, teacher, MiningSettings.of("top-k", negatives=4))
    assert found.report["rows of several classes"] >= 2
    for row in found.rows:
        assert {TEXTS[text] for text in row["negative"]} == set(CLASSES) - {TEXTS[row["query"]]} or len(
            {TEXTS[text] for text in row["negative"]}
        ) == 1
        assert TEXTS[row["query"]] not in {TEXTS[text] for text in row["negative"]}
        assert TEXTS[row["positive"]] == TEXTS[row["query"]]
    found = mine_source(by_names, teacher, MiningSettings.of("top-k", negatives=2))
    assert {row["positive"] for row in found.rows} == set(CLASSES)
    for row in found.rows:
        rest = set(CLASSES) - {row["positive"]} if row["query"] != "both ways" else {"weather"}
        assert set(row["negative"]) == rest


def test_a_source_mines_in_its_corpus_with_its_instructions(teacher: TextEncoder, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("query,positive\nthe cat sat,the cat sat on the mat\n")
    (tmp_path / "more.txt").write_text("\n".join(TEXTS))
    [source] = write(tmp_path, "  - {path: a.csv, task: retrieval, corpus: more.txt, query_instruction: 'Find it:'}\n")
    assert not has_negatives(source)
    found = mine_source(source, teacher, MiningSettings.of("top-k", negatives=2)).rows[0]
    assert (
        found["negative"] == [text for text, _ in ranked(teacher, "the cat sat", list(TEXTS)) if text != ANIMALS[0]][:2]
    )
    told = mine_source(source, teacher, MiningSettings.of("top-k", negatives=2), instructed=True).rows[0]
    query = teacher.encode(["the cat sat"], prompt="Find it:", normalize_embeddings=True)[0]
    positive = teacher.encode([ANIMALS[0]], normalize_embeddings=True)[0]
    assert told["scores"][0] == pytest.approx(float(query @ positive), abs=1e-5)
    assert told["scores"][0] != pytest.approx(found["scores"][0], abs=1e-4)


def test_classes_with_a_corpus_have_no_negatives_of_their_own_class(teacher: TextEncoder, tmp_path: Path) -> None:
    rows = ["a cat,animal", "a dog,animal", "a hen,animal", "red,colour", "blue,colour"]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    (tmp_path / "more.jsonl").write_text('{"text": "a ship at sea"}\n{"text": "salt"}\n')
    (source,) = write(
        tmp_path,
        "  - {name: kinds, task: classification, path: texts.csv, columns: {text: text, label: label}, corpus: more.jsonl,\n"
        "     query_instruction: 'Name it:'}\n",
    )
    mined = mine_source(source, teacher, MiningSettings(negatives=2, range_max=10))
    animals = {row.split(",")[0] for row in rows[:3]}
    for row in mined.rows:
        assert row["negative"] and not set(row["negative"]) & (animals if row["query"] in animals else {"red", "blue"})


def test_a_source_whose_rows_have_their_instruction_keeps_it(teacher: TextEncoder, tmp_path: Path) -> None:
    lines = [
        f'{{"query": "{one}", "pos": ["about {one}"], "neg": ["of no {one}"], "prompt": "Find it:"}}' for one in "abcd"
    ]
    (tmp_path / "fe.jsonl").write_text("\n".join(lines) + "\n")
    (source,) = write(tmp_path, "  - {name: fe, task: retrieval, path: fe.jsonl}\n")
    found, told = (
        mine_source(source, teacher, MiningSettings.of("top-k", negatives=1), instructed=one) for one in (False, True)
    )
    assert found.rows[0]["scores"][0] != pytest.approx(told.rows[0]["scores"][0], abs=1e-4)
    assert mined_source(source, tmp_path / "fe.jsonl", 1, "")["query_instruction"] == "Find it:"


def test_a_corpus_with_one_text_is_refused_with_file_and_line(teacher: TextEncoder, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("query,positive\nthe cat sat,the cat sat on the mat\n")
    (tmp_path / "more.txt").write_text("the cat sat on the mat\n")
    [source] = write(tmp_path, "  - path: a.csv\n    task: retrieval\n    corpus: more.txt\n")
    with pytest.raises(ValueError, match=r"mix.yaml, line 4: The corpus of a has one text, 'the cat sat on the mat'"):
        mine_source(source, teacher, MiningSettings())


def test_sources_with_negatives_are_told_from_those_without(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("query,positive,negative\na,b,c\n")
    (tmp_path / "b.csv").write_text("text,label\na,b\nc,d\n")
    (tmp_path / "c.tsv").write_text("premise\thypothesis\tlabel\na\tb\t0\na\tc\t2\n")
    sources = write(
        tmp_path,
        "  - {path: a.csv}\n  - {path: b.csv, task: clustering}\n  - {path: c.tsv, task: nli}\n  - {path: b.csv, name: t, task: texts}\n",
    )
    assert [has_negatives(one) for one in sources] == [True, False, True, True]
    assert build_training_data([sources[0]]).dataset.column_names == ["query", "positive", "negative_1"]


def test_a_cross_encoder_judges_what_the_teacher_finds(teacher: TextEncoder, judge: CrossEncoder) -> None:
    settings = MiningSettings.of("topk-percpos", negatives=2, relative_margin=0.0)
    plain = mine(PAIRS, teacher, settings, corpus=TEXTS, classes=TEXTS)
    found = mine(PAIRS, teacher, settings, corpus=TEXTS, classes=TEXTS, cross_encoder=judge)
    for row in found.rows:
        texts = [row["positive"], *row["negative"]]
        judged = judge.predict([(row["query"], text) for text in texts], show_progress_bar=False)
        np.testing.assert_allclose(row["scores"], judged, atol=1e-5)
        assert all(score <= judged[0] + 1e-6 for score in judged[1:])
    assert found.rows["negative"][:] != plain.rows["negative"][:]
