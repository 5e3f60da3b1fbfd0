"""What MkDocs calls while it builds the site: pages that show another file, and links that lead out of ``docs/``.

A page whose front matter has ``source: CONTRIBUTING.md`` shows that file of the repository. The links of every page are written
for readers of the repository. One to a page, or to a file that a page shows, becomes a link to the page. One to any other
file leads to the repository where its address is known (``repo_url`` of ``mkdocs.yml``), and else is the file's name alone.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"```.*?```|`[^`\n]*`|(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)", re.DOTALL)
SOURCE = re.compile(r"\A---\nsource: (\S+)\n---\n")


def shown_files(folder: Path = ROOT / "docs") -> dict[str, str]:
    """The files that pages show, and the page of each: paths from the root, and from the folder."""
    found = {}
    for page in folder.rglob("*.md"):
        if source := SOURCE.match(page.read_text(encoding="utf-8")):
            found[source[1]] = page.relative_to(folder).as_posix()
    return found


def with_links(text: str, place: str, page: str, shown: dict[str, str], repository: str = "") -> str:
    """A page's Markdown with links that hold on the site.

    Args:
        text: The Markdown.
        place: The file that it was written in, from the root of the repository.
        page: The page that shows it, from ``docs/``.
        shown: The page of each file that a page shows (``shown_files``).
        repository: The repository's address, or ``""``.

    Returns:
        The Markdown; code is left as it is.

    Raises:
        ValueError: A link leads to no file.
    """

    def replace(link: re.Match[str]) -> str:
        target = link["target"]
        if target is None or re.match(r"[a-z]+:|#|/", target):
            return link[0]
        path, mark, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(place), path))
        if not (ROOT / path).exists():
            raise ValueError(f"{place} links to {target}, and there is no such file: mend the link.")
        if path in shown or (path.startswith("docs/") and not path.endswith(".json")):
            inside = shown.get(path) or path.removeprefix("docs/")
            path = posixpath.relpath(inside, posixpath.dirname(page) or ".")
            return f"{link['image']}[{link['text']}]({path}{mark}{anchor})"
        return (
            f"[{link['text']}]({repository.rstrip('/')}/blob/main/{path}{mark}{anchor})" if repository else link["text"]
        )

    return LINK.sub(replace, text)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """MkDocs: the Markdown of a page, before it is rendered."""
    source = page.meta.get("source")
    text = (ROOT / source).read_text(encoding="utf-8") if source else markdown
    return with_links(
        text, source or f"docs/{page.file.src_uri}", page.file.src_uri, shown_files(), config["repo_url"] or ""
    )
