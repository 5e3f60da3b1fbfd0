"""What is refused before any training time is spent, and in which row it stands."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerFast

from st_llm2vec.data import check_contrast, check_pairs, check_texts, require_texts

from ..conftest import TEXTS

LONG = [f"{text} And {number}." for number in range(300) for text in TEXTS]


@pytest.fixture
def tokenizer(tokenizers: dict[str, PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    return tokenizers["byte-level+bos"]


def test_good_texts_pass(tokenizer: PreTrainedTokenizerFast) -> None:
    check_texts(Dataset.from_dict({"text": LONG}), "text", tokenizer)
    check_texts(Dataset.from_dict({"text": [*LONG, "", "a"]}), "text", tokenizer, every=False)
    check_texts(Dataset.from_dict({"text": ["a", "b"]}), "text", tokenizer, min_tokens=1)


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ([], {}, "There are no rows in the dataset"),
        ([*LONG, None], {}, "Row 1500 of the dataset .* has nothing in 'text'"),
        ([*LONG, None], {"every": False}, "Row 1500 of the dataset .* has nothing in 'text'"),
        ([*LONG, " "], {"where": "wiki"}, "Row 1500 of wiki .* has a blank text"),
        ([1, 2], {}, "Row 0 of the dataset .* has int '1'"),
        ([*LONG, "a", "b"], {}, "2 of the 1502 texts in 'text' of the dataset .* row 1500 .* with 'a'"),
        (["a", "b"], {}, "All 2 texts .* have fewer than 2 tokens, beginning with row 0"),
        (["", "b"], {"every": False}, "All 2 texts .* beginning with row 0 .* with ''"),
    ],
)
def test_bad_texts(tokenizer: PreTrainedTokenizerFast, texts: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_texts(Dataset.from_dict({"text": texts}), "text", tokenizer, **options)


def test_texts_that_are_all_blank_are_refused_by_the_files_name() -> None:
    with pytest.raises(
        ValueError, match="^blank.txt has 2 rows, and all are blank in 'text': there is nothing to learn"
    ):
        require_texts(Dataset.from_dict({"text": ["", " "]}), ["text"], "blank.txt")
    with pytest.raises(ValueError, match="blank in 'a' or 'b'"):
        require_texts(Dataset.from_dict({"a": ["x", None], "b": ["", "y"]}), ["a", "b"], "blank.csv")
    require_texts(Dataset.from_dict({"text": ["", "x"]}), ["text"], "texts.txt")


def test_a_missing_column(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="There is no column 'text' in the dataset; it has 'body', 'id'"):
        check_texts(Dataset.from_dict({"body": TEXTS, "id": TEXTS}), "text", tokenizer)


def pairs(negative: Any, instructed: bool = False) -> Dataset:
    def cell(text: Any) -> Any:
        return {"text": text, "instruction": None} if instructed else text

    columns = {
        "label": [1] * 1201,
        "query": [cell("a cat")] * 1201,
        "positive": [cell("cats purr")] * 1201,
        "negative_1": [cell("dogs bark")] * 1201,
        "negative_2": [*[cell("hens cluck")] * 1200, cell(negative)],
    }
    return Dataset.from_dict(columns)


@pytest.mark.parametrize("instructed", [False, True])
def test_negatives_that_equal_the_others(instructed: bool) -> None:
    check_pairs(pairs("waves roll", instructed))
    with pytest.raises(ValueError, match="Row 1200 of the dataset .* equals its positive: ' cats purr'"):
        check_pairs(pairs(" cats purr", instructed))
    both = DatasetDict(good=pairs("waves roll", instructed), snli=pairs("a cat\n", instructed))
    with pytest.raises(ValueError, match="Row 1200 of snli .* equals its query"):
        check_pairs(both)
    with pytest.raises(ValueError, match="Row 1200 of the dataset .* has nothing in 'negative_2'"):
        check_pairs(pairs(None, instructed))


def test_one_column_is_no_pair() -> None:
    with pytest.raises(ValueError, match="a query and a positive are needed"):
        check_pairs(Dataset.from_dict({"text": ["a"], "label": [1]}))


def test_a_negative_that_rows_share_makes_small_batches(caplog: pytest.LogCaptureFixture) -> None:
    rows = {"query": ["a", "b", "c"], "positive": ["d", "e", "f"], "negative": ["dust fell"] * 3}
    check_contrast(Dataset.from_dict(rows), rows=1)
    check_contrast(Dataset.from_dict({**rows, "negative": ["g", "h", "i"]}), rows=3)
    assert not caplog.text
    check_contrast(Dataset.from_dict(rows), rows=3)
    assert "The dataset has few different texts (1 in 'negative'), fewer than the 3 rows of a batch" in caplog.text


def test_few_texts_in_both_columns_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    check_contrast(Dataset.from_dict({"query": ["a", "b", "c"], "positive": ["d", "e", "e"]}), rows=4)
    assert [record.getMessage().split(",")[:2] for record in caplog.records] == [
        ["The dataset has few different texts (3 in 'query'", " 2 in 'positive')"]
    ]
