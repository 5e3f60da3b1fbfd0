"""What the package index shows of the project: README.md with links that lead somewhere there, and the project's addresses.

All of them follow from one address, the repository's, in the environment variable ``REPOSITORY``. The workflows set it to the
repository that they run in. Where it is not set, files are named and not linked, and there are no addresses.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"```.*?```|(?P<image>!?)\[(?P<text>[^\]]*)\]\((?!https?:|#)(?P<path>[^)\s]+)\)", re.DOTALL)


def with_addresses(text: str, repository: str) -> str:
    """README.md with every link to a file of the repository made absolute, or replaced by its text."""

    def replace(link: re.Match[str]) -> str:
        if link["path"] is None:
            return link[0]
        if not repository:
            return "" if link["image"] else link["text"]
        folder = "raw" if link["image"] else "blob"
        return f"{link['image']}[{link['text']}]({repository}/{folder}/main/{link['path']})"

    return LINK.sub(replace, text)


class ProjectMetadata(MetadataHookInterface):
    """Fills in ``readme`` and ``urls``, which pyproject.toml calls dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Hatchling: the project's metadata is being read."""
        repository = os.environ.get("REPOSITORY", "").rstrip("/")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": with_addresses(text, repository)}
        paths = {
            "Repository": "",
            "Documentation": "/tree/main/docs",
            "Changelog": "/blob/main/CHANGELOG.md",
            "Issues": "/issues",
        }
        metadata["urls"] = {name: repository + path for name, path in paths.items()} if repository else {}
