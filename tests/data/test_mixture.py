"""Mixtures: sources declared in YAML become what the trainer takes, and what is wrong is said with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from st_llm2vec.data import build_training_data, named_mixtures, read_mixture
from st_llm2vec.data.training_data import build_texts

MIXTURE = """\
description: Three kinds of data.
sources:
  - name: sts
    task: sts
    path: sts.csv
    column_names: [a, b, gold]
    columns: {sentence1: a, sentence2: b, score: gold}
    query_instruction: "Find the same:"
    in_batch_negatives: true
  - name: snli
    task: nli
    path: snli.tsv
    query_instruction: "Find what follows:"
  - name: intents
    task: classification
    path: intents.csv
    columns: {text: text, label: category}
    query_instruction: "Name the intent:"
    negatives: 2
  - name: cranfield
    task: retrieval
    collection: {corpus: cran.all, queries: cran.qry, qrels: qrels, format: smart, renumber: true}
    query_instruction: "Find the abstract:"
    weight: 2
"""
FILES = {
    "sts.csv": "A cat.,A tomcat.,4.5\nRain.,Sun.,0.5\nA sea.,The sea.,5\n",
    "snli.tsv": "premise\thypothesis\tlabel\nA man sings.\tA person sings.\t0\nA man sings.\tNobody sings.\t2\n"
    "A dog.\tA pet.\t1\n",
    "intents.csv": "text,category\nwhere is it,card_arrival\nnot here yet,card_arrival\nno cash,cash\ntake cash,cash\n",
    "cran.all": ".I 1\n.T\nwings\n.W\nwings in air\n.I 2\n.T\nheat\n.W\nheat in plates\n",
    "cran.qry": ".I 004\n.W\nwhat is a wing\n.I 009\n.W\nwhat is heat\n",
    "qrels": "1 0 1 1\n2 0 2 1\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {**FILES, "mix.yaml": MIXTURE}.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_mixture_becomes_datasets_prompts_and_switches(folder: Path) -> None:
    found = build_training_data(read_mixture(folder / "mix.yaml").sources)
    assert isinstance(found.dataset, DatasetDict)
    assert found.dataset["sts"][:] == {
        "query": ["A cat.", "A tomcat.", "A sea.", "The sea."],
        "positive": ["A tomcat.", "A cat.", "The sea.", "A sea."],
    }
    assert found.dataset["snli"][:] == {
        "query": ["A man sings."],
        "positive": ["A person sings."],
        "negative_1": ["Nobody sings."],
    }
    assert found.dataset["intents"].column_names == ["query", "positive", "negative_1", "negative_2"]
    assert found.dataset["intents"][0]["positive"] == "not here yet"
    pairs = sorted(zip(*(found.dataset["cranfield"][name] for name in ("query", "positive")), strict=True))
    assert (
        pairs
        == [("what is a wing", "wings in air"), ("what is a wing", "wings in air")]
        + [("what is heat", "heat in plates")] * 2
    )
    assert found.in_batch_negatives == {"sts": True, "snli": True, "intents": False, "cranfield": True}
    same, intent = "Find the same:", "Name the intent:"
    assert found.prompts == {
        "sts": {"query": same, "positive": same},
        "snli": {"query": "Find what follows:"},
        "intents": dict.fromkeys(["query", "positive", "negative_1", "negative_2"], intent),
        "cranfield": {"query": "Find the abstract:"},
    }


def test_sources_can_be_chosen_changed_and_written_for_other_models(folder: Path) -> None:
    (folder / "mix.yaml").write_text('instruction_template: "Instruct: {instruction}\\nQuery: "\n' + MIXTURE)
    found = read_mixture(folder / "mix.yaml", only=["intents", "snli"], changes={"limit": 1})
    assert [one.label for one in found.sources] == ["snli", "intents"]
    data = build_training_data(found.sources)
    assert {name: len(one) for name, one in data.dataset.items()} == {"snli": 1, "intents": 1}
    assert data.prompts["snli"] == {"query": "Instruct: Find what follows:\nQuery: "}


def test_classes_by_name_part_and_size(folder: Path) -> None:
    (folder / "trec.csv").write_text("text,label\nwho,HUM:ind\nwhom,HUM:gr\nwhere,LOC:city\nhow,DESC:manner\n")
    (folder / "mix.yaml").write_text(
        "sources:\n  - path: trec.csv\n    task: classification\n    query_instruction: Tell it.\n"
        "    classes: {by: names, pattern: '^[A-Z]+', smallest: 1, names: {HUM: a person}}\n    negatives: 2\n"
    )
    data = build_training_data(read_mixture(folder / "mix.yaml").sources)
    assert isinstance(data.dataset, Dataset)
    assert data.dataset["positive"][:] == ["a person", "a person", "LOC", "DESC"]
    assert data.prompts == {"query": "Tell it."}


@pytest.mark.parametrize(
    ("weight", "counts"), [(0.5, [0, 1, 0, 1]), (1, [1] * 4), (2, [2] * 4), (1.5, [1, 2, 1, 2]), (0.01, [0, 0, 0, 1])]
)
def test_a_weight_draws_rows_less_or_more_often(weight: float, counts: list[int]) -> None:
    rows = Dataset.from_dict({"query": list("abcd"), "positive": list("efgh")})
    drawn = build_training_data([{"path": rows, "weight": weight}]).dataset["query"][:]
    assert sorted(drawn.count(letter) for letter in "abcd") == sorted(counts)
    assert build_training_data([{"path": rows, "weight": weight}]).dataset["query"][:] == drawn


def test_texts_are_read_one_source_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "wiki1m_for_simcse.txt").write_text("One.\nTwo.\n")
    (tmp_path / "more.jsonl").write_text(json.dumps({"body": "Three."}) + "\n")
    (tmp_path / "mix.yaml").write_text(
        "sources:\n  - {path: wiki1m_for_simcse.txt, task: texts}\n"
        "  - {path: more.jsonl, task: texts, columns: {text: body}}\n"
    )
    sources = read_mixture(tmp_path / "mix.yaml").sources
    assert build_texts(sources)[:] == {"text": ["One.", "Two.", "Three."]}
    with pytest.raises(ValueError, match=r"mix.yaml, line 2: wiki1m_for_simcse holds texts without pairs"):
        build_training_data(sources)


def test_texts_of_files_of_other_string_types_are_one_column(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    (tmp_path / "one.txt").write_text("One.\n")
    table = pyarrow.table({"text": pyarrow.array(["Two."], pyarrow.large_string())})
    parquet.write_table(table, tmp_path / "two.parquet")
    (tmp_path / "mix.yaml").write_text(
        "sources:\n  - {path: one.txt, task: texts}\n  - {path: two.parquet, task: texts}\n"
    )
    assert build_texts(read_mixture(tmp_path / "mix.yaml").sources)[:] == {"text": ["One.", "Two."]}


def test_names_on_the_hub_with_a_dot_are_no_files_beside_the_mixture(tmp_path: Path) -> None:
    names = ["wikimedia/wikipedia:20231101.en", "org/data-v1.0", "hf://datasets/org/data/train.csv"]
    for name in names:
        (tmp_path / "mix.yaml").write_text(f"sources:\n  - {{path: '{name}', task: texts}}\n")
        assert read_mixture(tmp_path / "mix.yaml").sources[0].path == name
    (tmp_path / "mix.yaml").write_text("sources:\n  - {path: data/train.jsonl, task: texts}\n")
    assert read_mixture(tmp_path / "mix.yaml").sources[0].path == str(tmp_path / "data/train.jsonl")


@pytest.mark.parametrize("name", named_mixtures())
def test_the_packages_mixtures_are_complete(name: str) -> None:
    found = read_mixture(name)
    assert found.description
    for one in found.sources:
        assert one.task and one.licence and (one.path or one.hub)
        assert one.query_instruction or name in ("nli", "wiki1m")


def test_the_packages_mixtures_read_local_copies(tmp_path: Path) -> None:
    (tmp_path / "nli_for_simcse.csv").write_text('sent0,sent1,hard_neg\n"A man, singing.",He sings.,Nobody sings.\n')
    (tmp_path / "wiki1m_for_simcse.txt").write_text("One.\nTwo.\n")
    data = build_training_data(read_mixture("nli", folder=tmp_path).sources).dataset
    assert data[0] == {"query": "A man, singing.", "positive": "He sings.", "negative_1": "Nobody sings."}
    assert build_texts(read_mixture("wiki1m", folder=tmp_path).sources)["text"][:] == ["One.", "Two."]
    (tmp_path / "echo-data").mkdir()
    row = {"query": "who", "positive": "he", "negative": "it"}
    (tmp_path / "echo-data" / "nq.jsonl").write_text(json.dumps(row) + "\n")
    data = build_training_data(read_mixture("e5-public", folder=tmp_path, only=["nq"]).sources)
    assert data.dataset[0] == {"query": "who", "positive": "he", "negative_1": "it"}
    assert data.prompts == {"query": "Find Wikipedia passages that answer this question."}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("task: nli", "task: nil", r"mix.yaml, line 11: .*task 'nil'; did you mean 'nli'\? Known are retrieval"),
        (
            "label: category",
            "label: intent",
            r"mix.yaml, line 17: There is no column 'intent' in intents; it has 'text'",
        ),
        (
            "description: Three",
            "instruction_template: 'Query: '\n#",
            r"line 1: the instruction_template .* has no {instr",
        ),
        ("description: Three kinds of data.", "descr: x", r"line 1: a mixture has no 'descr'"),
        ("negatives: 2", "negativs: 2", r"mix.yaml, line 19: .*no field 'negativs'.*did you mean 'negatives'"),
        ("negatives: 2", "classes: {names: {cash: x, loan: y}}", r"line 19: The class 'loan' of intents is empty"),
        ("negatives: 2", "classes: {names: 3, by: name}", r"line 19: classes are told by 'name'"),
        ("path: snli.tsv", "path: snil.tsv", r"mix.yaml, line 12: There is no file .*snil.tsv"),
        ("path: snli.tsv", "path: ${NOWHERE}/a.tsv", r"line 12: .*the environment has no NOWHERE"),
        ("name: snli", "name: sts", r"mix.yaml, line 10: Two sources are called 'sts'"),
        ("weight: 2", "weight: 0", r"line 24: weight=0 of the source cranfield must be a number above 0"),
        ("format: smart", "format: smrt", r"line 22: The format of cranfield is 'smrt'; known are"),
        (
            "weight: 2",
            "options: {quoting: 3}",
            r"line 24: .* beside its collection, which does not read them. Put them into",
        ),
        ("weight: 2", "options: 3", r"line 24: options=3 of the source cranfield must be a mapping"),
        (
            "format: smart",
            "options: 3, format: smart",
            r"line 22: The options of a collection are 3; a mapping is expected",
        ),
        ("qrels: qrels, ", "", r"line 22: The collection of cranfield names no qrels"),
        ("in_batch_negatives: true", "min_score: 6", r"line 7: No row of sts has 6 or more in 'gold'"),
        (
            "score: gold",
            "scores: gold",
            r"line 7: The columns of sts are .*; rows of the task sts have query, positive; sen",
        ),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(folder: Path, old: str, new: str, message: str) -> None:
    assert old in MIXTURE
    (folder / "mix.yaml").write_text(MIXTURE.replace(old, new))
    with pytest.raises(ValueError, match=message):
        build_training_data(read_mixture(folder / "mix.yaml").sources)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sources: [", "is no YAML"),
        ("- a\n", "no list `sources:`"),
        ("sources: []\n", "no list `sources:`"),
        ("sources:\n  - a.csv\n", "line 2: A source is 'a.csv'; a mapping"),
    ],
)
def test_what_is_no_mixture_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mix.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_mixture(tmp_path / "mix.yaml")


def test_options_of_a_collection_reach_its_tables(folder: Path) -> None:
    (folder / "corpus.tsv").write_text('id\ttext\n1\t"wings" and air\n2\theat\n')
    (folder / "queries.tsv").write_text("id\ttext\n1\twhat is a wing\n2\twhat is heat\n")
    told = "{corpus: corpus.tsv, queries: queries.tsv, qrels: qrels, options: {quoting: 3}}"
    cranfield = next(line for line in MIXTURE.splitlines() if "collection:" in line)
    (folder / "mix.yaml").write_text(MIXTURE.replace(cranfield, f"    collection: {told}"))
    found = build_training_data(read_mixture(folder / "mix.yaml", only=["cranfield"]).sources)
    assert sorted(set(found.dataset["positive"])) == ['"wings" and air', "heat"]


def test_a_class_without_a_label_is_named_by_its_row(folder: Path) -> None:
    (folder / "intents.csv").write_text("text,category\na,x\nb,\nc,y\n")
    with pytest.raises(ValueError, match=r"line 17: Row 1 of intents .* has no class in 'category'"):
        build_training_data(read_mixture(folder / "mix.yaml", only=["intents"]).sources)


def test_unknown_mixtures_and_sources_are_named(folder: Path) -> None:
    with pytest.raises(ValueError, match="There is no mixture nil; did you mean 'nli'"):
        read_mixture("nil")
    with pytest.raises(ValueError, match="has no source 'snil'; did you mean 'snli'"):
        read_mixture(folder / "mix.yaml", only=["snil"])
