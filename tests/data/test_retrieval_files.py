"""Test collections in the forms in which they are handed around."""

from __future__ import annotations

from pathlib import Path

import pytest

from st_llm2vec.data.retrieval_files import (
    read_judgements,
    read_smart,
    read_text,
    read_trec_documents,
    read_trec_topics,
)

SMART = ".I 1\n.T\na wing .\n.A\nsomebody\n.W\na wing .\nit flies .\n.I 002\n.T\nheat\n.W\nof slabs\n.I 3\n.W\n\n"
TREC = "<DOC>\n<DOCNO> d1 </DOCNO>\n<TITLE>Liquids</TITLE>\nfrozen\nwater\n</DOC>\n<DOC><DOCNO>d2</DOCNO>steam</DOC>\n"
TOPICS = "<top>\n<num>1</num><title>\nICE AND\nWATER\n</title>\n</top>\n<top>\n<num> Number: 302\n<title> steam\n\n<desc> more"


def write(folder: Path, text: str) -> Path:
    path = folder / "file"
    path.write_text(text)
    return path


def test_smart_reads_a_repeated_title_once(tmp_path: Path) -> None:
    assert read_smart(write(tmp_path, SMART)) == {"1": "a wing . it flies .", "002": "heat of slabs", "3": ""}


def test_trec_documents_and_topics(tmp_path: Path) -> None:
    assert read_trec_documents(write(tmp_path, TREC)) == {"d1": "Liquids frozen water", "d2": "steam"}
    assert read_trec_topics(write(tmp_path, TOPICS)) == {"1": "ICE AND WATER", "302": "steam"}


def test_judgements_of_three_kinds(tmp_path: Path) -> None:
    expected = {"1": {"d1", "d2"}, "2": {"d3"}}
    assert read_judgements(write(tmp_path, "1 0 d1 1\n1 0 d2 2\n1 0 d9 0\n\n2 0 d3 3\n")) == expected
    assert read_judgements(write(tmp_path, "1 d1 1 \n1 d2 2\n1 d9 -1\n2 d3 3\n")) == expected
    header = "query-id\tcorpus-id\tscore\n"
    assert read_judgements(write(tmp_path, header + "1\td1\t1\n1\td2\t1\n2\td3\t2\n")) == expected
    assert read_judgements(write(tmp_path, "1 d1 1\n1 d2 2\n"), smallest=2) == {"1": {"d2"}}


@pytest.mark.parametrize(
    ("read", "text", "sentence"),
    [
        (read_smart, "1 a wing\n", "holds no entries of SMART"),
        (read_trec_documents, "a text", "holds no documents of TREC"),
        (read_trec_documents, "<DOC>a text</DOC>", "has no <DOCNO>: 'a text'"),
        (read_trec_topics, "a query", "holds no topics of TREC"),
        (read_judgements, "1 0 d1 1\nd2 yes\n", "Line 2 of"),
        (read_judgements, "1 0 d1 0\n", "judges no document relevant: no grade is 1 or more"),
        (read_text, "\n", "is empty"),
    ],
)
def test_what_is_of_another_form_is_a_sentence(read: object, text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        read(write(tmp_path, text))  # type: ignore[operator]


def test_another_encoding_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes("one\ncafé\n".encode("latin-1"))
    with pytest.raises(ValueError, match="Line 2 of .* is not utf-8: byte 0xe9"):
        read_text(path)
    assert read_text(path, "latin-1") == "one\ncafé\n"
    with pytest.raises(ValueError, match="no encoding 'latin-99'"):
        read_text(path, "latin-99")
    with pytest.raises(ValueError, match="There is no file"):
        read_text(tmp_path / "missing")
