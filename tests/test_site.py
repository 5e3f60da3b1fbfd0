"""The site: every page has its place, links hold, pictures are those that the script draws."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import st_llm2vec
from scripts.draw_pictures import PICTURES, pictures
from scripts.site_pages import shown_files, with_links

from .test_house import ROOMS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_every_page_has_its_place_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    placed = re.findall(r"(\S+\.md)$", navigation, re.MULTILINE)
    assert sorted(placed) == PAGES, "put each page of docs/ once under `nav` in mkdocs.yml"


def test_every_room_has_a_page_of_its_docstrings() -> None:
    pages = {name.removeprefix("api/").removesuffix(".md") for name in PAGES if name.startswith("api/")}
    assert pages == {*ROOMS, "index"}
    for room in ROOMS:
        assert f"::: st_llm2vec.{room}" in (DOCS / "api" / f"{room}.md").read_text(encoding="utf-8")


def test_the_front_page_of_the_api_has_every_name() -> None:
    table = (DOCS / "api" / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\[`(\w+)`\]", table)) == set(st_llm2vec.__all__) - {"__version__"}


@pytest.mark.parametrize("page", PAGES)
def test_no_link_leads_nowhere(page: str) -> None:
    shown = shown_files()
    source = {where: file for file, where in shown.items()}.get(page, f"docs/{page}")
    text = with_links((ROOT / source).read_text(encoding="utf-8"), source, page, shown)
    for target in re.findall(r"\]\(([^)\s#]+\.(?:md|svg))[)#]", text):
        assert target.startswith("http") or (DOCS / page).parent.joinpath(target).is_file(), target


@pytest.mark.parametrize(
    ("link", "becomes"),
    [
        ("[a](b.md#c)", "[a](../b.md#c)"),
        ("[a](../README.md)", "[a](HOST/blob/main/README.md)"),
        ("[`a`](../CONTRIBUTING.md)", "[`a`](../contributing.md)"),
        ("![a](pictures/p.svg)", "![a](../pictures/p.svg)"),
        ("`[a](b)` [a](#c) [a](https://d.e/f)", "`[a](b)` [a](#c) [a](https://d.e/f)"),
        ("```\n[a](b)\n```", "```\n[a](b)\n```"),
    ],
)
def test_links_are_turned_to_the_site(link: str, becomes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.site_pages.ROOT", tmp_path)
    (tmp_path / "docs" / "pictures").mkdir(parents=True)
    for file in ("README.md", "CONTRIBUTING.md", "docs/b.md", "docs/pictures/p.svg"):
        (tmp_path / file).touch()
    shown = {"CONTRIBUTING.md": "contributing.md"}
    assert with_links(link, "docs/a.md", "room/page.md", shown, "HOST") == becomes
    if "README" in link:
        assert with_links(link, "docs/a.md", "room/page.md", shown) == "a"
        with pytest.raises(ValueError, match=r"docs/a\.md links to gone\.md, and there is no such file"):
            with_links("[a](gone.md)", "docs/a.md", "room/page.md", shown)


def test_pictures_are_those_that_the_script_draws() -> None:
    assert {file.name: file.read_text(encoding="utf-8") for file in PICTURES.glob("*.svg")} == pictures()
