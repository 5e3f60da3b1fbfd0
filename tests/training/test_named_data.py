"""The data that a plan names."""

from __future__ import annotations

from pathlib import Path

import pytest

from st_llm2vec.training import MNTP, Scored, SimCSE, Stage
from st_llm2vec.training.named_data import called, describe_files, open_data, open_scored_pairs


def test_the_texts_of_pairs_are_read_once_each(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("query,positive\na cat,cats purr\na cat,a pet\n")
    (tmp_path / "b.jsonl").write_text('{"query": "rain", "positive": ["a pet", "it fell"], "negative": "dust"}\n')
    source = {"texts_of": [{"path": str(tmp_path / "a.csv")}, {"path": str(tmp_path / "b.jsonl")}]}
    assert open_data(source)["text"][:] == ["a cat", "cats purr", "a pet", "rain", "it fell", "dust"]
    assert called(source) == f"the texts of {tmp_path}/a.csv, {tmp_path}/b.jsonl"
    assert called({"texts_of": {"mixture": "mix.yaml"}}) == "the texts of mix.yaml" and called("mix.yaml") == "mix.yaml"
    assert list(describe_files(source)) == [str(tmp_path / "a.csv"), str(tmp_path / "b.jsonl")]


@pytest.mark.parametrize("kind", [MNTP, SimCSE])
def test_blank_texts_are_refused_by_their_file_before_anything_is_loaded(kind: type[Stage], tmp_path: Path) -> None:
    (tmp_path / "blank.txt").write_text("\n  \n\n")
    with pytest.raises(ValueError, match=r"blank.txt has 3 rows, and all are blank in 'text'"):
        kind(model="no/decoder", output=str(tmp_path / "out"), data=str(tmp_path / "blank.txt")).check()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"sentence1": "rain", "sentence2": "sun", "score": null}', "has nothing in 'score'; a number is expected"),
        ('{"sentence1": "rain", "sentence2": "sun", "score": NaN}', "has n.* in 'score'; a number is expected"),
        ('{"sentence1": " ", "sentence2": "sun", "score": 1}', "has a blank text in 'sentence1'; a text is expected"),
        ('{"sentence1": "rain", "sentence2": null, "score": 1}', "has nothing in 'sentence2'; a text is expected"),
    ],
)
def test_pairs_with_scores_lack_neither_texts_nor_scores(row: str, message: str, tmp_path: Path) -> None:
    """As data and as evaluation, before anything is loaded."""
    file, texts = tmp_path / "scores.jsonl", tmp_path / "texts.txt"
    file.write_text('{"sentence1": "a cat", "sentence2": "a tomcat", "score": 4.5}\n\n' + row + "\n")
    texts.write_text("a cat\nthe sea\n")
    sentence = rf"Line 3 of {file} {message}"
    with pytest.raises(ValueError, match=sentence):
        Scored(model="no/decoder", output=str(tmp_path / "out"), data=str(file)).check()
    with pytest.raises(ValueError, match=sentence):
        SimCSE(model="no/decoder", output=str(tmp_path / "out"), data=str(texts), evaluation=str(file)).check()


def test_scores_that_are_texts(tmp_path: Path) -> None:
    """Numbers in quotation marks are read; where a cell is no number, its row is named, and not the first."""
    quoted, table, bare = tmp_path / "quoted.jsonl", tmp_path / "table.csv", tmp_path / "bare.csv"
    quoted.write_text('{"sentence1": "a cat", "sentence2": "a tomcat", "score": "4.5"}\n')
    assert open_scored_pairs(str(quoted))["score"][:] == [4.5]
    rows = "a cat,a tomcat,4.5\nrain,sun,n/a\n"
    table.write_text("sentence1,sentence2,score\n" + rows)
    bare.write_text(rows)
    for file in (table, bare):
        with pytest.raises(ValueError, match=rf"Row 1 of {file} \(the first is 0\) has 'n/a' in 'score'; a number"):
            open_scored_pairs(str(file))
    bare.write_text("a cat,a tomcat,4.5\nrain,,1\n")
    with pytest.raises(ValueError, match=rf"Row 1 of {bare} \(the first is 0\) has a blank text in 'sentence2'"):
        open_scored_pairs({"path": str(bare)})
