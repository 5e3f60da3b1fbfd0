from __future__ import annotations

from pathlib import Path

import pytest

from st_llm2vec.evaluation.word_files import read_labelled_words

CONLL = "-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\n# # B-NP O\nrejects VBZ B-VP O\n\n\nPeter  NNP B-NP B-PER\n"
CONLLU = (
    "# sent_id = 1\n# text = Don't\n1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_\n1\tDo\tdo\tAUX\tVBP\t_\t0\troot\t_\t_\n"
    "1.1\tgo\tgo\tVERB\tVB\t_\t_\t_\t_\t_\n2\tn't\tnot\tPART\t_\t_\t1\tadvmod\t_\t_\n\n"
    "# text = 1 000\n1\t1 000\t1 000\tNUM\tCD\t_\t0\troot\t_\t_\n\n"
)


@pytest.mark.parametrize(
    ("column", "labels"),
    [
        ("ner", [["B-ORG", "O", "O"], ["B-PER"]]),
        ("pos", [["NNP", "#", "VBZ"], ["NNP"]]),
        ("chunk", [["B-NP", "B-NP", "B-VP"], ["B-NP"]]),
        ("3", [["B-ORG", "O", "O"], ["B-PER"]]),
    ],
)
def test_columns(column: str, labels: list[list[str]], tmp_path: Path) -> None:
    for ending, text in (("txt", CONLL), ("tsv", CONLL.replace("  ", " ").replace(" ", "\t").replace("\n", "\r\n"))):
        file = tmp_path / f"words.{ending}"
        file.write_bytes(b"\xef\xbb\xbf" + text.encode())
        found = read_labelled_words(file, column)
        assert found.sentences == [["EU", "#", "rejects"], ["Peter"]]
        assert found.labels == labels
        assert found.name == file.name


@pytest.mark.parametrize(
    ("column", "labels"), [("upos", ["AUX", "PART"]), ("pos", ["AUX", "PART"]), ("XPOS", ["VBP", "_"])]
)
def test_conllu(column: str, labels: list[str], tmp_path: Path) -> None:
    file = tmp_path / "words.conllu"
    file.write_text(CONLLU)
    found = read_labelled_words(file, column)
    assert found.sentences == [["Do", "n't"], ["1 000"]]
    assert found.labels[0] == labels


def test_the_first_sentences(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text(CONLL + "\nbroken\n")
    assert len(read_labelled_words(file, "pos", limit=2).sentences) == 2


@pytest.mark.parametrize(
    ("text", "column", "sentence"),
    [
        (
            CONLL + "\nalone NN\n",
            "ner",
            r"Line 10 of .*words.txt has no word or no 'ner' in columns 0 and 3 .*'alone NN'",
        ),
        ("a\tNN\t\n", "chunk", "Line 1 of .*words.txt has no word or no 'chunk'"),
        (CONLL, "upos", "has no column 'upos'. Known are pos, chunk, ner, or a number"),
        (CONLL, "-1", "has no column '-1'"),
        (CONLL, "0", "Column '0' of .* is the word itself"),
        ("\n \n-DOCSTART- O O O\n", "ner", "holds no sentences"),
        ("caf\xe9 NN\n", "pos", "Line 1 of .*words.txt is not UTF-8: byte 0xe9 at place 3"),
    ],
)
def test_bad_files(text: str, column: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=sentence):
        read_labelled_words(file, column)


def test_bad_conllu(tmp_path: Path) -> None:
    file = tmp_path / "words.conllu"
    file.write_text(CONLLU.replace("VBP", "_").replace("CD", "_"))
    with pytest.raises(ValueError, match="is not annotated in its column 'xpos'"):
        read_labelled_words(file, "xpos")
    file.write_text("1 a NOUN\n")
    with pytest.raises(ValueError, match="Line 1 of .* has no word"):
        read_labelled_words(file, "upos")
    with pytest.raises(ValueError, match=r"There is no file .*none\.txt"):
        read_labelled_words(tmp_path / "none.txt", "pos")


def test_published_files(shared_data: Path) -> None:
    chunks = read_labelled_words(shared_data / "words" / "conll2000-test.txt", "chunk")
    assert (len(chunks.sentences), sum(map(len, chunks.sentences))) == (2012, 47377)
    words = read_labelled_words(shared_data / "words" / "en_ewt-ud-test.conllu", "upos")
    assert (len(words.sentences), len({one for row in words.labels for one in row})) == (2077, 17)
