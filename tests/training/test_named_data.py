"""The data that a plan names."""

from __future__ import annotations

from pathlib import Path

import pytest

from st_llm2vec.training import MNTP, SimCSE, Stage
from st_llm2vec.training.named_data import called, describe_files, open_data


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
