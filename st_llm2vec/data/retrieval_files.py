"""Test collections as they are handed around: SMART, TREC, and judgements of relevance."""

from __future__ import annotations

import re
from pathlib import Path

FIELD = re.compile(r"^\.([A-Z])\s*$", re.MULTILINE)
TAG = re.compile(r"<[^<>]+>")


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """A whole file.

    Raises:
        ValueError: If it is missing, empty, or in another encoding.
    """
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"Line {line} of {path} is not {encoding}: byte {data[error.start]:#04x}. Convert the file first, for example "
            "with `iconv -f latin1 -t utf-8`, or name its encoding in the plan: `encoding: latin-1`."
        ) from error
    except LookupError as error:
        raise ValueError(f"There is no encoding {encoding!r}, which the plan names for {path}.") from error
    if not text.strip():
        raise ValueError(f"{path} is empty.")
    return text


def read_smart(path: Path, encoding: str = "utf-8") -> dict[str, str]:
    """Documents or queries of a SMART collection: ``.I`` begins one, ``.T`` is its title and ``.W`` its text.

    A title that the text repeats at its beginning, as Cranfield's do, is not read twice.

    Args:
        path: The file.
        encoding: Its encoding.

    Returns:
        Texts by their numbers, as written there.

    Raises:
        ValueError: If the file holds none, or cannot be read.
    """
    found = {}
    for entry in re.split(r"^\.I\s+", read_text(path, encoding), flags=re.MULTILINE)[1:]:
        number, *parts = FIELD.split(entry)
        fields = {name: " ".join(text.split()) for name, text in zip(parts[::2], parts[1::2], strict=True)}
        title, text = fields.get("T", ""), fields.get("W", "")
        found[number.strip()] = text if text.startswith(title) else f"{title} {text}".strip()
    return _some(found, path, "entries of SMART, which begin with a line such as `.I 1`")


def read_trec_documents(path: Path, encoding: str = "utf-8") -> dict[str, str]:
    """Documents in TREC's form: ``<DOC>``, ``<DOCNO>``, and everything else in it as text.

    Args:
        path: The file.
        encoding: Its encoding.

    Returns:
        Texts by their numbers.

    Raises:
        ValueError: If the file holds none, or cannot be read.
    """
    found = {}
    for entry in re.findall(r"<DOC>(.*?)</DOC>", read_text(path, encoding), flags=re.DOTALL | re.IGNORECASE):
        number = re.search(r"<DOCNO>\s*(\S+?)\s*</DOCNO>", entry, flags=re.IGNORECASE)
        if number is None:
            raise ValueError(f"A document of {path} has no <DOCNO>: {' '.join(entry.split())[:60]!r}.")
        found[number[1]] = " ".join(TAG.sub(" ", entry.replace(number[0], " ")).split())
    return _some(found, path, "documents of TREC, such as <DOC><DOCNO>1</DOCNO>text</DOC>")


def read_trec_topics(path: Path, encoding: str = "utf-8") -> dict[str, str]:
    """Topics in TREC's form: ``<num>`` and ``<title>``, the query.

    Args:
        path: The file.
        encoding: Its encoding.

    Returns:
        Queries by their numbers.

    Raises:
        ValueError: If the file holds none, or cannot be read.
    """
    topic = re.compile(
        r"<num>\s*(?:Number:)?\s*([^\s<]+).*?<title>\s*(?:Topic:)?\s*([^<]+)", flags=re.DOTALL | re.IGNORECASE
    )
    found = {number: " ".join(title.split()) for number, title in topic.findall(read_text(path, encoding))}
    return _some(found, path, "topics of TREC, such as <top><num>1</num><title>a query</title></top>")


def read_judgements(path: Path, smallest: float = 1) -> dict[str, set[str]]:
    """Which documents are relevant to which query.

    Each line is ``query 0 document grade``, as TREC has it, or ``query document grade``, as SMART and BEIR; a line of names
    may stand above.

    Args:
        path: The file.
        smallest: The smallest grade that is relevant.

    Returns:
        The documents' numbers by those of the queries.

    Raises:
        ValueError: If a line is of another form, or none tells of anything relevant.
    """
    relevant: dict[str, set[str]] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        cells = line.split()
        if not cells or (number == 1 and not _is_number(cells[-1])):
            continue
        if len(cells) not in (3, 4) or not _is_number(cells[-1]):
            raise ValueError(
                f"Line {number} of {path} is {line[:60]!r}; `query 0 document grade` or `query document grade` is expected."
            )
        if float(cells[-1]) >= smallest:
            relevant.setdefault(cells[0], set()).add(cells[-2])
    if not relevant:
        raise ValueError(f"{path} judges no document relevant: no grade is {smallest:g} or more.")
    return relevant


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?", cell) is not None


def _some(found: dict[str, str], path: Path, what: str) -> dict[str, str]:
    if not found:
        raise ValueError(f"{path} holds no {what}.")
    return found
