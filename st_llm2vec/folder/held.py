"""Hold a folder for one process: no two may write into it at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def held(folder: Path, doing: str, lock: Path | None = None) -> Iterator[None]:
    """Hold a folder for this process.

    Args:
        folder: The folder.
        doing: What the other process does with it, such as ``"writing to"``, for the message.
        lock: The lock's file; ``.lock`` in the folder if not given.

    Raises:
        ValueError: If another process holds it.
    """
    try:
        mine = FileLock(lock or folder / ".lock").acquire(timeout=0).lock
    except Timeout as error:
        raise ValueError(f"Another process is {doing} {folder}. Wait for it, or stop it.") from error
    try:
        yield
    finally:
        mine.release()
