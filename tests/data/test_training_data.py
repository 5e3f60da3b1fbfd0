"""Sources become one dataset a batch with prompts, or rows that are blended with their instructions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import Dataset, DatasetDict

from st_llm2vec.data import TrainingSource, build_training_data, check_pairs

FIND, SAME = "Find the passage:", "Find the same:"
COUNT = 40


def facts(**columns: Any) -> Dataset:
    return Dataset.from_dict(
        {
            "query": [f"fact {number}" for number in range(COUNT)],
            "positive": [f"true {number}" for number in range(COUNT)],
            "negative": [[f"false {number}", f"wrong {number}"] for number in range(COUNT)],
            **columns,
        }
    )


def retrieval(**changes: Any) -> TrainingSource:
    return TrainingSource(**{"path": facts(), "query_instruction": FIND, "name": "nq", **changes})


def similarity(**changes: Any) -> TrainingSource:
    given = {"path": facts(), "query_instruction": SAME, "symmetric": True, "in_batch_negatives": False, "name": "sts"}
    return TrainingSource(**{**given, **changes})


def test_one_source_is_a_plain_dataset() -> None:
    data = build_training_data([retrieval(document_instruction="Read it:")])
    assert isinstance(data.dataset, Dataset)
    assert data.dataset[3] == {"query": "fact 3", "positive": "true 3", "negative_1": "false 3"}
    assert data.prompts == {"query": FIND, "positive": "Read it:", "negative_1": "Read it:"}
    assert data.in_batch_negatives == {"nq": True}
    assert build_training_data([retrieval(query_instruction=None)]).prompts == {}


def test_several_sources_stay_apart() -> None:
    plain = TrainingSource(facts(), name="plain", negatives=0)
    data = build_training_data([retrieval(negatives=2), similarity(), plain])
    assert isinstance(data.dataset, DatasetDict) and list(data.dataset) == ["nq", "sts", "plain"]
    assert data.dataset["nq"].column_names == ["query", "positive", "negative_1", "negative_2"]
    assert data.dataset["plain"].column_names == ["query", "positive"]
    assert data.prompts == {
        "nq": {"query": FIND},
        "sts": {"query": SAME, "positive": SAME, "negative_1": SAME},
        "plain": {},
    }
    assert data.in_batch_negatives == {"nq": True, "sts": False, "plain": True}
    check_pairs(data.dataset)


def test_blended_rows_carry_instruction_and_label() -> None:
    data = build_training_data([retrieval(), similarity(limit=10)], blended=True)
    assert isinstance(data.dataset, Dataset) and data.prompts == {}
    assert data.dataset.column_names == ["query", "positive", "negative_1", "label"]
    rows = list(data.dataset)
    assert len(rows) == COUNT + 10
    for row in rows:
        other = SAME if row["label"] == 0 else None
        assert row["query"]["instruction"] == (SAME if row["label"] == 0 else FIND)
        assert [row[name]["instruction"] for name in ("positive", "negative_1")] == [other, other]
        number = row["query"]["text"].removeprefix("fact ")
        assert [row["positive"]["text"], row["negative_1"]["text"]] == [f"true {number}", f"false {number}"]
    labels = data.dataset["label"][:]
    assert sum(labels) == COUNT and labels != sorted(labels) and labels != sorted(labels, reverse=True)
    assert list(rows[0]["query"]) == ["text", "instruction"]
    check_pairs(data.dataset)


def test_the_seed_decides_the_order_and_the_sample() -> None:
    sources = [retrieval(limit=12), similarity()]
    first, second, other = (build_training_data(sources, blended=True, seed=seed).dataset[:] for seed in (1, 1, 2))
    assert first == second != other
    sample = build_training_data([retrieval(limit=12)], seed=1).dataset["query"][:]
    assert len(set(sample)) == 12 and sample != facts()["query"][:12]
    assert len(build_training_data([retrieval(limit=1000)]).dataset) == COUNT


@pytest.mark.parametrize(
    ("negatives", "expected"),
    [(1, ["a"]), (2, ["a", "b"]), (5, ["a", "b", "c", "a", "b"])],
)
@pytest.mark.parametrize("wide", [False, True])
def test_negatives_are_cut_or_repeated_by_turns(negatives: int, expected: list[str], wide: bool) -> None:
    if wide:
        rows: dict[str, Any] = {"negative_1": ["a", "x"], "negative_2": ["b", None], "negative_3": ["c", ""]}
    else:
        rows = {"negative": [["a", "b", "c"], ["x"]]}
    dataset = Dataset.from_dict({"query": ["q", "r"], "positive": ["p", "s"], **rows})
    found = build_training_data([TrainingSource(dataset, negatives=negatives)]).dataset
    names = [f"negative_{number}" for number in range(1, negatives + 1)]
    assert [found[0][name] for name in names] == expected
    assert [found[1][name] for name in names] == ["x"] * negatives


def test_columns_of_other_names_and_lists_of_positives() -> None:
    dataset = Dataset.from_dict(
        {"id": [1, 2], "q": ["q", "r"], "pos": [["p", "s"], ["t"]], "n1": ["a", "b"], "n2": ["c", "d"]}
    )
    source = TrainingSource(dataset, columns={"query": "q", "positive": "pos", "negative": ["n2", "n1"]}, negatives=2)
    rows = build_training_data([source]).dataset
    assert [tuple(row.values()) for row in rows] == [
        ("q", "p", "c", "a"),
        ("q", "s", "c", "a"),
        ("r", "t", "d", "b"),
    ]


def test_sources_of_yaml_and_files(tmp_path: Path) -> None:
    facts().to_json(tmp_path / "nq.dev.jsonl")
    (tmp_path / "snli.csv").write_text("a cat,an animal,a stone\n")
    plan = yaml.safe_load(
        f"""
        - path: {tmp_path}/nq.dev.jsonl
          query_instruction: "{FIND}"
          negatives: 2
        - path: {tmp_path}/snli.csv
          column_names: [premise, entailed, contradicted]
          columns: {{query: premise, positive: entailed, negative: contradicted}}
        """
    )
    data = build_training_data(plan)
    assert list(data.dataset) == ["nq", "snli"]
    assert data.dataset["nq"][0]["negative_2"] == "wrong 0"
    assert data.dataset["snli"][0] == {"query": "a cat", "positive": "an animal", "negative_1": "a stone"}
    assert data.prompts == {"nq": {"query": FIND}, "snli": {}}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("data/nq.train.jsonl", "nq"),
        ("org/quora-duplicates:pair", "quora-duplicates_pair"),
        ("data/*.jsonl", "dataset"),
        (["a/first.csv", "a/second.csv"], "first"),
    ],
)
def test_names_of_sources(path: Any, name: str) -> None:
    assert TrainingSource(path).label == name


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"query": ["a", None, "c"]}, "Row 1 of nq .* has nothing in 'query'"),
        ({"query": ["a", "b", " "]}, "Row 2 of nq .* has a blank text in 'query'"),
        ({"query": [1, 2, 3]}, "Row 0 of nq .* has int '1' in 'query'"),
        ({"positive": ["a", None, "c"]}, "Row 1 of nq .* has no text in 'positive'"),
        ({"negative": [["a"], [], ["c"]]}, "Row 1 of nq .* has no text in negative"),
        ({"negative": ["a", "b", "true 2 "]}, "Row 2 of nq .* equals its positive: 'true 2 '"),
        ({"negative": ["a", "fact 1", "c"]}, "Row 1 of nq .* equals its query"),
    ],
)
@pytest.mark.parametrize("blended", [False, True])
def test_bad_rows_are_named(columns: dict[str, Any], message: str, blended: bool) -> None:
    dataset = Dataset.from_dict({**facts().select(range(3)).to_dict(), **columns})
    with pytest.raises(ValueError, match=message):
        build_training_data([retrieval(path=dataset)], blended=blended)


def test_a_bad_row_of_a_sample_is_named_by_its_number_in_the_source() -> None:
    dataset = facts(query=[f"fact {number}" if number != 33 else None for number in range(COUNT)])
    with pytest.raises(ValueError, match="Row 33 of nq"):
        build_training_data([retrieval(path=dataset, limit=COUNT - 1)], seed=1)


@pytest.mark.parametrize(
    ("sources", "blended", "message"),
    [
        ([], False, "There is no training source"),
        ([{"query_instruction": FIND}], False, "needs a path"),
        ([{"path": "a.jsonl", "instruction": FIND}], False, "no field 'instruction'. Fields: path, columns"),
        ([retrieval(), retrieval()], False, "Two sources are called 'nq'"),
        (
            [retrieval(path=facts().rename_column("query", "question"))],
            False,
            "nq has the columns 'question', .*query and pos",
        ),
        ([retrieval(columns={"query": "query"})], False, "name those of query and positive"),
        ([retrieval(columns={"query": "query", "positive": "p"})], False, "There is no column 'p' in nq; it has"),
        ([similarity(negatives=0)], False, "sts has in-batch negatives off and no hard negatives"),
        ([retrieval(), similarity(negatives=2)], True, "as many hard negatives each; .*'nq': 1, 'sts': 2"),
    ],
)
def test_bad_sources(sources: Any, blended: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_training_data(sources, blended=blended)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"document_instruction": "Read it:"}, "is symmetric.*'Read it:' was given; keep one"),
        ({"negatives": -1}, "negatives=-1 of the source sts"),
        ({"limit": 0}, "limit=0 of the source sts"),
        ({"columns": 5}, "columns=5 of the source sts must be a mapping"),
        ({"in_batch_negatives": "no"}, "in_batch_negatives='no' of the source sts must be true or false"),
    ],
)
def test_bad_fields(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        similarity(**changes)
