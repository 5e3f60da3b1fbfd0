from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import preprocessing


@pytest.mark.parametrize(("recipe", "layout"), [("llm2vec", "text"), ("e5-mistral", "message"), ("echo", "custom")])
@pytest.mark.slow
def test_every_layout_is_measured_on_the_same_tokens(recipe: str, layout: str) -> None:
    texts = preprocessing.short_texts(6)
    for prompt in (None, preprocessing.INSTRUCTION):
        found = preprocessing.measure(recipe, prompt, texts, batch_size=4, rounds=1)
        assert found["layout"] == layout
        assert (found["against_stock"] is None) is (layout == "custom")


def test_the_strings_are_those_that_the_encoder_reads(decoder: str) -> None:
    for recipe in ("sgpt", "e5-mistral", "gritlm"):
        encoder = preprocessing.convert(decoder, recipe)
        for prompt in (None, preprocessing.INSTRUCTION):
            (string,) = preprocessing.rendered(encoder, prompt, ["A text."])
            read = encoder.tokenizer.decode(encoder.preprocess(["A text."], prompt=prompt)["input_ids"][0])
            assert string in read or read in string


@pytest.mark.slow
def test_the_table_has_a_row_for_each_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessing, "OUTPUT", tmp_path)
    monkeypatch.setattr(
        "sys.argv", ["preprocessing", "--texts", "4", "--rounds", "1", "--recipes", "prompteol", "echo"]
    )
    preprocessing.main()
    assert len(json.loads((tmp_path / "preprocessing.json").read_text())["results"]) == 3
    assert (tmp_path / "preprocessing.md").read_text().count("\n| ") == 4
