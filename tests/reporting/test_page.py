"""The page, and what it makes of names that are markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib")

from st_llm2vec.reporting.page import write_report  # noqa: E402

from .reports import LABELS, MARKUP, report  # noqa: E402


class Reader(HTMLParser):
    """What a browser would take for elements, and for text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(report(), tmp_path_factory.mktemp("written") / "report").parent


@pytest.fixture
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("st_llm2vec.reporting.page._plots", lambda report: {})


def test_names_are_text_and_never_markup(folder: Path) -> None:
    page = Reader((folder / "report.html").read_text(encoding="utf-8"))
    assert not {"script", "img", "b", "i"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert MARKUP in page.texts and "no layers <i>" in " ".join(page.texts)
    assert set(LABELS) <= {
        text.strip(" \n\u200b") for text in page.texts
    }  # in the legend of the map, formulas as they are


def test_scores_of_mteb_stand_in_a_table_of_their_own(folder: Path) -> None:
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    table = markdown.partition("## MTEB\n\n")[2].splitlines()
    assert table[0] == r"| model | Pairs\|of MTEB |"
    assert table[2].endswith("| 50.0 |") and table[3] == "| plain | **60.0** |"
    assert json.loads((folder / "report.json").read_text())["models"][1]["mteb"][0]["scores"]["test"]


def test_the_page_asks_for_nothing_outside_itself(folder: Path) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Reader(text)
    asked = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "srcset", "data")]
    assert asked and all(value.startswith(("#", "data:")) for value in asked)
    assert not {"link", "iframe", "object"} & set(page.tags)
    assert not re.findall(r"@import|url\((?!#)", text)


def test_plots_take_the_colours_of_the_page(folder: Path) -> None:
    plots = re.findall(r"<svg.*?</svg>", (folder / "report.html").read_text(encoding="utf-8"), re.DOTALL)
    assert len(plots) == 6  # scores, layers, heat map, future tokens, two maps
    for plot in plots:
        root = ElementTree.fromstring(plot)
        assert root.get("role") == "img" and root.get("viewBox") and root.get("width") is None
        assert "var(--ink)" in plot and not re.search(r"(fill|stroke): #0", plot)


def test_markdown_keeps_its_columns(folder: Path) -> None:
    lines = (folder / "report.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("|")]
    columns = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
    assert columns == [3] * 5 + [3] * 4 + [9] * 3 + [4] * 4
    assert "\\<img src=x onerror=alert(1)\\> \\| \\$x^2\\$ & 日本" in rows[0]
    assert "| plain | **31.0** |" in lines


def test_json_holds_all_of_it(folder: Path) -> None:
    data = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert {name: data[name] for name in report().to_dict()} == json.loads(json.dumps(report().to_dict()))
    assert data["made"].endswith("UTC")


@pytest.mark.usefixtures("without_plots")
def test_the_best_is_marked_among_several_only(tmp_path: Path) -> None:
    page = write_report(report(("org/one",)), tmp_path)
    assert 'class="best"' not in page.read_text(encoding="utf-8")


@pytest.mark.usefixtures("without_plots")
def test_all_files_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(report(), tmp_path)
    (tmp_path / "mine.txt").write_text("stays")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail(*_: object) -> None:
        raise RuntimeError("no JSON")

    monkeypatch.setattr("st_llm2vec.reporting.measure.Report.to_dict", fail)
    with pytest.raises(RuntimeError):
        write_report(report(("org/other",)), tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.usefixtures("without_plots")
def test_a_file_in_the_place_of_the_folder_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(NotADirectoryError, match="taken is a file; give a folder"):
        write_report(report(), tmp_path / "taken")
