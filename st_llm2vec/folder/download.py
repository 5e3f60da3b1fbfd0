"""Download a repository's files, and refuse large ones that arrived otherwise than the Hub has them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from st_llm2vec.folder.checksums import sha256

SHA256 = re.compile(r"[0-9a-f]{64}")


def download(name: str, **options: Any) -> Path:
    """Download what is not in the cache yet, as ``snapshot_download`` does, and check what has just come.

    Over plain HTTP the client compares sizes only. The cache names large files by the sha256 that the Hub gave for
    them, so what was downloaded in this call can be checked; what was there before is not read again.

    Args:
        name: The repository.
        **options: As for ``snapshot_download``.

    Returns:
        The folder.

    Raises:
        ValueError: If a file is corrupted. It is removed, so that the next call downloads it again.
        OSError: If the connection breaks off.
    """
    started = time.time() - 2  # File systems keep times in steps of up to two seconds.
    with connection_errors():
        folder = Path(snapshot_download(name, **options))
    for file in folder.rglob("*.safetensors"):
        blob = file.resolve()
        if SHA256.fullmatch(blob.name) and blob.stat().st_mtime >= started and sha256(blob) != blob.name:
            _remove([blob, file])
            raise ValueError(
                f"{file.relative_to(folder)} of {name} was corrupted on the way: its sha256 is not the one that the Hub "
                "has. It was removed from the cache; download it again."
            )
    return folder


@contextmanager
def connection_errors() -> Iterator[None]:
    """Make one kind of error of the HTTP library's own, whose module differs between versions of huggingface_hub."""
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise OSError(f"the connection broke off ({type(error).__name__}: {error})") from error


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
