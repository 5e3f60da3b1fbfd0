"""A folder of mined rows: a file for each source, the mixture that reads them, and the report. It fills source by source."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from st_llm2vec.data.mining import Mined
from st_llm2vec.folder.disk_errors import disk_errors
from st_llm2vec.folder.staging import replacing_file

MIXTURE, REPORT, UNFINISHED = "mixture.yaml", "report.json", "unfinished.json"
MADE_BY = {"made_by": "st-llm2vec data mine"}


@dataclass(frozen=True)
class MinedFolder:
    """A folder of mined rows.

    Args:
        path: Where it is; it may be missing.

    Raises:
        ValueError: If there is something else.
    """

    path: Path

    def __post_init__(self) -> None:
        path = self.path
        own = (path / UNFINISHED).is_file() or _is_own_report(path / REPORT)
        if path.exists() and (not path.is_dir() or (any(path.iterdir()) and not own)):
            raise ValueError(f"{path} is no folder of mined rows, and not empty; give another one.")

    def file(self, label: str) -> Path:
        """The file of a source's rows."""
        return self.path / (re.sub(r"[^\w.-]+", "_", label) + ".jsonl")

    def require_room(self, labels: Iterable[str], read: Iterable[str | Path]) -> None:
        """Refuse to write over what is read, and two sources' rows into one file.

        Args:
            labels: The sources that get a file.
            read: All files that are read.

        Raises:
            ValueError: If files would be lost.
        """
        inside = [one for one in map(Path, read) if one.is_file() and one.resolve().is_relative_to(self.path.resolve())]
        if inside:
            raise ValueError(f"{inside[0]} is read, and lies in {self.path}, which is written; give another folder.")
        files: dict[str, str] = {}
        for label in labels:
            file = self.file(label).name
            other = files.setdefault(file.casefold(), label)
            if other != label:
                raise ValueError(f"The sources {other!r} and {label!r} would both be {file}; give one another name.")

    def begun(self, label: str, asked: dict[str, Any]) -> dict[str, Any] | None:
        """The report of a source that an interrupted run has mined, if it was asked for the same."""
        kept = self._unfinished().get(label)
        if kept is None or kept["asked"] != _digest(asked) or not self.file(label).is_file():
            return None
        report: dict[str, Any] = kept["report"]
        return report

    def add(self, label: str, asked: dict[str, Any], mined: Mined) -> None:
        """Write a source's rows, and that they are there.

        Args:
            label: The source's name.
            asked: All that its rows depend on, as plain data.
            mined: Its rows and their report.

        Raises:
            OSError: If the folder may not be written.
        """
        file = self.file(label)
        with disk_errors(file), replacing_file(file) as fresh:
            mined.rows.to_json(fresh, force_ascii=False)
        done = {**self._unfinished(), label: {"asked": _digest(asked), "report": mined.report}}
        _write(self.path / UNFINISHED, json.dumps(done, ensure_ascii=False))

    def finish(self, mixture: dict[str, Any], report: dict[str, Any]) -> Path:
        """Write the report, and the mixture last: with it the folder is whole.

        Returns:
            The mixture's file.
        """
        _write(self.path / REPORT, json.dumps({**MADE_BY, **report}, indent=2, ensure_ascii=False))
        written = self.path / MIXTURE
        _write(written, yaml.safe_dump(mixture, sort_keys=False, allow_unicode=True, width=120))
        (self.path / UNFINISHED).unlink(missing_ok=True)
        return written

    def _unfinished(self) -> dict[str, Any]:
        file = self.path / UNFINISHED
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return found


def _is_own_report(file: Path) -> bool:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.items() >= MADE_BY.items()


def _digest(asked: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def _write(file: Path, text: str) -> None:
    with disk_errors(file), replacing_file(file) as fresh:
        fresh.write_text(text.rstrip() + "\n", encoding="utf-8")
