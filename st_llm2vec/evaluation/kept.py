"""Results that are kept on the disk, so that what is interrupted goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from st_llm2vec.folder.disk_errors import disk_errors
from st_llm2vec.folder.staging import replacing_file


def default_cache(kind: str) -> Path:
    """Where the command line keeps word vectors, results of tasks and a teacher's vectors: in the user's folder of caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "st-llm2vec" / kind


def keep(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON, all or nothing.

    Args:
        path: The file.
        result: Plain data.

    Raises:
        OSError: If it cannot be written.
    """
    with disk_errors(path), replacing_file(path) as fresh:
        fresh.write_text(json.dumps(result, indent=2), encoding="utf-8")


def read_kept(path: Path, kind: type, **changes: Any) -> Any:
    """Read a kept result.

    Args:
        path: The file.
        kind: The dataclass that it is of.
        **changes: Fields with other values now.

    Returns:
        One of the kind.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        return kind(**{**json.loads(path.read_text(encoding="utf-8")), **changes})
    except (ValueError, TypeError) as error:
        raise ValueError(f"The kept result {path} cannot be read ({error}); delete it.") from error
