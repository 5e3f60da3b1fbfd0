"""Every kind of local file, saved datasets, and sentences for what cannot be read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from st_llm2vec.data import read_dataset

ROWS = {"query": ["a cat", 'the "sea"'], "positive": ["None", "waves, rolling"], "count": [1, 2]}


def write(folder: Path, name: str) -> Path:
    path, dataset = folder / name, Dataset.from_dict(ROWS)
    if path.suffix == ".parquet":
        dataset.to_parquet(path)
    elif path.suffix in (".csv", ".tsv"):
        dataset.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    elif path.suffix == ".json":
        path.write_text(json.dumps([dict(row) for row in dataset]))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in dataset))
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.csv", "a.tsv", "a.parquet"])
def test_files_of_every_format_hold_the_same_rows(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name)
    for source in (path, str(path), [path], str(tmp_path / "*")):
        assert read_dataset(source)[:] == ROWS


def test_a_text_file_has_a_text_in_each_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufefffirst\n\nthïrd, with a comma\n".encode())
    assert read_dataset(path)[:] == {"text": ["first", "", "thïrd, with a comma"]}


def test_several_files_and_slices(tmp_path: Path) -> None:
    files = [tmp_path / "2.txt", tmp_path / "1.txt"]
    for file in files:
        file.write_text(f"text {file.stem}\n")
    assert read_dataset(files)["text"][:] == ["text 2", "text 1"]
    assert read_dataset(str(tmp_path / "*.txt"))["text"][:] == ["text 1", "text 2"]
    assert read_dataset(files, split="train[1:]")["text"][:] == ["text 1"]


def test_a_compressed_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(write(tmp_path, "a.jsonl").read_bytes()))
    assert read_dataset(path)[:] == ROWS


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.tsv", "\t")])
def test_columns_without_names_are_named(tmp_path: Path, name: str, separator: str) -> None:
    path = tmp_path / name
    path.write_text("\n".join(separator.join(row) for row in [("a cat", "NA", "5.0"), ("null", "a dog", "2.5")]))
    expected = {"sentence1": ["a cat", "null"], "sentence2": ["NA", "a dog"], "score": [5.0, 2.5]}
    assert read_dataset(path, columns=list(expected))[:] == expected
    with pytest.raises(ValueError, match=r"has 3 columns, and the names given are \['sentence1'\]"):
        read_dataset(path, columns=["sentence1"])


def test_options_reach_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('text\tid\n"quoted, said he\t1\nplain\t2\n')
    with pytest.raises(ValueError, match="EOF inside string"):
        read_dataset(path)
    assert read_dataset(path, quoting=3)["text"][:] == ['"quoted, said he', "plain"]


@pytest.mark.parametrize(
    "content",
    [
        'id\ttext\n1\tplain\n2\t"one, said he\n3\tlost\n4\t"two, said she\n',
        'text\tid\nplain\t1\n"one, said he\t2\n"two", said she\t3\n',
    ],
)
def test_rows_that_a_quotation_mark_swallows_are_warned_of(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(content)
    assert len(read_dataset(path, quoting=3)) > 2 and not caplog.text
    assert len(read_dataset(path)) == 2
    assert f"Row 1 of {path} (the first is 0) has a line break and a tab in 'text'" in caplog.text
    assert "read the file with quoting=3" in caplog.text


def test_texts_of_several_lines_are_not_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('id\ttext\n1\t"two lines,\n\tthe second indented"\n2\t"a\ttab"\n')
    assert read_dataset(path)["text"][:] == ["two lines,\n\tthe second indented", "a\ttab"] and not caplog.text


def test_saved_datasets(tmp_path: Path) -> None:
    dataset = Dataset.from_dict(ROWS)
    dataset.save_to_disk(tmp_path / "one")
    DatasetDict(train=dataset, dev=dataset.select([1])).save_to_disk(tmp_path / "several")
    assert read_dataset(tmp_path / "one")[:] == ROWS
    assert read_dataset(tmp_path / "several", split="dev")["query"][:] == ['the "sea"']
    with pytest.raises(ValueError, match="no split 'test'; it has 'train', 'dev'"):
        read_dataset(tmp_path / "several", split="test")


FILES = {
    "names.csv": "query,positive\na,b\n",
    "ragged.csv": "query,positive\na,b\nc,d,e\n",
    "comma.csv": "text\nHello, world\nA cat, a dog\n",
    "many.csv": "id,text\n1,x,y,z\n2,c\n",
    "broken.jsonl": '{"text": "a"}\n{"text": \n',
    "empty.jsonl": "",
    "header.csv": "query,positive\n",
    "texts.txt": "a\n",
    "notes.docx": "a\n",
}


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("missing.jsonl", {}, "There is no file .*missing.jsonl"),
        ("*.parquet", {}, "There is no file .*parquet"),
        (["texts.txt", "missing.txt"], {}, "There is no file .*missing.txt"),
        ([], {}, "list of files is empty"),
        ("notes.docx", {}, "notes.docx is not read here. Give files that end in .jsonl, "),
        (["texts.txt", "names.csv"], {}, r"several formats \(.csv, .txt\)"),
        ("", {}, "are of several formats"),
        ("empty.jsonl", {}, "empty.jsonl is empty"),
        ("header.csv", {}, "header.csv could not be read as csv: it has no rows"),
        ("broken.jsonl", {}, "broken.jsonl, line 2: .* is no JSON"),
        ("ragged.csv", {}, "ragged.csv, line 3: it has 3 fields, and 2 are expected"),
        ("comma.csv", {}, r"more fields in a row than names in its first line, \['text'\]"),
        ("many.csv", {}, r"more fields in a row than names in its first line, \['id', 'text'\]"),
        ("names.csv", {"columns": ["query", "positive"]}, "first line of .*names.csv holds the names"),
        ("texts.txt", {"columns": ["text"]}, "columns names the columns of a .csv or .tsv file"),
        ("texts.txt", {"split": "test"}, 'Unknown split "test"'),
        ("texts.txt", {"streaming": True}, "gave a IterableDataset"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, source: Any, options: dict[str, Any], message: str) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    paths = [str(tmp_path / one) for one in source] if isinstance(source, list) else str(tmp_path / source)
    with pytest.raises(ValueError, match=message):
        read_dataset(paths, **options)


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("café\n".encode("latin-1"))
    with pytest.raises(ValueError, match="latin.txt could not be read as text: 'utf-8' codec"):
        read_dataset(path)


def test_the_hub_is_asked_for_names_and_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(*names: Any, **options: Any) -> Dataset:
        asked.append((names, options))
        if names[0] == "org/gone":
            raise ConnectionError("Couldn't reach it")
        return Dataset.from_dict(ROWS)

    monkeypatch.setattr("st_llm2vec.data.read.load_dataset", load)
    assert read_dataset("org/name:config", split="dev", revision="main")[:] == ROWS
    assert read_dataset("org/name")[:] == ROWS
    assert read_dataset("hf://datasets/org/name/texts.txt")[:] == ROWS
    names, options = asked.pop()
    assert names == ("text",) and options["data_files"] == ["hf://datasets/org/name/texts.txt"]
    with pytest.raises(ValueError, match="is not read here"):
        read_dataset("hf://datasets/org/name/texts.zip")
    expected = [
        (("org/name", "config"), {"split": "dev", "revision": "main"}),
        (("org/name", None), {"split": "train"}),
    ]
    assert asked == expected
    with pytest.raises(ValueError, match="org/gone is neither a file here nor a dataset .* Hub: Couldn't reach it"):
        read_dataset("org/gone")
    with pytest.raises(ValueError, match="There is no file name"):
        read_dataset("name")


def test_the_benchmarks_files(shared_data: Path) -> None:
    pairs = read_dataset(shared_data / "sts" / "stsb-en-dev.csv", columns=["sentence1", "sentence2", "score"])
    assert len(pairs) == 1500 and all(isinstance(text, str) for text in pairs["sentence1"])
    assert len(read_dataset(shared_data / "pairs" / "snli_validation.tsv")) == 9842
