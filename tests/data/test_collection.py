"""Test collections are read whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from st_llm2vec.data.collection import CollectionFiles, read_collection


def files_of(folder: Path, files: dict[str, str]) -> dict[str, str]:
    """Files by their roles (`corpus.tsv`), with these contents."""
    for name, text in files.items():
        (folder / name).write_text(text)
    return {name.split(".")[0]: str(folder / name) for name in files}


QUOTED = {
    "corpus.tsv": 'id\ttext\nd1\t"Hello, world said one\nd2\tSteam\nd3\t"Ice, said another\nd4\tRain\n',
    "queries.tsv": "id\ttext\n1\twhat is hot\n",
    "qrels.tsv": "query-id\tcorpus-id\tscore\n1\td2\t1\n",
}


def test_texts_that_begin_with_a_quotation_mark(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = files_of(tmp_path, QUOTED)
    found = read_collection(CollectionFiles(files, options={"quoting": 3}), "quoted")
    assert found.corpus["d1"] == '"Hello, world said one' and list(found.corpus) == ["d1", "d2", "d3", "d4"]
    assert found.relevant == {"1": ["d2"]} and not caplog.text
    with pytest.raises(ValueError, match="no query of .* has a relevant document"):
        read_collection(CollectionFiles(files), "quoted")
    assert re.search(r"Row 0 of \S*corpus.tsv .* line break and a tab in 'text', .* quoting=3", caplog.text)


def test_options_are_a_mapping_for_tables(tmp_path: Path) -> None:
    files = files_of(tmp_path, QUOTED)
    with pytest.raises(ValueError, match=r"options of a collection are 3; a mapping is expected"):
        CollectionFiles(files, options=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"are for tables, and the collection's format is 'smart'"):
        CollectionFiles(files, format="smart", options={"quoting": 3})
