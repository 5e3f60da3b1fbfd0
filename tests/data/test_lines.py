"""What is said of a line that cannot be read, or of a row that is no pair: where it is, what it is, and what to do."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from st_llm2vec.data import build_training_data
from st_llm2vec.data.lines import row_in, unlike_line

PAIR = '{"query": "a", "positive": "b"}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            PAIR + "\nhello there\n",
            r"p.jsonl, line 3: hello there is no JSON; each line must be an object, such as {\"query\": ",
        ),
        (PAIR + '["c", "d"]\n', r'p.jsonl, line 2: \["c", "d"\] is a list; each line must be an object'),
        ('["a", "b"]\n["c", "d"]\n', r"p.jsonl, line 1: .* is a list; each line must be an object"),
        ('"a"\n', r'p.jsonl, line 1: "a" is a text; each line must be an object'),
        (
            PAIR + '{"question": "c", "answer": "d"}\n',
            r"^Line 2 of .*p.jsonl has nothing in 'query'; a text is expected",
        ),
        (PAIR + '\n{"query": "c", "positive": null}\n', r"^Line 3 of .*p.jsonl has no text in 'positive'"),
        (PAIR + '{"query": "c", "positive": 5}\n', r"^Line 2 of .*p.jsonl has int '5' in 'positive'"),
        ("\n\n", r"p.jsonl could not be read as json: it has no rows"),
    ],
)
def test_a_row_that_is_no_pair_is_named_by_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        build_training_data([{"path": str(tmp_path / "p.jsonl")}])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "faq.csv",
            "question,answer\na,b\n",
            r"faq.csv has the columns 'question', 'answer'; query and positive are expected. ",
        ),
        ("faq.csv", "question,answer\na,b\n", r"such as columns: {query: question, positive: answer}"),
        ("faq.csv", "anchor,answer,id\na,b,c\n", r"such as columns: {query: anchor, positive: answer}"),
        ("faq.csv", "positive,question\na,b\n", r"such as columns: {query: question, positive: positive}"),
        ("faq.txt", "a\n", r"faq.txt has one column, 'text', and pairs have two"),
        ("faq.csv", "\n\n", r"faq.csv could not be read as csv: it has no rows"),
    ],
)
def test_columns_of_no_pairs_are_named_with_the_file(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        build_training_data([{"path": str(tmp_path / name)}])


def test_lines_are_counted_in_files_of_lines_only(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\na\n")
    (tmp_path / "t.csv").write_text("text\na\n")
    assert row_in(str(tmp_path / "t.txt"), 1) == f"Line 2 of {tmp_path}/t.txt"
    assert row_in(str(tmp_path / "t.csv"), 0) == f"Row 0 of {tmp_path}/t.csv (the first is 0)"


def test_compressed_files_are_looked_through_and_others_left_alone(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write(PAIR + '{"query": {"text": "a"}, "positive": null}\n')
    assert "a.jsonl.gz, line 2: 'query' is an object, and a text in " in str(
        unlike_line([str(tmp_path / "a.jsonl.gz")])
    )
    (tmp_path / "b.csv").write_text("no JSON\n")
    assert unlike_line([str(tmp_path / "b.csv")]) is None
