"""Files of words with labels: columns as in the CoNLL shared tasks, and CoNLL-U as in Universal Dependencies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CONLL = {"pos": 1, "chunk": 2, "ner": 3}
"""Columns by name, as in CoNLL-2000 and CoNLL-2003; the word is the first."""
CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
UNANNOTATED = "_"
DOCUMENT = "-DOCSTART-"

Line = tuple[int, str]


@dataclass(frozen=True)
class LabelledWords:
    """Sentences as lists of words, and a label for each word.

    Args:
        name: The file's name.
        sentences: The words of each sentence.
        labels: Their labels, in the same shape.
    """

    name: str
    sentences: list[list[str]]
    labels: list[list[str]]


def read_labelled_words(path: str | Path, column: str, limit: int | None = None) -> LabelledWords:
    """Read words and their labels from a file.

    A file that ends in ``.conllu`` is read as CoNLL-U, in which words of a contraction and empty nodes are no lines of
    their own. In any other, each line is a word with its columns, split at tabs or else at blanks, and an empty line ends
    a sentence; lines that open a document (``-DOCSTART-``) are left out.

    Args:
        path: The file, in UTF-8.
        column: The labels' column: ``pos``, ``chunk`` or ``ner`` for the second, third and fourth; for CoNLL-U one of its
            names, such as ``upos`` or ``xpos``, where ``pos`` is ``upos``; or a number, the first column being 0.
        limit: How many sentences to read; all of them if not given.

    Returns:
        The sentences and their labels.

    Raises:
        ValueError: If there is no such file, column or sentence, or a line is not what it should be; the message names
            the file and the line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    conllu = path.suffix.lower() == ".conllu"
    word, label = _columns(path, column, conllu)
    sentences: list[list[str]] = []
    labels: list[list[str]] = []
    for lines in _sentences(path):
        rows = list(_conllu_rows(lines) if conllu else _conll_rows(lines))
        if not rows:
            continue
        if limit is not None and len(sentences) == limit:
            break
        for number, cells in rows:
            if len(cells) <= max(word, label) or not cells[word].strip() or not cells[label].strip():
                raise ValueError(
                    f"Line {number} of {path} has no word or no {column!r} in columns {word} and {label} (the first is 0): "
                    f"{' '.join(cells)[:60]!r}. Mend the line, or name another column."
                )
        sentences.append([cells[word] for _, cells in rows])
        labels.append([cells[label] for _, cells in rows])
    if not sentences:
        raise ValueError(
            f"{path} holds no sentences; it should have a word on each line and an empty line between them."
        )
    if conllu and all(one == UNANNOTATED for row in labels for one in row):
        raise ValueError(f"{path} is not annotated in its column {column!r}: all of it is {UNANNOTATED!r}.")
    return LabelledWords(path.name, sentences, labels)


def _columns(path: Path, column: str, conllu: bool) -> tuple[int, int]:
    """The numbers of the columns of words and of labels."""
    names = {**{name: place for place, name in enumerate(CONLLU)}, "pos": CONLLU.index("upos")} if conllu else CONLL
    known = ", ".join(sorted(names, key=names.__getitem__))
    if column.isdecimal():
        label = int(column)
    elif column.lower() in names:
        label = names[column.lower()]
    else:
        raise ValueError(f"{path} has no column {column!r}. Known are {known}, or a number, the first column being 0.")
    word = CONLLU.index("form") if conllu else 0
    if label == word:
        raise ValueError(f"Column {column!r} of {path} is the word itself. Labels are in one of {known}.")
    return word, label


def _sentences(path: Path) -> Iterator[list[Line]]:
    """Runs of lines that are not empty, each line with its number."""
    lines: list[Line] = []
    with path.open("rb") as file:
        for number, data in enumerate(file, start=1):
            try:
                line = data.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"Line {number} of {path} is not UTF-8: byte {data[error.start]:#04x} at place {error.start}. Convert "
                    "the file first, for example with `iconv -f latin1 -t utf-8`."
                ) from error
            if line.strip():
                lines.append((number, line))
            elif lines:
                yield lines
                lines = []
    if lines:
        yield lines


def _conll_rows(lines: list[Line]) -> Iterator[tuple[int, list[str]]]:
    for number, line in lines:
        cells = line.split("\t") if "\t" in line else re.split(" +", line.strip(" "))
        if cells[0] != DOCUMENT:
            yield number, cells


def _conllu_rows(lines: list[Line]) -> Iterator[tuple[int, list[str]]]:
    for number, line in lines:
        cells = line.split("\t")
        if not line.startswith("#") and not re.fullmatch(r"\d+[-.]\d+", cells[0]):
            yield number, cells
