from __future__ import annotations

import bz2
import gzip
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import datasets
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from st_llm2vec.corpus import open_corpus
from st_llm2vec.corpus.corpus import Corpus, Row, judge

TEXTS = ["plain", "with, a comma", 'with "quotes"', "über\tall", "", "last"]


def write(folder: Path, kind: str, texts: list[str] = TEXTS, name: str = "corpus") -> Path:
    """The same texts in a file of a kind."""
    path = folder / f"{name}.{kind}"
    if kind == "txt":
        path.write_text("".join(f"{one}\n" for one in texts), encoding="utf-8")
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"text": one}) + "\n" for one in texts), encoding="utf-8")
    elif kind in ("csv", "tsv"):
        import csv

        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="," if kind == "csv" else "\t")
            writer.writerows([["n", "text"], *([str(n), one] for n, one in enumerate(texts))])
    else:
        parquet.write_table(arrow.table({"text": texts}), path, row_group_size=4)
    return path


def every_row(source: Corpus) -> list[Row]:
    return list(source.rows(0, len(source)))


def values(source: Corpus, start: int = 0) -> list[Any]:
    return [row.value for row in source.rows(start, len(source))]


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "tsv", "parquet"])
def test_every_kind_gives_the_same_rows_from_any_start(kind: str, tmp_path: Path) -> None:
    many = [f"{text} {number}" for number in range(7) for text in TEXTS]
    files = [write(tmp_path, kind, many, "a"), write(tmp_path, kind, [], "b"), write(tmp_path, kind, TEXTS, "c")]
    source = open_corpus(files)
    expected = many + TEXTS
    assert values(source) == expected
    assert len(source) == len(expected)
    for start in range(0, len(expected), 5):
        rows = list(source.rows(start, start + 5))
        assert [row.value for row in rows] == expected[start : start + 5]
        assert [row.number for row in rows] == [row.id for row in rows] == list(range(start, start + len(rows)))


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "parquet"])
def test_another_process_reads_it_from_where_it_is(kind: str, tmp_path: Path) -> None:
    source = open_corpus([write(tmp_path, kind)])
    opened = pickle.loads(pickle.dumps(source))
    assert values(opened) == TEXTS and opened.identity == source.identity
    assert len(pickle.dumps(source)) < 1000


@pytest.mark.parametrize(("ending", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_compressed_files(ending: str, compress: Any, tmp_path: Path) -> None:
    plain = write(tmp_path, "jsonl")
    packed = tmp_path / f"corpus.jsonl{ending}"
    packed.write_bytes(compress(plain.read_bytes()))
    source = open_corpus([packed])
    assert values(source) == TEXTS
    assert values(source, 4) == TEXTS[4:]
    packed.write_bytes(packed.read_bytes()[:40])
    with pytest.raises(ValueError, match="could not be read as text: "):
        values(open_corpus([packed]))


def test_a_folder_is_its_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path, "parquet", ["b"], "b")
    write(tmp_path / "sub", "parquet", ["c"], "c")
    write(tmp_path, "parquet", ["a"], "a")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".part.parquet").touch()
    assert values(open_corpus([tmp_path])) == ["a", "b", "c"]


def test_csv_rows_may_span_lines_and_a_mark_may_stand_first(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes('\ufefftext,id\r\n"two\r\nlines",1\r\n\r\nüber,2\r\nthree,3\r\n'.encode())
    source = open_corpus([path], id_column="id")
    expected = [("1", "two\r\nlines"), ("2", "über"), ("3", "three")]
    assert [(row.id, row.value) for row in every_row(source)] == expected
    assert [values(source, start)[0] for start in range(3)] == ["two\r\nlines", "über", "three"]


def test_bad_rows_are_rows_with_a_problem_and_blank_lines_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = ['{"text": null}', '{"text": 5}', "{", "", "[1]", '{"id": 1}', r'{"text": "\ud800"}']
    lines += ['{"text": "%s"}' % ("x" * 300), '{"text": "good"}']
    path.write_bytes("\n".join(lines).encode() + b'\n{"text": "\xff"}\n')
    found = [judge(row, 50) for row in every_row(open_corpus([path]))]
    expected = [
        "null",
        "not text: int",
        "not JSON",
        "not an object: list",
        "null",
        "not valid Unicode",
    ]
    expected += ["too long: 300 characters, and 50 are allowed", None, "not valid Unicode"]
    assert [one if one is None else want in one for one, want in zip(found, expected, strict=True)] == [
        None if want is None else True for want in expected
    ]


def test_csv_holds_texts_even_where_they_look_like_numbers_and_broken_csv_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,text,n\n007,NA,1\n8,5,2\n9\n")
    rows = every_row(open_corpus([path], id_column="id"))
    assert [(row.id, row.value) for row in rows] == [("007", "NA"), ("8", "5"), ("9", "")]
    path.write_text('id,text\n1,good\n2,"never closed\n3,good\n')
    with pytest.raises(ValueError, match="a.csv could not be read as csv: .* EOF inside string"):
        open_corpus([path])
    path.write_text("id,text\n1,good\n2,Hello, world\n")
    with pytest.raises(ValueError, match="a.csv, line 3: it has 3 fields, and 2 are expected"):
        open_corpus([path])


def test_ids_come_from_a_column(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"text": ["a", "b", "c"], "key": [7, None, 9]}), path)
    rows = every_row(open_corpus([path], id_column="key"))
    assert [row.id for row in rows] == ["7", "", "9"]
    assert [judge(row, 10) for row in rows] == [None, "it has no id", None]


def test_datasets_on_disk_and_in_a_folder(tmp_path: Path) -> None:
    data = datasets.Dataset.from_dict({"text": TEXTS, "key": list("abcdef"), "other": [0] * 6})
    data.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": data, "test": data.select(range(2))}).save_to_disk(tmp_path / "splits")
    (tmp_path / "folder").mkdir()
    data.to_parquet(tmp_path / "folder" / "all.parquet")
    for name in ("saved", "splits", "folder"):
        source = open_corpus(dataset=str(tmp_path / name), id_column="key")
        assert [(row.id, row.value) for row in every_row(source)] == list(zip("abcdef", TEXTS, strict=True))
        assert values(source, 4) == TEXTS[4:]
        assert source.identity == open_corpus(dataset=str(tmp_path / name), id_column="key").identity
    before = open_corpus(dataset=str(tmp_path / "saved")).identity
    shutil.rmtree(tmp_path / "saved")
    data.select(range(5, -1, -1)).flatten_indices().save_to_disk(tmp_path / "saved")
    assert open_corpus(dataset=str(tmp_path / "saved")).identity != before, "the same rows in another order"
    assert values(open_corpus(dataset=str(tmp_path / "splits"), split="test")) == TEXTS[:2]
    assert len(open_corpus(dataset=str(tmp_path / "saved"))) == 6


def test_another_commit_of_the_hub_is_another_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def identity(commit: str) -> dict[str, Any]:
        data = datasets.Dataset.from_dict({"text": TEXTS})
        data.info.download_checksums = {f"hf://datasets/org/name@{commit}/data.parquet": {"num_bytes": 9}}
        monkeypatch.setattr("st_llm2vec.corpus.corpus.read_dataset", lambda *given, **named: data)
        return open_corpus(dataset="org/name").identity

    assert identity("a1") == identity("a1") != identity("b2")


def test_a_bad_row_is_rejected_and_not_the_corpus(tmp_path: Path) -> None:
    lines = [
        '{"id": "x\\ud83d", "text": "one"}',
        '{"id": "b", "text": "two", "n": ' + "1" * 5000 + "}",
        '{"id": "c", "text": "three"}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    rows = every_row(open_corpus([tmp_path / "a.jsonl"], id_column="id"))
    first, second, third = (judge(row, 10) for row in rows)
    assert first == "its id is not valid Unicode" and second is not None and "4300 digits" in second and third is None
    assert [row.id.encode() for row in rows] == [b"x?", b"", b"c"]


def test_what_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["a"]})}).save_to_disk(tmp_path / "splits")
    numbers = tmp_path / "numbers.parquet"
    parquet.write_table(arrow.table({"text": [1, 2]}), numbers)
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(numbers.read_bytes()[:50])
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.xlsx").touch()
    txt, jsonl = write(tmp_path, "txt"), write(tmp_path, "jsonl")
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "neither was given"),
        ({"inputs": [txt], "dataset": "a"}, "both were given"),
        ({"inputs": [tmp_path / "no"]}, "There is no file"),
        ({"inputs": [tmp_path / "empty"]}, "holds no files that are read here"),
        ({"inputs": [tmp_path / "a.xlsx"]}, "a.xlsx is not read here"),
        ({"inputs": [txt, jsonl]}, "are of several formats"),
        ({"inputs": [jsonl], "column": "body"}, "has no column 'body'; it has text"),
        ({"inputs": [jsonl], "id_column": "key"}, "--id-column"),
        ({"inputs": [txt], "column": "body"}, "has no columns"),
        ({"inputs": [txt], "split": "train"}, "are for --dataset"),
        ({"inputs": [numbers]}, "holds int64; a column of texts is expected"),
        (
            {"inputs": [numbers], "column": "body"},
            "numbers.parquet has no column 'body'; it has text. Choose one with --column",
        ),
        ({"inputs": [torn]}, "could not be read as parquet"),
        ({"dataset": str(tmp_path / "splits"), "split": "dev"}, "has no split 'dev'; it has 'train'"),
        ({"dataset": str(tmp_path / "splits"), "column": "body"}, "has no column 'body'"),
        ({"dataset": str(tmp_path / "empty")}, "holds no files that are read here"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            open_corpus(**arguments)


def test_another_corpus_has_another_identity(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl")
    before = open_corpus([path]).identity
    path.write_bytes(path.read_bytes().replace(b"plain", b"Plain"))
    assert open_corpus([path]).identity != before
