"""What is read of tasks' files, and what is said of those that cannot be."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from st_llm2vec.evaluation.task_data import Candidates, Collection, Labelled, Pairs, Words, read_task
from st_llm2vec.evaluation.task_plan import TaskSpec


def spec(kind: str, folder: Path, files: dict[str, str], **options: Any) -> TaskSpec:
    """A task whose files, by role and suffix (`data.csv`), have these contents."""
    paths = {}
    for name, text in files.items():
        paths[name.split(".")[0]] = str(folder / name)
        (folder / name).write_text(text)
    return TaskSpec("mine", kind, paths, **options)


def test_pairs_with_and_without_a_line_of_names(tmp_path: Path) -> None:
    expected = Pairs(["1", "a cat"], ["01", "a dog"], [5.0, 2.5])
    named = spec("sts", tmp_path, {"data.csv": "sentence1,sentence2,score\n1,01,5\na cat,a dog,2.5\n"})
    assert read_task(named) == expected
    bare = {"data.csv": "1,01,5\na cat,a dog,2.5\n"}
    assert read_task(spec("sts", tmp_path, bare, header=["sentence1", "sentence2", "score"])) == expected


def test_columns_by_other_names_and_a_limit(tmp_path: Path) -> None:
    rows = "".join(f"{json.dumps({'t': f'text {n}', 'y': n % 4})}\n" for n in range(40))
    task = spec("clustering", tmp_path, {"data.jsonl": rows}, columns={"text": "t", "label": "y"}, limit=12)
    found = read_task(task)
    assert isinstance(found, Labelled) and len(found.texts) == 12 and len(set(found.labels)) > 1
    assert found == read_task(task)
    assert all(int(text.split()[1]) % 4 == int(label) for text, label in zip(found.texts, found.labels, strict=True))


def test_collections_of_tables(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = {
        "corpus.jsonl": '{"_id": "d1", "title": "Ice", "text": "is cold"}\n{"_id": "d2", "title": "", "text": "Steam"}\n',
        "queries.tsv": "id\ttext\n01\tcold things\n02\thot things\n03\tnothing\n",
        "qrels.tsv": "query-id\tcorpus-id\tscore\n01\td1\t1\n02\td2\t1\n02\td9\t1\n",
    }
    with caplog.at_level(logging.WARNING):
        found = read_task(spec("retrieval", tmp_path, files))
    assert found == Collection(
        {"01": "cold things", "02": "hot things"}, {"d1": "Ice is cold", "d2": "Steam"}, {"01": ["d1"], "02": ["d2"]}
    )
    assert "1 judgements are of documents that the corpus has not" in caplog.text
    assert list(read_task(spec("retrieval", tmp_path, files, limit=1)).queries) == ["01"]  # type: ignore[union-attr]


def test_options_of_tables(tmp_path: Path) -> None:
    files = {
        "corpus.tsv": 'id\ttext\nd1\t"Ice, said one\nd2\t"Steam\n',
        "queries.tsv": "id\ttext\n1\tcold things\n",
        "qrels.tsv": "1\td2\t1\n",
    }
    found = read_task(spec("retrieval", tmp_path, files, options={"quoting": 3}))
    assert isinstance(found, Collection) and found.corpus == {"d1": '"Ice, said one', "d2": '"Steam'}
    pairs = {"data.tsv": 'sentence1\tsentence2\tscore\n"a cat\ta dog\t1\n"rain\tsun\t2\n'}
    found = read_task(spec("sts", tmp_path, pairs, options={"quoting": 3}))
    assert isinstance(found, Pairs) and found.first == ['"a cat', '"rain']


def test_a_sample_of_documents_has_all_that_are_relevant(tmp_path: Path) -> None:
    documents = [f"d{number}" for number in range(20)]
    files = {
        "corpus.jsonl": "".join(f'{{"_id": "{name}", "text": "text {name}"}}\n' for name in documents),
        "queries.tsv": "id\ttext\n1\tsome\n2\tothers\n",
        "qrels.tsv": "query-id\tcorpus-id\tscore\n1\td7\t1\n1\td19\t1\n2\td3\t1\n",
    }
    found = read_task(spec("retrieval", tmp_path, files, limit=1, documents=5))
    assert isinstance(found, Collection) and set(found.relevant["1"]) == {"d7", "d19"}
    assert len(found.corpus) == 5 and {"d7", "d19"} < set(found.corpus)
    assert found == read_task(spec("retrieval", tmp_path, files, limit=1, documents=5))
    few = read_task(spec("retrieval", tmp_path, files, limit=1, documents=1))
    assert isinstance(few, Collection) and set(few.corpus) == {"d7", "d19"}


def test_collections_of_smart_whose_queries_are_counted(tmp_path: Path) -> None:
    files = {"corpus.all": ".I 7\n.W\nice\n.I 8\n.W\n\n", "queries.qry": ".I 004\n.W\ncold\n", "qrels.rel": "1 7 1\n"}
    found = read_task(spec("retrieval", tmp_path, files, format="smart", renumber=True))
    assert found == Collection({"1": "cold"}, {"7": "ice"}, {"1": ["7"]})
    with pytest.raises(ValueError, match="`renumber: true` numbers the queries from 1"):
        read_task(spec("retrieval", tmp_path, files, format="smart"))


def test_candidates(tmp_path: Path) -> None:
    rows = '{"query": "cold", "positive": ["ice"], "negative": ["steam", "fire"]}\n'
    found = read_task(spec("reranking", tmp_path, {"data.jsonl": rows}))
    assert found == Candidates([{"query": "cold", "positive": ["ice"], "negative": ["steam", "fire"]}])


@pytest.mark.parametrize(
    ("kind", "text", "sentence"),
    [
        ("sts", "sentence1,score\na,1\n", "The task 'mine': .* has no column 'sentence2', only sentence1, score"),
        ("sts", "sentence1,sentence2,score\na,b,high\n", "row 1 has 'high' where a number is expected"),
        ("sts", "sentence1,sentence2,score\na,b,1\nc,d,1\n", "all 2 scores are alike"),
        ("sts", "sentence1,sentence2,score\n", "it has no rows"),
        ("sts", "", "is empty|holds no"),
        ("pair-classification", "sentence1,sentence2,label\na,b,1\nc,d,2\n", "must be 0 and 1, .*; found 1, 2"),
        ("clustering", "text,label\na,x\nb,\n", "row 2 of .* has no label"),
        ("clustering", "text,label\na,x\nb,x\n", "has one label only, 'x'"),
    ],
)
def test_bad_tables_are_a_sentence(kind: str, text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_task(spec(kind, tmp_path, {"data.csv": text}))


def test_bad_rows_are_a_sentence(tmp_path: Path) -> None:
    bare = '{"query": "cold", "positive": ["ice"], "negative": []}\n'
    with pytest.raises(ValueError, match="row 1 has no positive or no negative"):
        read_task(spec("reranking", tmp_path, {"data.jsonl": bare}))
    with pytest.raises(ValueError, match="row 1 holds 'None' where a text is expected"):
        read_task(
            spec("clustering", tmp_path, {"data.jsonl": '{"text": null, "label": 1}\n{"text": "ice", "label": 2}\n'})
        )
    twice = {
        "corpus.jsonl": 2 * '{"id": "d1", "text": "ice"}\n',
        "queries.jsonl": '{"id": "1", "text": "x"}\n',
        "qrels.txt": "1 d1 1\n",
    }
    with pytest.raises(ValueError, match="has 1 numbers twice in its column 'id'"):
        read_task(spec("retrieval", tmp_path, twice))


def test_another_encoding_and_a_missing_file_are_a_sentence(tmp_path: Path) -> None:
    task = spec("clustering", tmp_path, {"data.csv": ""})
    (tmp_path / "data.csv").write_bytes("text,label\ncafé,x\n".encode("latin-1"))
    with pytest.raises(ValueError, match="The task 'mine': .*data.csv.*utf-8"):
        read_task(task)
    with pytest.raises(ValueError, match="There is no file"):
        read_task(TaskSpec("mine", "clustering", {"data": str(tmp_path / "missing.csv")}))


def test_words_of_a_plan_are_read_as_those_of_a_file(tmp_path: Path) -> None:
    files = {"train.txt": "The DT\ncat NN\n\na DT\ndog NN\n", "test.txt": "a DT\n"}
    task = spec("words", tmp_path, files, columns={"label": "pos"}, limit=1, shift=True)
    found = read_task(task)
    assert isinstance(found, Words) and found.train.sentences == [["The", "cat"]] and found.test.labels == [["DT"]]
    assert (found.probe, found.shift) == ("linear", True)
    (tmp_path / "test.txt").write_text("a\n")
    with pytest.raises(ValueError, match="The task 'mine': Line 1 of .*test.txt has no word or no 'pos'"):
        read_task(task)
    (tmp_path / "test.txt").write_text("\n\n")
    with pytest.raises(ValueError, match="The task 'mine': .*test.txt holds no sentences"):
        read_task(task)


def test_a_dataset_of_the_hub_while_offline_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ValueError, match="The task 'mine': org/name is neither a file here nor a dataset that could be"
    ):
        read_task(TaskSpec("mine", "clustering", {"data": "org/name"}))
