"""Plans of tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from st_llm2vec.evaluation.task_plan import limited, parse_task, read_plan


def plan(folder: Path, text: str) -> Path:
    path = folder / "plan.yaml"
    path.write_text(text)
    return path


def test_files_are_beside_the_plan_or_where_a_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "/data")
    text = "tasks:\n- {name: a, kind: sts, data: dev.csv, metric: pearson}\n- {name: b, kind: sts, data: '${PLACE}/dev.csv'}\n"
    first, second = read_plan(plan(tmp_path, text))
    assert first.files == {"data": str(tmp_path / "dev.csv")} and first.metric == "pearson"
    assert second.files == {"data": "/data/dev.csv"} and second.metric == "spearman"
    assert limited(first, 5).limit == 5 and limited(first, None) == first
    assert parse_task(str(tmp_path / "plan.yaml")) == [first, second]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("tasks: [", "is no YAML"),
        ("task: []", "has no list `tasks:`"),
        ("tasks:\n- {name: a}", "The task 'a' of the plan needs a name and a kind: sts, "),
        ("tasks:\n- {name: a, kind: guessing, data: x.csv}", "has the kind 'guessing'; known are sts, "),
        ("tasks:\n- {name: a, kind: classification, train: x.csv}", "files are train, test; test is missing"),
        ("tasks:\n- {name: a, kind: sts, data: x.csv, corpus: y.csv}", "files are data; it names"),
        ("tasks:\n- {name: a, kind: sts, data: x.csv, colour: red}", "has colour, which a plan does not know"),
        ("tasks:\n- {name: a, kind: sts, data: x.csv, metric: ap}", "metric 'ap'; known are spearman, pearson"),
        ("tasks:\n- {name: a, kind: sts, data: x.csv, columns: {text: t}}", "names the column 'text'; known are"),
        ("tasks:\n- {name: a, kind: sts, data: x.csv, format: xml}", "format 'xml'; known are table, smart, trec"),
        ("tasks:\n- {name: a, kind: sts, data: x.csv, limit: 0}", "has the limit 0"),
        ("tasks:\n- {name: a, kind: sts, data: x.csv, documents: 5}", "documents is for retrieval"),
        ("tasks:\n- {name: a, kind: sts, data: '${NO_SUCH_PLACE}/x.csv'}", "the environment has no NO_SUCH_PLACE"),
        ("tasks:\n- {name: a, kind: sts, data: x.csv, shift: true}", "probe and shift are for words"),
        ("tasks:\n- {name: a, kind: words, train: x.txt, test: y.txt}", "is of the kind words and names no column"),
        ("tasks:\n- {name: a, kind: sts, data: x.tsv, options: 3}", "has the options 3; a mapping is expected"),
        (
            "tasks:\n- {name: a, kind: words, train: x.txt, test: y.txt, columns: {label: pos}, options: {quoting: 3}}",
            "has options, which are for tables",
        ),
        (
            "tasks:\n- {name: a, kind: words, train: x.txt, test: y.txt, columns: {label: pos}, instruction: Tag}",
            "has an instruction, which words are read without",
        ),
        (
            "tasks:\n- {name: a, kind: words, train: x.txt, test: y.txt, columns: {label: pos}, probe: deep}",
            "has the probe 'deep'; known are linear, logistic",
        ),
        ("tasks:\n" + 2 * "- {name: a, kind: sts, data: x.csv}\n", "has several tasks called a"),
    ],
)
def test_a_wrong_plan_is_a_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_plan(plan(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("missing.yaml", "There is no plan missing.yaml"),
        ("a=sts", "neither a plan nor of the form NAME=KIND:FILE"),
        ("a=guessing:x.csv", "has the kind 'guessing'"),
        ("a=classification:x.csv", "test is missing"),
    ],
)
def test_a_wrong_option_is_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_task(text)
