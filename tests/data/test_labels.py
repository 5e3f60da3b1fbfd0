"""Class labels become positives of the same class and negatives of others."""

from __future__ import annotations

from typing import Any

import pytest

from st_llm2vec.data import pairs_from_labels

CLASSES = {
    "animal": ["a cat", "a dog", "a hen"],
    "colour": ["red", "blue"],
    "sea": ["a wave", "salt", "a ship", "tide"],
}
TEXTS = [text for texts in CLASSES.values() for text in texts]
LABELS = [label for label, texts in CLASSES.items() for _ in texts]


def negatives_of(row: dict[str, str]) -> list[str]:
    return [text for name, text in row.items() if name.startswith("negative_")]


@pytest.mark.parametrize("seed", range(20))
def test_examples_are_of_the_right_classes(seed: int) -> None:
    rows = pairs_from_labels(TEXTS, LABELS, negatives=4, seed=seed)
    assert rows.column_names == ["query", "positive", "negative_1", "negative_2", "negative_3", "negative_4"]
    assert rows["query"][:] == TEXTS
    for row, label in zip(rows, LABELS, strict=True):
        assert row["positive"] in CLASSES[label] and row["positive"] != row["query"]
        assert len(set(negatives_of(row))) == 4
        assert not set(negatives_of(row)) & set(CLASSES[label])


def test_every_text_can_be_drawn() -> None:
    drawn = [row for seed in range(60) for row in pairs_from_labels(TEXTS, LABELS, negatives=1, seed=seed)]
    first = [row for row in drawn if row["query"] == "a cat"]
    assert {row["positive"] for row in first} == {"a dog", "a hen"}
    assert {row["negative_1"] for row in first} == {*CLASSES["colour"], *CLASSES["sea"]}


def test_the_seed_decides() -> None:
    first, second, other = (pairs_from_labels(TEXTS, LABELS, seed=seed)[:] for seed in (1, 1, 2))
    assert first == second != other


def test_few_negatives_are_repeated_by_turns() -> None:
    row = pairs_from_labels(["a cat", "a dog", "red", "blue"], [0, 0, 1, 1], negatives=5)[0]
    found = negatives_of(row)
    assert set(found) == {"red", "blue"} and found == [found[0], found[1]] * 2 + [found[0]]


def test_texts_that_occur_twice() -> None:
    texts = ["a cat", " a cat", "a dog", "red", "a dog", "blue"]
    for seed in range(10):
        rows = pairs_from_labels(texts, [0, 0, 0, 1, 1, 1], negatives=2, seed=seed)
        assert rows["query"][:] == ["a cat", " a cat", "red", "blue"], "what is of both classes is told from nothing"
        assert [row["positive"] for row in rows][:2] == ["a dog", "a dog"]
        assert all(set(negatives_of(row)) == {"red", "blue"} for row in rows.select(range(2)))
        assert all(set(negatives_of(row)) <= {"a cat", " a cat"} for row in rows.select(range(2, 4)))


def test_names_of_classes() -> None:
    names = {"animal": "an animal", "colour": "a colour", "sea": "the sea"}
    rows = pairs_from_labels(TEXTS, LABELS, negatives=2, label_texts=names)
    for row, label in zip(rows, LABELS, strict=True):
        assert row["positive"] == names[label]
        assert set(negatives_of(row)) == set(names.values()) - {names[label]}
    single = pairs_from_labels(["bad", "good"], [0, 1], negatives=1, label_texts={0: "negative", 1: "positive"})
    assert single[1] == {"query": "good", "positive": "positive", "negative_1": "negative"}


@pytest.mark.parametrize(
    ("texts", "labels", "options", "message"),
    [
        (["a", "b"], [0], {}, "2 texts and 1 labels"),
        (["a", "b"], [0, 0], {}, r"1 class \(0\); two are needed"),
        ([], [], {}, "two are needed"),
        (["a", "b", "c"], [0, 0, "odd"], {}, "The class 'odd' has one text only, 'c'"),
        (["a", " a ", "c", "d"], [0, 0, 1, 1], {}, "The class 0 has one text only"),
        (["a", "b", "a", "b"], [0, 0, 1, 1], {}, "Every text of another class than 0 is of that class too"),
        (["a", None, "c", "d"], [0, 0, 1, 1], {}, "Row 1 of the texts .* has nothing"),
        (["a", "b", "  ", "d"], [0, 0, 1, 1], {}, "Row 2 of the texts .* has a blank text"),
        (["a", "b"], [0, 1], {"negatives": 0}, "negatives=0"),
        (["a", "b"], [0, 1], {"label_texts": {0: "x"}}, "no text for the class 1; it has 0"),
        (["a", "b"], [0, 1], {"label_texts": {0: "x", 1: "x "}}, "calls two classes the same"),
        (["a", "b"], [0, 1], {"label_texts": {0: "x", 1: ""}}, "blank text in '1'"),
        (["y", "b"], [0, 1], {"label_texts": {0: "x", 1: "y"}}, "Row 0 of the texts .* equals its query: 'y'"),
    ],
)
def test_bad_labels(texts: Any, labels: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pairs_from_labels(texts, labels, **options)


def test_balanced_classes_count_alike_however_rare() -> None:
    texts = [f"common {number}" for number in range(90)] + ["rare 1", "rare 2", "odd 1", "odd 2", "odd 3"]
    labels = ["common"] * 90 + ["rare"] * 2 + ["odd"] * 3
    rows = pairs_from_labels(texts, labels, negatives=2, balanced=True)
    counts = {label: sum(query.startswith(label) for query in rows["query"]) for label in ("common", "rare", "odd")}
    assert counts == {"common": 32, "rare": 32, "odd": 32}
    for row in rows:
        own = row["query"].split()[0]
        assert row["positive"].split()[0] == own and row["positive"] != row["query"]
        assert {one.split()[0] for one in negatives_of(row)} == {"common", "rare", "odd"} - {own}
    assert len({row["query"] for row in rows}) == 32 + 2 + 3
    assert rows[:] == pairs_from_labels(texts, labels, negatives=2, balanced=True)[:]
    few = pairs_from_labels(["a", "b", "c", "d"], [0, 0, 1, 1], negatives=3, balanced=True)
    assert set(negatives_of(few[0])) == {"c", "d"}


@pytest.mark.parametrize("names", [None, {"a": "letters", "b": "numbers", "c": "colours"}])
def test_a_text_of_two_classes_has_negatives_of_neither(names: dict[str, str] | None) -> None:
    texts = ["both", "one", "both", "two", "red", "blue"]
    labels = ["a", "a", "b", "b", "c", "c"]
    for seed in range(10):
        rows = pairs_from_labels(texts, labels, negatives=1, seed=seed, label_texts=names)
        found = {row["negative_1"] for row in rows if row["query"] == "both"}
        assert found <= ({"red", "blue"} if names is None else {"colours"})


def test_a_text_of_every_class_has_no_name_as_a_negative() -> None:
    with pytest.raises(ValueError, match="no text has a negative"):
        pairs_from_labels(["both", "both"], ["a", "b"], label_texts={"a": "letters", "b": "numbers"})
