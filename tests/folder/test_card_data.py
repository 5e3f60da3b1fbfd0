"""What the host's model card is made from."""

from __future__ import annotations

import pytest
from datasets import Dataset

from st_llm2vec.folder.card_data import EncoderCardData


def test_a_file_gets_examples_without_their_bar(capsys: pytest.CaptureFixture[str]) -> None:
    data = EncoderCardData()
    rows = {"query": ["a cat", "rain"] * 8, "positive": ["cats purr", "it fell"] * 8}
    data.set_widget_examples(Dataset.from_dict(rows))
    assert data.widget and capsys.readouterr().err == ""
